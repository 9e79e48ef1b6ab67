"""Opening a model with its heads."""

import os

from autodeco.base.opening import check_gguf, loaded
from autodeco.llama.llama import Llama


def open_llama(path: str | os.PathLike, heads_path: str | os.PathLike | None = None, **kwargs) -> Llama:
    """Open the model at ``path``, with heads, as ``autodeco.Llama``, quietly; ``kwargs`` are those of that class.

    Raises InputError as ``open_base`` does, and for heads that do not fit the model.
    """
    check_gguf(path)
    return loaded(lambda: Llama(str(path), heads_path, **{"verbose": False, **kwargs}), path)
