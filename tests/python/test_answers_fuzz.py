"""Random answers end no scoring: those of numbers, of choices, and of every family of reasoning-gym.

Twenty seconds each here; AUTODECO_FUZZ_SECONDS=600 for longer.
"""

import os
import random
import time
import warnings

import pytest

from autodeco.data.checkers import check, checker
from autodeco.data.draws import drawn_entries
from autodeco.data.numbers import last_number, numbers, whole_number
from autodeco.data.problems import problem_of
from autodeco.data.scoring import Scorer

SECONDS = float(os.environ.get("AUTODECO_FUZZ_SECONDS", "20"))
PIECES = [
    *"0123456789.,-+/^*%$ {}()[]\\'_\"ekMxABI:\n",
    "1,000",
    " 1 234",
    "\\frac{",
    "}{",
    "\\boxed{",
    "10^",
    " x 10^",
]
PIECES += [
    "\u2212",
    "\u00bd",
    "\u2076",
    "\u0664",
    "\u00a0",
    "\u20ac",
    "answer is ",
    " is correct",
    "True",
    "nan",
    "None",
    "exit()",
]
PIECES += [
    "**",
    "```",
    "\u65e5",
    "\U0001f600",
    "\x00",
    "9" * 50,
    "e999",
    "[[",
    "]]",
    "1 2\n3 4\n",
    '{"a": ',
    "million",
    "=",
]


def random_text(rng: random.Random, start: str = "") -> str:
    """``start`` with pieces taken out and put in; from nothing, pieces."""
    text = start
    for _ in range(rng.randint(0 if start else 1, 12)):
        at = rng.randint(0, len(text))
        text = text[:at] + rng.choice(PIECES) + text[at + (rng.randint(0, 5) if start else 0) :]
    return text


@pytest.mark.slow
def test_random_numbers_and_choices():
    rng, end, tried = random.Random(0), time.monotonic() + SECONDS, 0
    number, choice = checker("number"), checker("choice")
    while time.monotonic() < end:
        text = random_text(rng)
        every = list(numbers(text))
        assert last_number(text) == (every[-1] if every else None), text
        if whole := whole_number(text):
            assert whole[0].equals(whole[0]), text
            assert check(number, {"answer": text}, f"It is {text.strip()}") in (0, 1)
        assert check(number, {"answer": "7"}, text) in (0, 1)
        assert check(choice, {"answer": "B", "prompt": text}, text) in (0, 1)
        tried += 1
    assert tried > 100


@pytest.mark.slow
def test_random_answers_to_every_family():
    reasoning_gym = pytest.importorskip("reasoning_gym")
    families = [name for name in sorted(reasoning_gym.factory.DATASETS) if name != "composite"]
    rng, end, tried = random.Random(0), time.monotonic() + SECONDS, 0
    with warnings.catch_warnings(), Scorer("reasoning-gym", workers=1, seconds=2.0) as scorer:
        warnings.simplefilter("ignore")
        while time.monotonic() < end or tried < len(families):
            family = families[tried % len(families)]
            problem = problem_of(family, next(drawn_entries(family, 1, tried, {})))
            texts = [random_text(rng, str(problem["answer"])) for _ in range(10)]
            scores = scorer.score([(problem, text) for text in texts])
            assert ((scores >= 0) & (scores <= 1)).all(), (family, texts)
            tried += 1
