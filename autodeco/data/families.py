"""Answers to problems of reasoning-gym, judged by its families' own scorers, whatever these do at malformed ones."""

import functools
import re
from collections.abc import Callable

from autodeco.data.numbers import last_readings, whole_number
from autodeco.errors import InputError

_PLAIN_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def check_entry(problem: dict, text: str = "") -> float:
    """Raise InputError unless ``problem`` is one of reasoning-gym's; a checker that finds no answer right."""
    if not isinstance(problem.get("task"), str) or not isinstance(problem.get("entry"), dict):
        raise InputError("a problem has no task and entry of reasoning-gym; make it with a .yaml file of tasks")
    return 0.0


def family_score(problem: dict, text: str) -> float:
    """Return what the task named by the problem's ``task`` says of ``text``, given the task's ``entry``.

    Malformed answers score 0: those at which a scorer raises, and those that it cannot tell from right ones. Raises
    whatever the scorer does for a problem that it cannot judge at all.
    """
    check_entry(problem)
    entry, answer = problem["entry"], text.strip()
    own = entry.get("answer")
    if _PLAIN_NUMBER.fullmatch(str(own)):
        # Its scorers want the bare number; a sentence around it counts against the style, not the sum.
        readings = last_readings(text)
        if not readings:
            return 0.0
        known, _ = whole_number(str(own))
        answer = next((found for found in readings if found.equals(known)), readings[0]).text
    task = problem["task"]
    if task == "composite":
        metadata = entry.get("metadata")
        task = metadata.get("source_dataset") if isinstance(metadata, dict) else None
    if task in _OWN:
        return _OWN[task](answer, str(own))
    score = _scorer(task)
    try:
        found_score = float(score(answer, entry))
    except MemoryError:
        raise
    except (Exception, SystemExit):  # some evaluate the answer, and raise anything at one of another form
        score(own, entry)  # one that raises here too cannot judge the problem at all
        return 0.0
    return found_score if 0 <= found_score <= 1 and not (task in _TAKE_NAN and "nan" in answer.casefold()) else 0.0


def _halts(answer: str, own: str) -> float:
    """The family's own scorer finds every text right."""
    said = re.findall(r"\b(true|false)\b", answer, re.IGNORECASE)
    return float(bool(said) and said[-1].casefold() == own.casefold())


_OWN = {"game_of_life_halting": _halts}
_TAKE_NAN = ("complex_arithmetic",)  # its distance from the right answer is then no number, which min() takes for none


@functools.cache
def _scorer(task: str | None) -> Callable[[str, dict], float]:
    """The scorer of a task, which reasoning-gym makes a data set for: half a second for some tasks."""
    import reasoning_gym

    try:
        return reasoning_gym.get_score_answer_fn(task)
    except ValueError as error:
        raise InputError(f"task {task}: reasoning-gym has none of this name ({error})") from None
