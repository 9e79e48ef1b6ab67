"""Checkers: how right an answer to a problem is, from 0 to 1.

``exact``                 the answer, without space around it, is the problem's ``answer``
``regex:PATTERN``         the last match of PATTERN (its first group, if it has one) is the problem's ``answer``
``number``                the last number in it is the problem's ``answer``, however both are written
``choice``                the letter that it chooses, among those of the problem's choices, is the problem's ``answer``
``math``                  math-verify finds its boxed or last expression equal to the problem's ``answer``
``reasoning-gym``         what the task named by the problem's ``task`` says of it, given the task's ``entry``
``python:MODULE:NAME``    what ``NAME(problem, text)`` of an importable module returns; ``problem`` is the line's object
"""

import functools
import importlib
import math
import re
import traceback
from collections.abc import Callable, Iterable

from autodeco.data.choices import choices_of, named_choice
from autodeco.data.families import check_entry, family_score
from autodeco.data.json_lines import place_of
from autodeco.data.numbers import last_readings, whole_number
from autodeco.errors import InputError

Checker = Callable[[dict, str], float]


def checker(spec: str) -> Checker:
    """Return the checker that ``spec`` names; raises InputError for an unknown one and for what cannot be imported."""
    kind, _, rest = spec.partition(":")
    if kind in PLAIN and not rest:
        return PLAIN[kind]
    if kind == "regex" and rest:
        try:
            return functools.partial(_matches, re.compile(rest, re.DOTALL))
        except re.error as error:
            raise InputError(f"checker {spec}: not a regular expression ({error})") from None
    if kind == "python" and rest:
        return _imported(spec, *rest.rpartition(":")[::2])
    raise InputError(f"checker {spec}: must be {forms()}")


def forms() -> str:
    """What a checker can be named as, for help and errors."""
    return f"{', '.join(PLAIN)}, regex:PATTERN or python:MODULE:NAME"


def check(check: Checker, problem: dict, text: str) -> float:
    """Return ``check``'s score of ``text``; raises InputError if that is no number from 0 to 1."""
    where = place_of(problem)
    try:
        score = check(problem, text)
    except InputError as error:
        raise InputError(f"{where}{error}") from error.__cause__
    except (Exception, SystemExit) as error:  # a function of a user's own; its line says more than our stack
        at = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {error} ({at.filename}, line {at.lineno})"
        raise InputError(f"{where}the checker fails on an answer, {text[:60]!r}: {what}") from error
    try:
        score = float(score)
    except (TypeError, ValueError):
        score = math.nan
    if not 0 <= score <= 1:
        raise InputError(f"{where}the checker says {score} of an answer; it must return a number from 0 to 1")
    return score


def check_problems(spec: str, problems: Iterable[dict]) -> None:
    """Raise InputError, with the problem's place, for one that the checker ``spec`` cannot judge answers to.

    A function of a user's own is not asked: it judges answers.
    """
    if spec.startswith("python:"):
        return
    score = check_entry if spec == "reasoning-gym" else checker(spec)
    for problem in problems:
        check(score, problem, "")


def _expected(problem: dict) -> str:
    answer = problem.get("answer")
    if answer is None:
        raise InputError("a problem has no answer to check against; give it one or choose another checker")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise InputError(f"a problem's answer {str(answer)[:60]} is neither text nor a number; write it as one")
    return str(answer).strip()


def _exact(problem: dict, text: str) -> float:
    return float(text.strip() == _expected(problem))


def _matches(pattern: re.Pattern, problem: dict, text: str) -> float:
    found = list(pattern.finditer(text))
    return float(bool(found) and found[-1].group(min(1, pattern.groups)) == _expected(problem))


def _number(problem: dict, text: str) -> float:
    expected = whole_number(_expected(problem))
    if expected is None:
        raise InputError(f"a problem's answer {_expected(problem)!r} is no number; choose another checker")
    number, decimal_comma = expected
    return float(any(found.equals(number) for found in last_readings(text, decimal_comma)))


def _choice(problem: dict, text: str) -> float:
    expected = _expected(problem).strip("(). ").upper()
    if not re.fullmatch("[A-Z]", expected):
        raise InputError(f"a problem's answer {_expected(problem)!r} is no letter of a choice; choose another checker")
    choices = choices_of(problem)
    return float(named_choice(text, choices if expected in choices else ()) == expected)


def _math(problem: dict, text: str) -> float:
    from math_verify import parse, verify

    # Its time limits use signals, which only the main thread may; what is parsed here are a few hundred characters.
    gold = parse(f"${_expected(problem)}$", parsing_timeout=None)
    return float(verify(gold, parse(text[-4096:], parsing_timeout=None), timeout_seconds=None))


PLAIN = {"exact": _exact, "number": _number, "choice": _choice, "math": _math, "reasoning-gym": family_score}


def _imported(spec: str, module: str, name: str) -> Checker:
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever a module does when it is imported
        raise InputError(f"checker {spec}: cannot be imported ({error}); is its folder on PYTHONPATH?") from None
    if not callable(function):
        raise InputError(f"checker {spec}: {name} is not callable; name a function of (problem, text)")
    return function
