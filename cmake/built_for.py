"""What scikit-build-core adds to the requirements of a wheel: the release of llama-cpp-python that it was built for.

pyproject.toml states the releases that the source builds with, and the source package has those. The structures of two
releases differ, so pip must not put another one beside a wheel.
"""

import importlib.metadata
from collections.abc import Mapping

_state = "wheel"


def build_state(state: str) -> None:
    """Take what is being built: ``sdist``, ``wheel``, ``editable``, or the metadata of one of them."""
    global _state
    _state = state


def dynamic_metadata(settings: Mapping, project: Mapping) -> dict[str, list[str]]:
    """The requirements to add."""
    if _state == "sdist":
        return {"dependencies": []}
    return {"dependencies": [f"llama-cpp-python=={importlib.metadata.version('llama-cpp-python')}"]}


def dynamic_wheel(settings: Mapping) -> dict[str, bool]:
    """Which fields a wheel may have other than the source package that it is built from."""
    return {"dependencies": True}
