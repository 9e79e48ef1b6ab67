"""The folders of evaluations: each is named by the hash of everything that decides its content."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import llama_cpp

from autodeco import __version__
from autodeco.base.identity import model_fingerprint
from autodeco.errors import InputError
from autodeco.evaluation.families import digest, family
from autodeco.evaluation.head_sets import ALONE, Sets, as_sets
from autodeco.evaluation.settings import Settings
from autodeco.evaluation.tasks import TrainedOn
from autodeco.runs.atomic import replacing
from autodeco.runs.provenance import file_hash, package_version

SETTINGS_FILE = "settings.json"
ROWS = 3  # the form of the rows that hold answers; answers in another form are asked for again
ANSWERS = "answers"  # the folder of all runs' answers, beside the folders of the runs


def describe(settings: Settings, model: Path, heads: Path | Sets | None, excluded: TrainedOn) -> dict[str, Any]:
    """The settings, what the files hold and the versions of the programs, JSON-ready; two runs with the same
    description are the same run. Of several sets of ``heads``, each is told by its name."""
    sets = as_sets(heads)
    names, hashes = ({name: of(file) for name, file in sets.items()} for of in (lambda file: file.name, file_hash))
    described = asdict(settings)
    if settings.derived_samples is None:
        del described["derived_samples"]
    for task, spec in zip(settings.tasks, described["tasks"], strict=True):
        if not spec["group"]:
            del spec["group"]
        own = None if task.is_file else family(task.source)
        if task.is_file:
            spec["sha256"] = file_hash(spec["source"])
            spec["source"] = Path(spec["source"]).name
        elif own is not None:
            spec["sha256"] = digest(own.problems(spec["config"]))
        if task.checked_by == "reasoning-gym" or not (
            task.is_file or own
        ):  # another version may draw or score otherwise
            spec["reasoning_gym"] = package_version("reasoning-gym", "reasoning_gym")
    return {
        **described,
        "model": model.name,
        "model_fingerprint": model_fingerprint(model),
        "heads": names.get(ALONE) if len(sets) < 2 else names,
        "heads_sha256": hashes.get(ALONE) if len(sets) < 2 else hashes,
        "versions": {"autodeco": __version__, "llama-cpp-python": llama_cpp.__version__},
        "trained_on": excluded.digest(),
    }


def describe_answers(description: dict[str, Any], task: int, heads: bool, of: str = ALONE) -> dict[str, Any]:
    """The part of a run's ``description`` that answers to its ``task``-th task depend on, with or without ``heads``,
    those of the set ``of``.

    Runs with the same part share these answers, though they have other tasks or another grid, other sets of heads
    beside, or, without heads, other heads.
    """
    names = (
        "model_fingerprint",
        "versions",
        "trained_on",
        "validation",
        "test",
        "samples",
        "max_tokens",
        "stop",
        "seed",
        "slots",
    )
    described = {
        **({"drawn_at": description["drawn_at"]} if "drawn_at" in description else {}),
        "rows": ROWS,
        "task": {name: value for name, value in description["tasks"][task].items() if name != "group"},
        **{name: description[name] for name in ("versions", *names)},
    }
    weights = description["heads_sha256"]
    return {**described, "heads_sha256": None if not heads else weights[of] if of else weights}


def _text(description: dict[str, Any]) -> str:
    return json.dumps(description, indent=2, sort_keys=True) + "\n"


def claim(output: Path, description: dict[str, Any], prefix: str = "") -> Path:
    """Return the folder in ``output`` that belongs to these settings alone, made if it is not there.

    Its name is ``prefix`` and their hash.
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
