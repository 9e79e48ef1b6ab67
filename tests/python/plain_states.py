"""Hidden states and logits as llama-cpp-python itself computes them."""

import llama_cpp
import numpy as np


def last_state(model_path, tokens, **options) -> tuple[np.ndarray, np.ndarray]:
    """Hidden state [H] and logits [V] of the last of ``tokens``, in a context of its own with ``options``."""
    options = {"n_ctx": 512, "n_threads": 1, "n_threads_batch": 1, "verbose": False} | options
    model = llama_cpp.Llama(str(model_path), **options)
    llama_cpp.llama_set_embeddings(model.ctx, True)
    model.eval(tokens)
    hidden = np.ctypeslib.as_array(llama_cpp.llama_get_embeddings_ith(model.ctx, -1), (model.n_embd(),)).copy()
    logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(model.ctx, -1), (model.n_vocab(),)).copy()
    model.close()
    return hidden, logits
