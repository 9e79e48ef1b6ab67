"""Quantizing a model by llama.cpp's own quantizer, through the library that llama-cpp-python installs."""

import ctypes
import os
import subprocess
import sys

from autodeco.errors import InputError
from autodeco.export.progress import growth_bar
from autodeco.runs.atomic import replacing

_PREFIXES = ("LLAMA_FTYPE_MOSTLY_", "LLAMA_FTYPE_ALL_")


def quantization_types() -> dict[str, int]:
    """Names that llama.cpp's quantizer knows ("Q4_K_M", ...) and their numbers."""
    import llama_cpp

    names = [(name, prefix) for name in dir(llama_cpp) for prefix in _PREFIXES if name.startswith(prefix)]
    return {name.removeprefix(prefix): getattr(llama_cpp, name) for name, prefix in names}


def check_kind(kind: str) -> str:
    """``kind`` as llama.cpp writes it; raises InputError naming the known ones if it is none."""
    kinds = quantization_types()
    if kind.upper() not in kinds:
        raise InputError(f"{kind}: not a quantization type; choose one of {', '.join(kinds)}")
    return kind.upper()


def quantize_model(source: str | os.PathLike, output: str | os.PathLike, kind: str) -> None:
    """Write the GGUF model ``source`` to ``output``, quantized as ``kind`` ("Q4_K_M", in any case).

    Raises InputError for an unknown kind, or with the quantizer's last line if it fails."""
    number = quantization_types()[check_kind(kind)]
    with replacing(output) as part:
        # A process of its own: where ggml aborts on a bad model, it must not take the half-written file's owner along.
        command = [sys.executable, "-m", __name__, os.fspath(source), os.fspath(part), str(number)]
        with growth_bar("quantizing", part):
            result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if result.returncode or not part.stat().st_size:
            lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
            messages = [line for line in lines if "fail" in line or "error" in line] or lines or ["no reason given"]
            # the line may begin with the tensor that the quantizer was at
            reason = messages[-1].rpartition("failed to quantize: ")[2]
            raise InputError(f"{source}: llama.cpp cannot quantize it to {kind} ({reason}); start from an f16 model")


def _quantize(source: str, output: str, number: str) -> int:
    import llama_cpp

    llama_cpp.llama_backend_init()
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = int(number)
    return llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(output), ctypes.byref(parameters))


if __name__ == "__main__":
    sys.exit(_quantize(*sys.argv[1:]))
