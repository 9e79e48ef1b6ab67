"""The compiled code: heads and nucleus as the sampler inside llama.cpp's graph runs them, on given arrays.

It is compiled against one release of llama-cpp-python, whose structures change between releases; another one installed
is an ImportError that names both (``autodeco.release``).
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator

import llama_cpp  # loads the one libllama of this process, and on Windows adds its folder to those that have DLLs
import numpy as np
import numpy.typing as npt

from autodeco.errors import InputError
from autodeco.release import check_layout, check_library, check_version, not_loaded

try:
    from autodeco import _native
except ImportError as error:
    raise not_loaded(error) from error

#: the release of llama-cpp-python that it was compiled against
BUILT_AGAINST: str = _native.LLAMA_CPP_PYTHON_VERSION
check_version(BUILT_AGAINST, llama_cpp.__version__)
check_library(_native.GGML_VERSION, _native.loaded_ggml())
check_layout(_native.LAYOUT)

GraphSampler = _native.GraphSampler
Heads = _native.Heads
HiddenStates = _native.HiddenStates
#: what a model is that heads cannot run with: ``(architecture, causal, pooling)``; "" for others
refused_model = _native.refused_model
#: vector instructions that the passes over the logits run on
ISA: str = _native.ISA


def address(pointer) -> int:
    """Address of a llama.cpp object that llama-cpp-python holds; raises TypeError for one that was freed."""
    found = ctypes.cast(pointer, ctypes.c_void_p).value
    if found is None:
        raise TypeError("an object of llama.cpp that was freed has no address")
    return found


def sampler(pointer: int) -> "ctypes._Pointer[llama_cpp.llama_sampler]":
    """A sampler made by the compiled module, as llama-cpp-python's functions take it."""
    return ctypes.cast(pointer, ctypes.POINTER(llama_cpp.llama_sampler))


def watch(states: HiddenStates, params: llama_cpp.llama_context_params) -> None:
    """Let ``states``, which must outlive it, see the hidden states of the outputs of a context made with ``params``."""
    params.cb_eval = llama_cpp.ggml_backend_sched_eval_callback(states.on_node)
    params.cb_eval_user_data = states.address


@contextlib.contextmanager
def warnings_only() -> Iterator[None]:
    """Let llama.cpp log warnings and errors alone, in all threads: what it logs with every graph would else wait for
    Python's lock each time, only to be dropped."""
    _native.begin_log_filter()
    try:
        yield
    finally:
        _native.end_log_filter()


def load_heads(path: str | os.PathLike) -> Heads:
    """Read heads from a GGUF file of any layout; raises InputError naming the file and what is wrong."""
    if not os.path.isfile(path):
        what = "a folder, no heads file" if os.path.isdir(path) else "no such heads file"
        raise InputError(f"{os.fspath(path)}: {what}; write one with autodeco-export")
    try:
        return Heads(os.fsencode(path))  # a path need not be text
    except ValueError as error:
        raise InputError(str(error)) from None


def predict(
    heads_path: str | os.PathLike, hidden: npt.ArrayLike, logits: npt.ArrayLike
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Predict temperature in (0, 2) and top-p in (0, 1) for n tokens, before a control head steers them, with the nodes
    that the sampler builds.

    ``hidden`` [n, H] are the vectors that the output matrix multiplies, ``logits`` [n, V] the raw logits; returns
    (temperature [n], top_p [n]), float32. A head that the file lacks gives 1. Raises InputError for a bad file,
    ValueError for another width or vocabulary than the heads' and for NaN or infinite values (-inf logits are banned
    tokens).
    """
    return load_heads(heads_path).predict(hidden, logits)


def levels(heads_path: str | os.PathLike, hidden: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Read levels [n] in [-1, 1], float32, at ``hidden`` [n, H]: what the control head would steer an answer by whose
    first token is sampled from that state; 0 without a control head. Raises InputError for a bad file, ValueError for
    another width than the heads' and for NaN or infinite values.
    """
    return load_heads(heads_path).levels(hidden)


def nucleus_sample(
    logits: npt.ArrayLike,
    temperature: npt.ArrayLike,
    top_p: npt.ArrayLike,
    u: npt.ArrayLike,
    rows: npt.ArrayLike | None = None,
) -> npt.NDArray[np.int32]:
    """Sample n tokens from nuclei with the sampler's own kernel.

    ``logits`` [n, V]; ``temperature`` [n], below 1e-5 takes the argmax; ``top_p`` [n]; ``u`` [n] uniform in [0, 1),
    walks the tokens in descending order of logit, equal logits by id. Returns token ids [n], int32. The nucleus is the
    smallest such prefix whose mass reaches ``top_p``, the crossing token included. With ``rows`` [n], whole numbers,
    token i is sampled from ``logits[rows[i]]``; tokens of one row at one temperature and top-p share its passes. -inf
    bans a token; NaN, +inf and a row that does not exist raise ValueError.
    """
    if rows is not None and np.asarray(rows).dtype.kind not in "iu":
        raise ValueError(f"rows must be whole numbers, not {np.asarray(rows).dtype}")
    return _native.nucleus_sample(logits, temperature, top_p, u, rows)


def draw_from_rows(
    heads: Heads | None,
    hidden: npt.ArrayLike,
    logits: npt.ArrayLike,
    rows: npt.ArrayLike,
    temperature: npt.ArrayLike,
    top_p: npt.ArrayLike,
    by_temperature_head: npt.ArrayLike,
    by_top_p_head: npt.ArrayLike,
    u: npt.ArrayLike,
    top_p_noise: npt.ArrayLike | None = None,
    level: npt.ArrayLike | None = None,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Sample n tokens by settings and heads: ``predict`` and ``nucleus_sample`` in one pass, without Python's lock.

    Token i is sampled from ``logits[rows[i]]``; ``rows`` [n] ascend. Where its flag ``by_temperature_head`` or
    ``by_top_p_head`` is set, its ``temperature`` or ``top_p`` multiplies what ``heads`` predict from ``hidden`` [m, H]
    and ``logits`` [m, V], elsewhere it is the setting. ``level`` [n] steers what they predict; NaN, the default, is the
    level that the control head reads at that state, as for the first token of an answer. Returns token ids [n], and
    temperature, top-p and level [n], as predicted and steered where heads decide, and as given elsewhere.
    ``top_p_noise`` [n] is added to the logit of each top-p, of which what is returned is without it. Raises ValueError
    as those two do.
    """
    noise = np.zeros(np.shape(rows)) if top_p_noise is None else top_p_noise
    level = np.full(np.shape(rows), np.nan, np.float32) if level is None else level
    return _native.draw_from_rows(
        heads, hidden, logits, rows, temperature, top_p, by_temperature_head, by_top_p_head, u, noise, level
    )


def spread(logits: npt.ArrayLike) -> tuple[float, float]:
    """Return the entropy in nats and the highest probability of the softmax of ``logits`` [V]; -inf is probability 0.

    Raises ValueError for NaN, +inf, and a row that is -inf throughout."""
    return _native.spread(logits)
