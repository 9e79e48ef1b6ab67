"""What llama-cpp-python itself makes of a model: the state behind a prompt, and copies with weights of another type."""

import ctypes

import llama_cpp
import numpy as np


def last_state(model_path, tokens, *, alone: bool = False, **options) -> tuple[np.ndarray, np.ndarray]:
    """Hidden state [H] and logits [V] of the last of ``tokens``, in a context of its own with ``options``.

    ``alone``: it is decoded after the others, as batches and cached prompts do it, not together with them. Kernels
    differ between the two, and with quantized weights that makes several percent of a state.
    """
    options = {"n_ctx": 512, "n_threads": 1, "n_threads_batch": 1, "verbose": False} | options
    model = llama_cpp.Llama(str(model_path), **options)
    llama_cpp.llama_set_embeddings(model.ctx, True)
    if alone:
        model.eval(tokens[:-1])
        tokens = tokens[-1:]
    model.eval(tokens)
    hidden = np.ctypeslib.as_array(llama_cpp.llama_get_embeddings_ith(model.ctx, -1), (model.n_embd(),)).copy()
    logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(model.ctx, -1), (model.n_vocab(),)).copy()
    model.close()
    return hidden, logits


def requantize(source, target, kind: int) -> bool:
    """Write ``source`` to ``target`` with weights of ``kind`` (a LLAMA_FTYPE); whether llama.cpp could."""
    llama_cpp._logger.set_verbose(False)
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize, params.nthread = kind, True, 1
    return llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)) == 0
