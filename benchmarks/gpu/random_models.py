"""Hugging Face models of real shapes with random weights, the same in each layer, and text to train on."""

import json
import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

SHAPES = {  # bfloat16
    "1.5b": {"hidden_size": 1536, "num_hidden_layers": 28, "intermediate_size": 8960},  # Qwen2.5-1.5B
    "8b": {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336},  # Llama-3.1-8B
    "43b": {
        "hidden_size": 8192,
        "num_hidden_layers": 48,
        "intermediate_size": 28672,
    },  # Llama-3.1-70B's, 48 layers
}
SHAPES["1.5b"] |= {"num_attention_heads": 12, "num_key_value_heads": 2, "tie_word_embeddings": True}
SHAPES["8b"] |= {"num_attention_heads": 32, "num_key_value_heads": 8}
SHAPES["43b"] |= {"num_attention_heads": 64, "num_key_value_heads": 8}
VOCABULARY = 151936
SENTENCE = "The quick brown fox jumps over the lazy dog, and 12 sheep count themselves to sleep. "


def write_zeros(tensors: dict, path: Path) -> None:
    """Write a safetensors file of zeros of the shapes of ``tensors``, all bfloat16, as one hole."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [end, end + tensor.nbytes]}
        end += tensor.nbytes
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded)
    os.truncate(path, 8 + len(encoded) + end)


def write_model(folder: Path, shape: str, tokenizer: Path, memory: int) -> None:
    """Write a model of a ``shape`` of ``SHAPES``, layer by layer: it may be larger than ``memory``, that of a GPU, in
    bytes, and then its layers are zeros, which take no disk."""
    shape = SHAPES[shape]
    config = {"vocab_size": VOCABULARY, "architectures": ["Qwen2ForCausalLM"], "dtype": "bfloat16", **shape}
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = Qwen2ForCausalLM(Qwen2Config(**config | {"num_hidden_layers": 1}))
    torch.set_default_dtype(torch.float32)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if shape.get("tie_word_embeddings"):
        del state["lm_head.weight"]
    del model
    torch.cuda.empty_cache()
    Qwen2Config(**config).save_pretrained(folder)
    layer = {name: tensor for name, tensor in state.items() if ".layers.0." in name}
    parts = [{name: tensor for name, tensor in state.items() if name not in layer}]
    parts += [
        {name.replace(".layers.0.", f".layers.{i}."): tensor for name, tensor in layer.items()}
        for i in range(shape["num_hidden_layers"])
    ]
    size = sum(tensor.nbytes for part in parts for tensor in part.values())
    places = {}
    for i, part in enumerate(parts):
        file = f"model-{i:05}-of-{len(parts):05}.safetensors"
        if i and size > memory:
            write_zeros(part, folder / file)
        else:
            save_file(part, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": size}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    where = {"gguf_file": tokenizer.name} if tokenizer.suffix == ".gguf" else {}
    AutoTokenizer.from_pretrained(tokenizer.parent if where else tokenizer, **where).save_pretrained(folder)


def write_data(path: Path, n: int) -> None:
    """Write ``n`` records of 200 to 350 tokens or so."""
    rows = [{"prompt": f"{i}:", "completion": SENTENCE * (10 + i % 7)} for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
