"""Which models heads cannot run with: those that do not write one token after the other.

The same table stands in cpp_ext/src/language_model.cpp, for programs without Python.
"""

from autodeco.errors import InputError
from autodeco.export.gguf_file import GgufFile

EMBEDDING = "an embedding model"
DIFFUSION = "a diffusion model, which fills in many tokens at once"
DRAFT = "a draft model, which runs beside another model only"
REFUSED = {
    "t5": "an encoder-decoder model",
    "t5encoder": EMBEDDING,
    "bert": EMBEDDING,
    "modern-bert": EMBEDDING,
    "nomic-bert": EMBEDDING,
    "nomic-bert-moe": EMBEDDING,
    "neo-bert": EMBEDDING,
    "jina-bert-v2": EMBEDDING,
    "jina-bert-v3": EMBEDDING,
    "eurobert": EMBEDDING,
    "gemma-embedding": EMBEDDING,
    "llama-embed": EMBEDDING,
    "dream": DIFFUSION,
    "llada": DIFFUSION,
    "llada-moe": DIFFUSION,
    "rnd1": DIFFUSION,
    "eagle3": DRAFT,
    "dflash": DRAFT,
    "gemma4-assistant": DRAFT,
    "cogvlm": "a model of which llama.cpp returns a prompt's first logits in place of its last",
    "clip": "a projector of images or sound",
    "wavtokenizer-dec": "a vocoder, which makes sound of tokens",
}
POOLED = {1, 2, 3, 4}  # llama.cpp's kinds of pooling: one vector for a whole text


def refused(architecture: str, causal: bool = True, pooling: int = 0) -> str | None:
    """What a model is that heads cannot run with, None for others: by its ``architecture``, whether its attention is
    ``causal``, and the kind of ``pooling`` that it names."""
    if what := REFUSED.get(architecture):
        return what
    if pooling in POOLED:
        return EMBEDDING
    return None if causal else "a model whose attention is not causal"


def check_language_model(gguf: GgufFile, architecture: str) -> None:
    """Raise InputError for a model that heads cannot run with."""
    causal = gguf.get(f"{architecture}.attention.causal", True)
    pooling = gguf.get(f"{architecture}.pooling_type", 0)
    if what := refused(architecture, causal is not False, pooling if isinstance(pooling, int) else 0):
        raise InputError(
            f"{gguf.path}: is {what} ({architecture}); heads need a language model that writes one token after the "
            "other"
        )
