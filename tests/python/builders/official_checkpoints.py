"""Tiny look-alikes of the checkpoints that the official project names: the same tensor names, types, shards and
config.json fields, over a base of the same architecture (https://github.com/Zacks917/AutoDeco, README.md)."""

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Official:
    """``architecture`` is a file of generate_architectures; ``model_type`` and ``config`` are the base's own in
    config.json; ``tensors`` are names of the base's weights in one layer, with their types, in ``shards`` files."""

    base: str
    architecture: str
    model_type: str
    shards: int
    tensors: dict[str, str]
    config: dict = field(default_factory=dict)


def _dense(*more: str) -> dict[str, str]:
    parts = ("self_attn.q_proj.weight", "self_attn.o_proj.weight", "mlp.gate_proj.weight", "input_layernorm.weight")
    return dict.fromkeys((*parts, *more), "BF16")


_EXPERTS = {f"mlp.experts.{i}.{part}_proj.weight": "BF16" for i in range(4) for part in ("gate", "up", "down")}
_QWEN_MOE = _dense("self_attn.q_norm.weight", "mlp.gate.weight") | _EXPERTS
_GPT_OSS = {
    "self_attn.sinks": "BF16",
    "self_attn.q_proj.bias": "BF16",
    "mlp.router.weight": "BF16",
    "mlp.experts.gate_up_proj_blocks": "U8",
    "mlp.experts.gate_up_proj_scales": "U8",
    "mlp.experts.down_proj_bias": "BF16",
}
_DEEPSEEK = {
    "self_attn.q_a_proj.weight": "F8_E4M3",
    "self_attn.q_a_proj.weight_scale_inv": "F32",
    "mlp.gate.e_score_correction_bias": "F32",
    "mlp.experts.0.gate_proj.weight": "F8_E4M3",
}
_MXFP4 = {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}}
OFFICIAL = {
    "Llama-Nemotron-8B": Official(
        "nvidia/Llama-3.1-Nemotron-Nano-8B-v1", "llama-dense", "llama", 4, _dense(), {"rope_scaling": {"factor": 8.0}}
    ),
    "R1-Distill-Qwen-7B": Official(
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "qwen2-dense", "qwen2", 2, _dense("self_attn.q_proj.bias")
    ),
    "Qwen3-8B": Official("Qwen/Qwen3-8B", "qwen3-dense", "qwen3", 5, _dense("self_attn.q_norm.weight")),
    "Qwen3-30B-A3B-Instruct-2507": Official(
        "Qwen/Qwen3-30B-A3B-Instruct-2507", "qwen3moe-moe", "qwen3_moe", 16, _QWEN_MOE, {"num_experts": 128}
    ),
    "Qwen3-235B-A22B-Thinking": Official(
        "Qwen/Qwen3-235B-A22B-Thinking-2507", "qwen3moe-moe", "qwen3_moe", 118, _QWEN_MOE, {"num_experts": 128}
    ),
    "GPT-OSS-20B": Official("openai/gpt-oss-20b", "gpt-oss-moe", "gpt_oss", 3, _GPT_OSS, _MXFP4),
    "GPT-OSS-120B": Official("openai/gpt-oss-120b", "gpt-oss-moe", "gpt_oss", 15, _GPT_OSS, _MXFP4),
    "DeepSeek-V3.1-Terminus": Official(
        "deepseek-ai/DeepSeek-V3.1-Terminus", "deepseek2-moe", "deepseek_v3", 163, _DEEPSEEK, {"n_routed_experts": 256}
    ),
}


def config_of(official: Official, hidden: int, vocab: int) -> dict:
    """config.json as the official configuration class saves it."""
    return {
        "architectures": ["AutoDecoModelForCausalLM"],
        "base_model_name_or_path": official.base,
        "base_model_type": official.model_type,
        "dtype": "bfloat16",
        "enable_temperature_head": True,
        "enable_top_p_head": True,
        "hidden_size": hidden,
        "model_type": "autodeco",
        "temperature_hidden_size": hidden,
        "tie_word_embeddings": False,
        "top_p_hidden_size": hidden,
        "transformers_version": "4.57.0",
        "use_enhanced_features": True,
        "vocab_size": vocab,
        **official.config,
    }


