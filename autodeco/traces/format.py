"""Traces: a folder with the hidden states of completions, the token that followed each, and how they were made.

``traces.json`` names the model, the data, the settings and the shards. Each shard is a safetensors file of whole
records: ``hidden`` float16 [n, H], ``label`` int32 [n] (the token that followed), ``record`` int32 [n] (index in the
data, 0-based) and ``position`` int32 [n] (index of the state's token in the sequence). ``prompt`` int32 [n] is the
index of the first record with the same prompt; traces of older versions lack it. Where the prompts were given commands
too (``control``), ``command`` int32 [n] says which: 0 none, others 1 + the index in the manifest's list.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from autodeco.base.identity import ModelIdentity
from autodeco.data.control import Control
from autodeco.errors import InputError
from autodeco.runs.atomic import replacing

MANIFEST = "traces.json"
FORMAT = "autodeco-traces"
VERSION = 1


@dataclass(frozen=True)
class Shard:
    """One file of ``tokens`` states, of the records ``first_record`` up to but not including ``next_record``."""

    file: str
    tokens: int
    first_record: int
    next_record: int


@dataclass
class Manifest:
    """What ``traces.json`` holds."""

    model: ModelIdentity
    data: dict  # {"file", "sha256"}
    settings: dict
    complete: bool = False
    next_record: int = 0
    skipped: int = 0  # records whose prompt filled the context
    truncated: int = 0  # records whose completion reached the end of the context
    logits_error: float | None = None  # relative, of logits rebuilt from the states against llama.cpp's own
    logits_checked: int = 0  # positions
    shards: list[Shard] = field(default_factory=list)
    control: Control | None = None  # where the prompts were given commands too
    prompts: bool = False  # whether shards say which records have the same prompt
    made: dict = field(default_factory=dict)  # the command that began them, and the versions of what ran it

    @property
    def columns(self) -> list[str]:
        """Return what a shard holds of each token beside its hidden state."""
        optional = (("prompt", self.prompts), ("command", self.control))
        return ["label", "record", "position", *(name for name, there in optional if there)]

    @property
    def tokens(self) -> int:
        return sum(shard.tokens for shard in self.shards)


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write ``traces.json`` into ``directory``, replacing it whole."""
    with replacing(directory / MANIFEST) as part:
        text = json.dumps({"format": FORMAT, "version": VERSION} | asdict(manifest), indent=2)
        part.write_text(text + "\n", encoding="utf-8")


def read_manifest(directory: str | os.PathLike) -> Manifest:
    """Read ``traces.json`` of ``directory``; raises InputError if it is missing, damaged or of another version."""
    path = Path(directory) / MANIFEST
    if not path.is_file():
        raise InputError(f"{path}: no such file; make traces with `autodeco collect`")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        version = fields.pop("version")
        if version != VERSION:
            raise ValueError(f"it is of version {version}, this program reads version {VERSION}")
        fields["model"] = ModelIdentity(**fields["model"])
        fields["shards"] = [Shard(**shard) for shard in fields["shards"]]
        fields["control"] = Control.from_json(fields["control"]) if fields.get("control") else None
        for shard in fields["shards"]:
            if Path(shard.file).name != shard.file:
                raise ValueError(f"shard {shard.file} lies outside the folder")
        return Manifest(**fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: not a readable manifest of traces ({error}); collect again") from None


def write_shard(path: Path, hidden: np.ndarray, **columns: list[int]) -> None:
    """Write one shard to ``path``, whole or not at all; ``columns`` are those of the manifest."""
    arrays = {name: np.asarray(column, np.int32) for name, column in columns.items()}
    with replacing(path) as part:
        part.write_bytes(save({"hidden": np.ascontiguousarray(hidden, np.float16), **arrays}))


def check_shard(directory: str | os.PathLike, shard: Shard, manifest: Manifest) -> None:
    """Raise InputError unless the file of ``shard`` has the tensors, shapes and types that the manifest promises."""
    path = Path(directory) / shard.file
    shapes = {"hidden": ([shard.tokens, manifest.model.hidden_size], "F16")}
    shapes |= {name: ([shard.tokens], "I32") for name in manifest.columns}
    try:
        with safe_open(path, framework="np") as file:
            for name, (shape, dtype) in shapes.items():
                found = file.get_slice(name)
                if found.get_shape() != shape or found.get_dtype() != dtype:
                    raise ValueError(f"{name} is {found.get_dtype()} {found.get_shape()}, expected {dtype} {shape}")
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: not the shard that {MANIFEST} promises ({error}); collect again") from None
