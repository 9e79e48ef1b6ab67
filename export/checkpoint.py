"""Heads from every form they come in: safetensors folder or file, official merged checkpoint, GGUF.

This is the only reader of checkpoints: training starts from what exporting accepts.
"""

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from autodeco.errors import InputError
from autodeco.export.control_ends import ControlEnds
from autodeco.export.embedded import heads_inside
from autodeco.export.gguf_file import read_gguf
from autodeco.export.head_weights import HeadWeights, check_heads, check_size
from autodeco.export.heads_in_gguf import heads_of
from autodeco.export.layout import open_layout
from autodeco.export.safetensors_file import Entry, parse_json_object, read_array, read_header
from autodeco.export.schema import (
    CONTROL_HEAD,
    HEADS,
    KEY_VOCAB_SIZE,
    PARTS,
    TEMP_HEAD,
    TOP_P_HEAD,
    official_name,
)

__all__ = ["HeadWeights", "is_gguf", "read_config", "read_heads"]

HEADS_FILE = "model.safetensors"
RUN_FILE = "training.json"  # how the heads were made
RESUME_FILE = "resume.safetensors"  # there while training is unfinished
INDEX = "model.safetensors.index.json"
BASE_PREFIX = "llm."
MAX_CONFIG_BYTES = 100_000_000
MODEL_TYPE = "autodeco"
SWITCHES = {
    TEMP_HEAD: "enable_temperature_head",
    TOP_P_HEAD: "enable_top_p_head",
    CONTROL_HEAD: "enable_control_head",
}
CONTROL = "control"
PROB_STATS = "use_enhanced_features"
HIDDEN_SIZE = "hidden_size"
# What config.json says of the heads; everything else in it is about the base model.
HEAD_KEYS = ("model_type", *SWITCHES.values(), CONTROL, PROB_STATS, HIDDEN_SIZE)
UNFINISHED = "its training is unfinished: these are the best heads so far"
_OFFICIAL = frozenset(official_name(head, part) for head in HEADS for part in PARTS)


def read_heads(path: str | os.PathLike, hidden_size: int | None = None) -> HeadWeights:
    """Read the heads at ``path``: a folder, a safetensors file, or a GGUF file that holds heads.

    ``hidden_size`` is that of the model they are meant for, if it is known: a top-p head alone does not determine it.
    Raises InputError, one line, for anything that is not a whole and finite set of heads."""
    path = Path(path)
    if path.is_dir():
        return _read_folder(path, hidden_size)
    if is_gguf(path):
        layout = open_layout(path)
        return heads_of(layout.heads or layout.gguf)
    return _make(_read_files({path: None}), str(path), _claims(path), hidden_size)


def read_config(path: str | os.PathLike) -> dict:
    """Return the description of the base model in the checkpoint at ``path``: config.json without the keys of the
    heads.

    A GGUF has only ``vocab_size``. Raises InputError as ``read_heads`` does."""
    path = Path(path)
    if path.is_dir() or not is_gguf(path):
        return {key: value for key, value in _claims(path).items() if key not in HEAD_KEYS}
    gguf = read_gguf(path)
    vocab_size = (heads_inside(gguf) or gguf).u32(KEY_VOCAB_SIZE)
    return {} if vocab_size is None else {"vocab_size": vocab_size}