def rounded(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The values that bfloat16, in which the checkpoints are, leaves of ``arrays``."""
    return {name: (array.view(np.uint32) & 0xFFFF0000).view(np.float32) for name, array in arrays.items()}


def write_heads(folder: Path, official: Official, arrays: dict[str, np.ndarray], vocab: int) -> None:
    """The heads alone, as training saves them."""
    _write_config(folder, official, arrays, vocab)
    (folder / "model.safetensors").write_bytes(_safetensors(_as_bf16(arrays)))


def write_whole(folder: Path, official: Official, arrays: dict[str, np.ndarray], vocab: int, at: int) -> None:
    """The base's shards with `llm.` before each name, and the heads in shard ``at``, as merging writes them."""
    _write_config(folder, official, arrays, vocab)
    shards: list[dict] = [{} for _ in range(official.shards)]
    for layer in range(official.shards):
        for name, kind in official.tensors.items():
            shards[layer][f"llm.model.layers.{layer}.{name}"] = (kind, (2,), bytes(2 * _SIZES[kind]))
    shards[0]["llm.model.embed_tokens.weight"] = ("BF16", (2, 2), bytes(8))
    shards[-1]["llm.lm_head.weight"] = ("BF16", (2, 2), bytes(8))
    shards[at] |= _as_bf16(arrays)
    names = [f"model-{i + 1:05d}-of-{official.shards:05d}.safetensors" for i in range(official.shards)]
    for name, shard in zip(names, shards, strict=True):
        (folder / name).write_bytes(_safetensors(shard))
    weight_map = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))


def write_extracted(folder: Path, whole: Path, official: Official, arrays: dict, vocab: int) -> None:
    """The heads taken out of ``whole``, beside which that one's index stays, as splitting leaves it."""
    write_heads(folder, official, arrays, vocab)
    (folder / INDEX).write_bytes((whole / INDEX).read_bytes())


def official_values(arrays: dict, hidden: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Temperature and top-p of the official model for hidden states [n, H] and logits [n, V], in float64."""
    w = {name: array.astype(np.float64) for name, array in arrays.items()}

    def head(name: str, x: np.ndarray) -> np.ndarray:
        inner = np.maximum(x @ w[f"{name}.mlp.0.weight"].T + w[f"{name}.mlp.0.bias"], 0)
        return 1 / (1 + np.exp(-(inner @ w[f"{name}.mlp.2.weight"].T + w[f"{name}.mlp.2.bias"])))

    hidden, logits = hidden.astype(np.float64), logits.astype(np.float64)
    temperature = 2 * head("temp_head", hidden)
    scaled = logits / (temperature + 1e-8)
    p = np.exp(scaled - scaled.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    entropy = -(p * np.log(p + 1e-8)).sum(1)
    statistics = np.stack([p.max(1), entropy, p.var(1, ddof=1), np.sort(p, 1)[:, -5:].sum(1)], 1)
    return temperature[:, 0], head("top_p_head", np.concatenate([hidden, temperature, statistics], 1))[:, 0]


_SIZES = {"BF16": 2, "U8": 1, "F8_E4M3": 1, "F32": 4}


def _as_bf16(arrays: dict[str, np.ndarray]) -> dict[str, tuple]:
    return {
        name: ("BF16", array.shape, (array.view(np.uint32) >> 16).astype("<u2").tobytes())
        for name, array in arrays.items()
    }


def _write_config(folder: Path, official: Official, arrays: dict, vocab: int) -> None:
    folder.mkdir()
    hidden = arrays["temp_head.mlp.0.weight"].shape[1]
    (folder / "config.json").write_text(json.dumps(config_of(official, hidden, vocab)))


def _safetensors(tensors: dict[str, tuple]) -> bytes:
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, (kind, shape, raw) in tensors.items():
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data
