"""Names of the files that are written where none is given.

``llama-server -hf user/repo:TAG`` takes the first file of a repository whose name ends in ``.gguf`` and has the tag
before a dot or a dash, and with no tag that fits any first ``.gguf`` (``find_best_model`` in llama.cpp's
common/download.cpp). So what stock llama.cpp cannot open does not end in ``.gguf``, and no name has a quantization
before a dot or a dash.
"""

import os
import re
from pathlib import Path

from autodeco.export.layout import EMBEDDED, MERGED

SUFFIX = ".autodeco"  # of a GGUF that only AutoDeco opens
EMBEDDED_END = "_autodeco"
_QUANTIZATION = re.compile(r"((?:I?Q[1-9]|TQ[1-9]|B?F16|F32|F64|(?:MX|NV)FP[48])(?:_\w+)?)[.-]", re.IGNORECASE)
_MADE_HERE = re.compile(r"_(?:merged|(?:f32|f16|bf16|q8_0)_heads)$")


def model_stem(base: str | os.PathLike, quantize: str | None) -> str:
    """Name, without suffix, of the model at ``base``, quantized as ``quantize`` if that is given."""
    path = Path(os.path.abspath(base))
    if path.is_dir():
        stem = path.name
    elif path.suffix == SUFFIX or path.stem.endswith(EMBEDDED_END):
        stem = _MADE_HERE.sub("", path.stem).removesuffix(EMBEDDED_END)
    else:
        stem = re.sub(r"-\d{5}-of-\d{5}$", "", path.stem)  # of a split model
    return f"{stem}-{quantize.upper()}" if quantize else stem


def output_name(base: str | os.PathLike, quantize: str | None, layout: str, weight_type: str) -> str:
    """Name of the file of ``layout`` that holds heads for the model at ``base`` with weights of ``weight_type``."""
    stem = _QUANTIZATION.sub(r"\1_", model_stem(base, quantize))
    if layout == EMBEDDED:
        return f"{stem}{EMBEDDED_END}.gguf"
    return f"{stem}_merged{SUFFIX}" if layout == MERGED else f"{stem}_{weight_type}_heads{SUFFIX}"
