"""The identity of the model that was run: heads, traces and answers of one model share its fingerprint."""

import os
from dataclasses import dataclass

from autodeco.export.layout import Layout, open_layout


@dataclass(frozen=True)
class ModelIdentity:
    """The model that was run; ``path`` is where it was then."""

    path: str
    fingerprint: str
    architecture: str
    name: str
    hidden_size: int
    vocab_size: int


def model_fingerprint(model: str | os.PathLike | Layout) -> str:
    """Return the fingerprint that exported heads carry of the model in ``model``, a file or its layout."""
    return open_layout(model).model_fingerprint
