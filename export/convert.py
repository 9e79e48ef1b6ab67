"""A Hugging Face model folder to GGUF, by llama.cpp's own converter."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from autodeco.errors import InputError
from autodeco.export.llama_cpp_source import converter_script
from autodeco.export.progress import growth_bar
from autodeco.export.safetensors_file import parse_json_object
from autodeco.runs.atomic import replacing

REQUIRED = ("torch", "transformers", "sentencepiece")


def hidden_size_of(folder: str | os.PathLike) -> int | None:
    """Hidden size that config.json of a model folder states, or None; raises InputError if there is no config.json."""
    path = Path(folder) / "config.json"
    try:
        config = parse_json_object(path.read_bytes(), path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a Hugging Face model folder") from error
    for part in (config, config.get("text_config")):
        if isinstance(part, dict) and type(part.get("hidden_size")) is int:
            return part["hidden_size"]
    return None


def convert(folder: str | os.PathLike, output: str | os.PathLike) -> None:
    """Convert a Hugging Face model folder to the GGUF ``output``, in the dtype of its weights.

    The converter runs in a process of its own and may run code in the folder. Raises InputError with the converter's
    last line if it fails, or with the packages to install."""
    missing = [name for name in REQUIRED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"{folder}: converting it needs {', '.join(missing)}; install them with pip install 'autodeco[convert]', "
            "or give a GGUF with --base"
        )
    script = converter_script()
    with replacing(output) as part:
        command = [sys.executable, str(script), str(folder), "--outfile", str(part), "--outtype", "auto"]
        # Said outright: under PYTHONSAFEPATH a script does not find the modules beside it.
        search = os.pathsep.join(filter(None, [str(script.parent), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"PYTHONPATH": search}
        # In the dtype of its weights the model is about as large as before.
        size = sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))
        with growth_bar("converting", part, size or None):
            result = subprocess.run(
                command, env=environment, capture_output=True, text=True, errors="replace", check=False
            )
        if result.returncode or not part.stat().st_size:
            lines = [line for line in result.stderr.splitlines() if line.strip()] or ["no reason given"]
            raise InputError(f"{folder}: llama.cpp's converter refuses it ({lines[-1]}); convert it by hand")
