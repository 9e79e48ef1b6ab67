"""Small random models under the names that llama.cpp's server tests ask the hub for."""

import struct
import zlib
from pathlib import Path

import numpy as np

from autodeco.export.head_tensors import head_tensors
from autodeco.export.head_weights import check_heads
from autodeco.export.layout import open_layout
from autodeco.export.writer import write_embedded
from builders.gguf_files import head_arrays
from builders.stock_llama import split
from builders.vision_files import write_projector
from builders.word_models import HIDDEN, write_bert, write_llama, write_lora


def write_picture(path: Path, seed: int) -> Path:
    """Write a PNG of 32 x 32 random pixels; return ``path``."""
    size = 32
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size * 3), np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)  # 0: unfiltered

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)  # 8 bits of red, green and blue
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


PRESET = """[tinygemma3-preset]
hf-repo = ggml-org/tinygemma3-GGUF:Q8_0

[stories260K-test]
hf-repo = ggml-org/test-model-stories260K:F32
"""


def write_hub(folder: Path, *, heads: bool) -> Path:
    """Fill ``folder`` with a folder for each repository that the tests ask for; return it.

    ``heads``: the models that write text carry random heads in their files (embedded).
    """
    base = folder / "ggml-org"

    def place(repository: str, file: str) -> Path:
        path = base / repository / file
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def llama(repository: str, file: str, **options) -> None:
        path = place(repository, file)
        if not heads:
            write_llama(path, **options)
            return
        plain = write_llama(path.with_suffix(".plain"), **options)
        layout = open_layout(plain)
        weights = check_heads(head_arrays(hidden=HIDDEN, seed=3), "random heads")
        write_embedded(path, head_tensors(weights, "f32"), layout)
        plain.unlink()

    llama("test-model-stories260K", "stories260K-F32.gguf")
    llama("test-model-stories260K-infill", "stories260K-infill-F32.gguf", fill_in_the_middle=True)
    llama("test-model-router-download", "stories260K-F16.gguf")
    llama("models", "tinyllamas/stories260K.gguf")
    whole = write_llama(place("models", "tinyllamas/split/whole.gguf"))
    for i, part in enumerate(split(whole, whole.parent, tensors_each=9), start=1):
        part.rename(whole.with_name(f"stories15M-q8_0-{i:05}-of-00003.gguf"))
    whole.unlink()
    write_bert(place("models", "bert-bge-small/ggml-model-f16.gguf"))
    write_bert(place("models", "jina-reranker-v1-tiny-en/ggml-model-f16.gguf"), ranks=True)
    llama("stories15M_MOE", "stories15M_MOE-F16.gguf")
    write_lora(place("stories15M_MOE", "moe_shakespeare15M.gguf"))
    write_llama(place("tiny-llamas", "stories15M-q4_0.gguf"))
    llama("tinygemma3-GGUF", "tinygemma3-Q8_0.gguf")
    write_projector(place("tinygemma3-GGUF", "mmproj-tinygemma3.gguf"), HIDDEN)
    write_picture(place("tinygemma3-GGUF", "test/11_truck.png"), 11)
    write_picture(place("tinygemma3-GGUF", "test/91_cat.png"), 91)
    place("test-preset-ci", "preset.ini").write_text(PRESET, encoding="utf-8")
    return folder
