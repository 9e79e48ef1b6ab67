"""Random models of Hugging Face's families, and what a plain pass makes of tokens."""

from types import SimpleNamespace

import torch
import transformers

SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 8}
SIZES |= {"num_key_value_heads": 2, "head_dim": 16, "vocab_size": 300, "max_position_embeddings": 256}
SIZES |= {"eos_token_id": 1, "bos_token_id": 2, "pad_token_id": 0}
FAMILIES = {"qwen2": "Qwen2", "llama": "Llama", "qwen3": "Qwen3", "gemma2": "Gemma2"}
PROMPTS = [[5, 6, 7], list(range(10, 41)), [100, 7, 9, 33, 21, 80], [8]]


def tiny(family: str = "qwen2", dtype=torch.float64, **settings):
    """A random model of ``family``, as much of it as a decoder asks for."""
    kind = FAMILIES[family]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SIZES | settings)
    network = getattr(transformers, f"{kind}ForCausalLM")(config).to(dtype).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in network.parameters():  # so that attention tells places apart
            parameter.add_(torch.randn(parameter.shape, dtype=dtype) * 0.05)
    return SimpleNamespace(network=network, identity=SimpleNamespace(name="tiny"))


@torch.no_grad()
def whole(model, tokens: list[int]) -> torch.Tensor:
    """Hidden states [n, H] of a plain pass."""
    read = []
    hook = model.network.get_output_embeddings().register_forward_pre_hook(lambda _, x: read.append(x[0]))
    model.network(input_ids=torch.tensor([tokens]), use_cache=False)
    hook.remove()
    return read[0][0]
