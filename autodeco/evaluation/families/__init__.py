"""Families of tasks beside reasoning-gym's: each is a file here and a line of ``FAMILIES``, or a user's own module."""

import hashlib
import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from autodeco.errors import InputError
from autodeco.evaluation.families import human_eval, instruction_following

OWN = "python:"


@dataclass(frozen=True)
class Family:
    """``problems`` makes a list of problems, as lines of a JSON lines file, of a task's config; ``checker`` is one of
    ``autodeco.data.checkers`` and judges answers to them."""

    problems: Callable[[dict[str, Any]], list[dict]]
    checker: str


FAMILIES = {
    "humaneval": Family(human_eval.problems, human_eval.CHECKER),
    "instruction_following": Family(instruction_following.problems, instruction_following.CHECKER),
}


def family(source: str) -> Family | None:
    """Return the family that ``source`` names, here or as ``python:MODULE:NAME``; None if it is of another kind.

    Raises InputError for a module or name that is no family.
    """
    if not source.startswith(OWN):
        return FAMILIES.get(source)
    module, _, name = source.removeprefix(OWN).rpartition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever a module does when it is imported
        raise InputError(f"task {source}: cannot be imported ({error}); is its folder on PYTHONPATH?") from None
    if not isinstance(found, Family):
        raise InputError(f"task {source}: {name} is no Family of autodeco.evaluation.families")
    return found


def digest(problems: list[dict]) -> str:
    """A hash of everything that ``problems`` say."""
    return hashlib.sha256(json.dumps(problems, sort_keys=True, default=str).encode()).hexdigest()