def is_gguf(path: str | os.PathLike) -> bool:
    """Whether the file begins like a GGUF file; raises InputError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"GGUF"
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error


def _claims(path: Path) -> dict:
    """What config.json of a folder, or beside a file, says; empty where there is none."""
    config = (path if path.is_dir() else path.parent) / "config.json"
    claims = _read_json(config) if config.is_file() else {}
    # Beside a single file a base model's config may lie by chance.
    return claims if path.is_dir() or claims.get("model_type") == MODEL_TYPE else {}


def _read_folder(folder: Path, hidden_size: int | None) -> HeadWeights:
    index, unfinished = folder / INDEX, (folder / RESUME_FILE).is_file()
    if index.is_file():
        files = _indexed_files(index)
        alone = folder / HEADS_FILE
        if alone.is_file() and not any(path.is_file() for path in files):
            # Taking heads out of a whole checkpoint leaves its index beside them.
            files = {alone: set().union(*files.values())}
    else:
        files = dict.fromkeys(path for path in sorted(folder.glob("*.safetensors")) if path.name != RESUME_FILE)
        if not files and unfinished:
            raise InputError(f"{folder}: its training has measured no heads yet; continue it with --resume")
        if not files:
            raise InputError(f"{folder}: holds no *.safetensors file; give the folder of an AutoDeco checkpoint")
    heads = _make(_read_files(files), str(folder), _claims(folder), hidden_size)
    return replace(heads, notes=(*heads.notes, UNFINISHED)) if unfinished else heads


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
        if not name.isprintable():  # a zero byte or half a surrogate pair, which no system takes, or worse to show
            raise InputError(f"{index}: {name!r} is no name of a file; fetch the checkpoint again")
        files.setdefault(index.parent / name, set()).add(tensor)
    return files


def _read_files(files: dict[Path, set[str] | None]) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    for path, promised in files.items():
        header = read_header(path)
        if missing := sorted((promised or set()) - header.keys()):
            raise InputError(
                f"{path}: the tensor {missing[0]!r} that the index promises is missing; fetch the file again"
            )
        for name, entry in _head_entries(path, header).items():
            if name in tensors:
                raise InputError(f"{path}: the tensor {name!r} is in another file of the folder too; remove one")
            check_size(name, math.prod(entry.shape), str(path))
            tensors[name] = read_array(path, name, entry)
    return tensors


def _head_entries(path: Path, header: dict[str, Entry]) -> dict[str, Entry]:
    """The head tensors of one file: none in a file of something else, a shard of the model or the state of training."""
    entries = {name: entry for name, entry in header.items() if not name.startswith(BASE_PREFIX)}
    if not any(name.startswith(tuple(f"{head}." for head in HEADS)) for name in entries):
        return {}
    if unknown := entries.keys() - _OFFICIAL:
        raise InputError(
            f"{path}: the tensor {min(unknown)!r} is not part of AutoDeco heads; give a checkpoint of them"
        )
    return entries


def _make(tensors: dict[str, np.ndarray], source: str, claims: dict, hidden_size: int | None) -> HeadWeights:
    notes = []
    for head, switch in SWITCHES.items():
        mine = [name for name in tensors if name.startswith(f"{head}.")]
        enabled = _claim(claims, switch, bool, source)
        if enabled is False and mine:
            # The official model class always has both heads and the switch says which one was trained.
            tensors = {name: array for name, array in tensors.items() if name not in mine}
            notes.append(f"config.json says {switch}: false, so the {head} is left out")
        if enabled and not mine:
            raise InputError(
                f"{source}: config.json says {switch}: true but there is no {head}; fetch the folder again"
            )
    claimed = _claim(claims, HIDDEN_SIZE, int, source)
    if claimed is None and not any(name.startswith(f"{TEMP_HEAD}.") for name in tensors):
        claimed = hidden_size
    steers = any(name.startswith(f"{CONTROL_HEAD}.") for name in tensors)
    ends = ControlEnds.read(claims[CONTROL], source) if steers and CONTROL in claims else None
    heads = check_heads(tensors, source, claimed, _claim(claims, PROB_STATS, bool, source), ends)
    named = claims.get("base_model_name_or_path")
    return replace(heads, notes=tuple(notes), base_model=named if isinstance(named, str) else None)


def _claim(claims: dict, key: str, kind: type, source: str):
    """Value of ``key`` in config.json, None if it is absent or null; raises InputError if it is not of ``kind``."""
    value = claims.get(key)
    if value is not None and type(value) is not kind:
        expected = {bool: "true or false", int: "a whole number"}[kind]
        raise InputError(f"{source}: config.json says {key}: {value!r}, expected {expected}; correct config.json")
    return value


def _read_json(path: Path) -> dict:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise InputError(f"{path}: larger than any configuration; fetch it again")
        return parse_json_object(path.read_bytes(), path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error
