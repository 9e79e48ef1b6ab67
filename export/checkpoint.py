"""Heads from every form they come in: safetensors folder or file, official merged checkpoint, GGUF."""

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from autodeco.errors import InputError
from autodeco.export.head_weights import HeadWeights, check_heads, check_size
from autodeco.export.heads_in_gguf import read_gguf_heads
from autodeco.export.safetensors_file import parse_json_object, read_array, read_header
from autodeco.export.schema import HEADS, PARTS, TEMP_HEAD, TOP_P_HEAD, official_name

__all__ = ["HeadWeights", "is_gguf", "read_heads"]

INDEX = "model.safetensors.index.json"
BASE_PREFIX = "llm."
MAX_CONFIG_BYTES = 100_000_000
_OFFICIAL = frozenset(official_name(head, part) for head in HEADS for part in PARTS)


def read_heads(path: str | os.PathLike, hidden_size: int | None = None) -> HeadWeights:
    """Read the heads at ``path``: a folder, a safetensors file, or a GGUF file that holds heads.

    ``hidden_size`` is that of the model they are meant for, where it is known: a top-p head alone does not tell. Raises
    InputError, one line, for anything that is not a whole and finite set of heads."""
    path = Path(path)
    if path.is_dir():
        return _read_folder(path, hidden_size)
    if is_gguf(path):
        return read_gguf_heads(path)
    config = path.parent / "config.json"
    # A config beside a single file is of use only if it is of AutoDeco; a base model's may lie there by chance.
    claims = _read_json(config) if config.is_file() else {}
    if claims.get("model_type") != "autodeco":
        claims = {}
    return _make(_read_files({path: None}), str(path), claims, hidden_size)


def is_gguf(path: str | os.PathLike) -> bool:
    """Whether the file begins like a GGUF file; raises InputError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"GGUF"
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error


def _read_folder(folder: Path, hidden_size: int | None) -> HeadWeights:
    config = folder / "config.json"
    claims = _read_json(config) if config.is_file() else {}
    index = folder / INDEX
    if index.is_file():
        files = _indexed_files(index)
    else:
        files = dict.fromkeys(sorted(folder.glob("*.safetensors")))
        if not files:
            raise InputError(f"{folder}: holds no *.safetensors file; give the folder of an AutoDeco checkpoint")
    return _make(_read_files(files), str(folder), claims, hidden_size)


def _indexed_files(index: Path) -> dict[Path, set[str]]:
    """Files that the index names for head tensors, with the names it promises there."""
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise InputError(f"{index}: has no weight_map; fetch the checkpoint again")
    files: dict[Path, set[str]] = {}
    for tensor, name in weight_map.items():
        if tensor.startswith(BASE_PREFIX):
            continue
        # The name comes from the file: it must not lead out of the folder.
        if Path(name).name != name or name in (".", ".."):
            raise InputError(f"{index}: the file name {name!r} leads out of the folder; fetch the checkpoint again")
        files.setdefault(index.parent / name, set()).add(tensor)
    return files


def _read_files(files: dict[Path, set[str] | None]) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    for path, promised in files.items():
        header = read_header(path)
        for name in sorted((promised or set()) - header.keys()):
            raise InputError(f"{path}: the tensor {name!r} that the index promises is missing; fetch the file again")
        for name, entry in header.items():
            if name.startswith(BASE_PREFIX):
                continue
            if name not in _OFFICIAL:
                raise InputError(
                    f"{path}: the tensor {name!r} is not part of AutoDeco heads; give a checkpoint of them"
                )
            if name in tensors:
                raise InputError(f"{path}: the tensor {name!r} is in another file of the folder too; remove one")
            check_size(name, math.prod(entry.shape), str(path))
            tensors[name] = read_array(path, name, entry)
    return tensors


def _make(tensors: dict[str, np.ndarray], source: str, claims: dict, hidden_size: int | None) -> HeadWeights:
    notes = []
    for head, switch in ((TEMP_HEAD, "enable_temperature_head"), (TOP_P_HEAD, "enable_top_p_head")):
        mine = [name for name in tensors if name.startswith(f"{head}.")]
        if claims.get(switch) is False and mine:
            # The official model class always has both heads and the switch says which one was trained.
            tensors = {name: array for name, array in tensors.items() if name not in mine}
            notes.append(f"config.json says {switch}: false, so the {head} is left out")
        if claims.get(switch) is True and not mine:
            raise InputError(
                f"{source}: config.json says {switch}: true but there is no {head}; fetch the folder again"
            )
    claimed = claims.get("hidden_size")
    claimed = claimed if type(claimed) is int else None
    if claimed is None and not any(name.startswith(f"{TEMP_HEAD}.") for name in tensors):
        claimed = hidden_size
    stats = claims.get("use_enhanced_features")
    heads = check_heads(tensors, source, claimed, stats if isinstance(stats, bool) else None)
    named = claims.get("base_model_name_or_path")
    return replace(heads, notes=tuple(notes), base_model=named if isinstance(named, str) else None)


def _read_json(path: Path) -> dict:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise InputError(f"{path}: larger than any configuration; fetch it again")
        return parse_json_object(path.read_bytes(), path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error
