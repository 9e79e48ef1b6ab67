"""What llama.cpp's own tools make of a model: the state behind a prompt, copies with other weights, and its parts."""

import ctypes

import gguf
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


def split(model, folder, tensors_each: int) -> list:
    """Paths of the parts of ``model``, named as llama-gguf-split names them."""
    reader = gguf.GGUFReader(model)
    writer = gguf.GGUFWriter(
        folder / "part.gguf", reader.get_field("general.architecture").contents(), split_max_tensors=tensors_each
    )
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            kinds = field.types
            writer.add_key_value(name, field.contents(), kinds[0], sub_type=kinds[-1] if len(kinds) > 1 else None)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("part-*.gguf"))
