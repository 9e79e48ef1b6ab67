"""What decides an evaluation's outcome, and the folders that are named for it."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autodeco.base.identity import model_fingerprint
from autodeco.errors import InputError
from autodeco.evaluation.methods import OPTIONAL
from autodeco.evaluation.tasks import TaskSpec
from autodeco.runs.atomic import replacing
from autodeco.runs.provenance import file_hash

SETTINGS_FILE = "settings.json"
ANSWERS = "answers"  # the folder of all runs' answers, beside the folders of the runs


@dataclass(frozen=True)
class Settings:
    """Everything that decides the outcome, beside the versions of the programs."""

    tasks: tuple[TaskSpec, ...]
    validation: int = 100  # problems that choose the best setting and the heads' mean
    test: int = 300  # problems that everything is measured on
    samples: int = 16  # answers to each problem, a method
    max_tokens: int = 256
    temperatures: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8, 1.0)  # of the grid of static settings
    top_ps: tuple[float, ...] = (0.8, 0.9, 0.95, 1.0)
    ks: tuple[int, ...] = (1, 4, 16)  # of pass@k
    seed: int = 0
    slots: int = 16
    stop: tuple[str, ...] = ()
    without: tuple[str, ...] = ()  # methods that are left out, keys of methods.OPTIONAL

    def __post_init__(self):
        for name in ("validation", "test", "samples", "max_tokens", "slots"):
            if getattr(self, name) < 1:
                raise InputError(f"{name.replace('_', '-')} {getattr(self, name)}: must be at least 1")
        if self.seed < 0:
            raise InputError(f"seed {self.seed}: must be at least 0")
        if wrong := [t for t in self.temperatures if not 0 <= t < float("inf")]:
            raise InputError(f"temperature {wrong[0]} of the grid: must be a number above 0")
        if wrong := [p for p in self.top_ps if not 0 < p <= 1]:
            raise InputError(f"top-p {wrong[0]} of the grid: must be above 0 and at most 1")
        if not self.tasks:
            raise InputError("no task is given; name a reasoning-gym family, a JSON lines or a YAML file")
        if wrong := [k for k in self.ks if not 1 <= k <= self.samples]:
            raise InputError(f"pass@{wrong[0]} needs k from 1 to the {self.samples} samples of each problem")
        if 1 not in self.ks:
            raise InputError("pass@1 is what methods are compared by: keep 1 among the k")
        if not self.temperatures or not self.top_ps:
            raise InputError("the grid needs at least one temperature and one top-p")
        if unknown := [name for name in self.without if name not in OPTIONAL]:
            raise InputError(f"without {unknown[0]}: is none of {', '.join(OPTIONAL)}")
        if 0 in self.temperatures:
            raise InputError("temperature 0 of the grid is greedy, which is always compared: leave it out")


def describe(settings: Settings, model: Path, heads: Path | None, excluded: frozenset[str]) -> dict[str, Any]:
    """The settings and what the files hold, JSON-ready; two runs with the same description are the same run."""
    described = asdict(settings)
    for spec in described["tasks"]:
        if spec["source"].endswith(".jsonl"):
            spec["sha256"] = file_hash(spec["source"])
            spec["source"] = Path(spec["source"]).name
    return {
        **described,
        "model": model.name,
        "model_fingerprint": model_fingerprint(model),
        "heads": None if heads is None else heads.name,
        "heads_sha256": None if heads is None else file_hash(heads),
        "trained_on": hashlib.sha256("\n".join(sorted(excluded)).encode()).hexdigest() if excluded else None,
    }


def describe_answers(description: dict[str, Any], task: int, heads: bool) -> dict[str, Any]:
    """The part of a run's ``description`` that answers to its ``task``-th task depend on, with or without heads.

    Runs that have it in common share them: those with other tasks, another grid, and, without heads, other heads.
    """
    names = ("model_fingerprint", "trained_on", "validation", "test", "samples", "max_tokens", "stop", "seed", "slots")
    described = {"task": description["tasks"][task], **{name: description[name] for name in names}}
    return {**described, "heads_sha256": description["heads_sha256"] if heads else None}


def _text(description: dict[str, Any]) -> str:
    return json.dumps(description, indent=2, sort_keys=True) + "\n"


def claim(output: Path, description: dict[str, Any], prefix: str = "") -> Path:
    """Return the folder in ``output`` that belongs to these settings alone, made if it is not there.

    Its name is their hash, behind ``prefix``.
    """
    text = _text(description)
    folder = output / (prefix + hashlib.sha256(text.encode()).hexdigest()[:12])
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; give a folder for the evaluation")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / SETTINGS_FILE
    if not file.exists():
        with replacing(file) as part:
            part.write_text(text, encoding="utf-8")
    elif file.read_text(encoding="utf-8") != text:
        raise InputError(f"{file}: was changed by hand; remove the folder to evaluate again")
    return folder
