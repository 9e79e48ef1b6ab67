"""Traces, hidden states on disk: collecting, writing and reading them."""

from typing import TYPE_CHECKING

from autodeco.traces.settings import CollectSettings

if TYPE_CHECKING:
    from autodeco.traces.collecting import collect

__all__ = ["CollectSettings", "collect"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module 'autodeco.traces' has no attribute '{name}'")
    from autodeco.traces import collecting  # llama.cpp, which training on traces does without

    return getattr(collecting, name)
