"""Models that are open when Python ends are closed while its modules are still there.

llama.cpp logs as it frees a context, to a function of llama-cpp-python. A model that outlives the modules, as in a
context variable of a web framework, would end the process with a segmentation fault there.
"""

import atexit
import ctypes
import weakref
from typing import TYPE_CHECKING

from autodeco.errors import InputError

if TYPE_CHECKING:
    from autodeco.llama.exclusive import ExclusiveLlama

_open: "weakref.WeakSet[ExclusiveLlama]" = weakref.WeakSet()


def close_at_exit(llm: "ExclusiveLlama") -> None:
    """Close ``llm`` when Python ends, if it is still there."""
    _open.add(llm)


@atexit.register
def _close_all() -> None:
    for llm in list(_open):
        if llm._turn.is_elsewhere:  # a forked child's copy
            continue
        try:
            llm.close()
        except InputError:  # another thread uses it, and ends with the process: nobody may free it
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(llm))
