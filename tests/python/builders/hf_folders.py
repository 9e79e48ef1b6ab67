"""Hugging Face model folders for tests: SmolLM2 out of its GGUF, and tiny random models of other families."""

import json
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.numpy import save_file

TINY = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TINY |= {"num_key_value_heads": 2, "head_dim": 12, "vocab_size": 49152, "tie_word_embeddings": False}

_LLAMA_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def write_smollm2(gguf_path: Path, folder: Path, with_weights: bool = True) -> None:
    """The model of a llama-architecture GGUF with a byte-level BPE tokenizer, as a Hugging Face folder in float16."""
    reader = GGUFReader(gguf_path)

    def value(key):
        return reader.fields[key].contents()

    heads, kv_heads = value("llama.attention.head_count"), value("llama.attention.head_count_kv")
    weights = {}
    for tensor in reader.tensors if with_weights else ():
        array = dequantize(tensor.data, tensor.tensor_type).astype(np.float16)
        if tensor.name.startswith("blk."):
            _, block, part, _ = tensor.name.split(".")
            if part in ("attn_q", "attn_k"):  # undo the converter's reordering for rotary embeddings
                n = heads if part == "attn_q" else kv_heads
                array = array.reshape(n, -1, 2, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
            weights[f"model.layers.{block}.{_LLAMA_NAMES[part]}.weight"] = np.ascontiguousarray(array)
        else:
            name = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
            weights[name[tensor.name]] = array
    folder.mkdir()
    if with_weights:
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float16",
        "hidden_size": value("llama.embedding_length"),
        "intermediate_size": value("llama.feed_forward_length"),
        "num_hidden_layers": value("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "rms_norm_eps": value("llama.attention.layer_norm_rms_epsilon"),
        "rope_theta": value("llama.rope.freq_base"),
        "max_position_embeddings": value("llama.context_length"),
        "vocab_size": value("llama.vocab_size"),
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    (folder / "config.json").write_text(json.dumps(config))

    tokens, kinds = value("tokenizer.ggml.tokens"), value("tokenizer.ggml.token_type")
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            {
                "id": i,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
            if kind == 3  # LLAMA_TOKEN_TYPE_CONTROL
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": value("tokenizer.ggml.merges"),
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    special = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            special | {"tokenizer_class": "GPT2TokenizerFast", "chat_template": value("tokenizer.chat_template")}
        )
    )


def write_tiny_smollm2(gguf_path: Path, folder: Path, ends: list[int] | None = None) -> None:
    """SmolLM2's tokenizer with a random model of two layers whose logits are wide enough to tell tokens apart; ``ends``
    are the tokens that end its answers, by default the end of a turn."""
    import torch
    import transformers

    write_smollm2(gguf_path, folder, with_weights=False)
    config = transformers.AutoConfig.from_pretrained(folder)
    config.update(TINY)
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight.normal_(std=0.5)
    if ends:
        model.generation_config.eos_token_id = ends
    model.save_pretrained(folder)


TINY_TEXT = "the quick brown fox jumps over the lazy dog and runs away from a small cat under the old tree\n" * 20


def write_tiny(family: str, folder: Path) -> None:
    """A random model of two layers, hidden size 64, of ``family`` ("qwen2", "qwen3" or "gemma3")."""
    import sentencepiece
    import torch
    import transformers

    folder.mkdir()
    (folder / "text.txt").write_text(TINY_TEXT)
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=320,
        model_type="bpe",
        byte_fallback=True,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
    (folder / "text.txt").unlink()
    kind = {"qwen2": "Qwen2", "qwen3": "Qwen3", "gemma3": "Gemma3Text"}[family]
    model_class = {"qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "gemma3": "Gemma3ForCausalLM"}[family]
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        vocab_size=320,
        max_position_embeddings=256,
        bos_token_id=2,
        eos_token_id=1,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    getattr(transformers, model_class)(config).to(torch.bfloat16).save_pretrained(folder)
