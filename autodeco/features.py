"""What some releases of llama-cpp-python have and others lack, told by their names and never by their numbers.

Each is asked for here alone; cpp_ext/src/llama_releases.h does the same for what is compiled.
"""

from typing import Any

import llama_cpp

from autodeco.errors import InputError

#: whether llama.cpp draws from several outputs of a text in one graph, and makes room in its graphs for samplers
SEVERAL_OUTPUTS: bool = hasattr(llama_cpp.llama_context_params, "n_outputs_max_per_seq")
#: whether a DRY sampler is made with the length of text that the model was trained for
DRY_TAKES_LENGTH: bool = len(llama_cpp.llama_sampler_init_dry.argtypes) == 8
# Where there is no room, a graph holds 8 tensors for each of the model (some 9 a layer), and 1,024 at least. What
# the model computes takes half of it or so; this part is for samplers.
ROOM = 1 / 4
TENSORS_OF_A_SAMPLER = 12


def set_outputs_per_text(params: llama_cpp.llama_context_params, most: int) -> None:
    """Let a text have up to ``most`` outputs in one decode of a context; without samplers in its graph, any release
    does."""
    if SEVERAL_OUTPUTS:
        params.n_outputs_max_per_seq = most


def check_drafts(path: str) -> None:
    """Raise InputError where drafts cannot be drawn from in the graph."""
    if not SEVERAL_OUTPUTS:
        raise InputError(
            f"{path}: llama-cpp-python {llama_cpp.__version__} draws from one output of a text at a time, so heads in "
            "its graph cannot check drafts; open it without draft_model, with logits_all=True, or with a newer release"
        )


def check_samplers(path: str, number: int, layers: int) -> None:
    """Raise InputError where a graph of a model of ``layers`` layers has no room for the samplers of ``number``
    texts."""
    most = int(max(1024, 8 * 9 * layers) * ROOM / TENSORS_OF_A_SAMPLER)
    if not SEVERAL_OUTPUTS and number > most:
        raise InputError(
            f"{path}: {number} answers at a time: a graph of this model has room for {most} in llama-cpp-python "
            f"{llama_cpp.__version__}; use fewer slots, or a newer release"
        )


def dry_sampler(vocab: Any, trained_length: int, *settings: Any) -> "llama_cpp.llama_sampler_p":
    """A DRY sampler of llama.cpp; some releases take the length of text that the model was trained for, for a length of
    penalty that is not given."""
    return llama_cpp.llama_sampler_init_dry(vocab, *([trained_length] if DRY_TAKES_LENGTH else []), *settings)
