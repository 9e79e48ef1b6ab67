"""The answer that a text comes to, so that texts with the same one count together."""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from autodeco.data.choices import choices_of, named_choice
from autodeco.data.numbers import last_number, whole_number

_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")


def final_answer(problem: dict[str, Any], text: str) -> str:
    """Return the final answer of ``text``: the letter that it chooses where the known answer is a letter of a choice,
    its last number where that is a number, else its last box, else all of it without case and blanks."""
    known = "" if problem.get("answer") is None else str(problem["answer"]).strip()
    choices = choices_of(problem) if re.fullmatch(r"\(?[A-Za-z][).]?", known) else []
    if choices and (letter := named_choice(text, choices)):
        return letter
    if (number := whole_number(known)) and (found := last_number(text, number[1])):
        return found.text if found.value is None else repr((found.value, found.unit))
    boxes = _BOXED.findall(text)
    return " ".join((boxes[-1] if boxes else text).split()).casefold()


def votes_of(problem: dict[str, Any], rows: Iterable[dict[str, Any]]) -> np.ndarray:
    """Return for each of the answers ``rows`` to ``problem`` the number of its final answer [n]; -1 for one that was
    cut off."""
    numbers: dict[str, int] = {}
    return np.array(
        [
            -1 if row["finish"] == "length" else numbers.setdefault(final_answer(problem, row["text"]), len(numbers))
            for row in rows
        ]
    )
