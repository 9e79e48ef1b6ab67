"""Families of everyday sums: every answer is that of its question, worked out here from the question's own words."""

import math
import re
import statistics
from fractions import Fraction

import pytest

from autodeco.data.problems import read_problems
from autodeco.errors import InputError
from builders.gpu_scripts import FOLDER, load

everyday = load("everyday")


def roman(text):
    """By the rule that a letter before a greater one is taken away."""
    values = [{"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}[letter] for letter in text]
    return sum(-a if a < b else a for a, b in zip(values, [*values[1:], 0], strict=True))


def minutes(start_hour, start, end_hour, end):
    return (end_hour - start_hour) * 60 + end - start


# The answer by the question's numbers in their order, or by the question itself.
BY_NUMBERS = {
    "percentage": lambda a, b: Fraction(min(a, b) if min(a, b) <= 80 else a, 100) * max(a, b),
    "average": lambda *numbers: statistics.mean(numbers),
    "remainder": lambda a, b: a - b * int(a / b),
    "quotient": lambda a, b: a / b,
    "rounding": lambda n, to: round(n / to) * to,
    "median": lambda *numbers: statistics.median(numbers),
    "minutes-between": minutes,
    "change": lambda number, price, paid: paid - number * price,
    "perimeter": lambda a, b: a + b + a + b,
    "fraction-of": lambda a, b, c: Fraction(b, c) * a if a >= b and a >= c else Fraction(a, b) * c,
    "discount": lambda price, off: price - price * off / 100,
    "shared": lambda a, more, fewer: 3 * a + 2 * more - fewer,
    "left-over": lambda had, *gone: had - sum(gone),
    "boxes": lambda number, each, more: number * each + more,
    "mixed-purchase": lambda a, b, n, m: a * n + b * m,
    "seats": lambda people, bus: (people - 1) // bus + 1,
    "consecutive": lambda number, first: number * (2 * first + number - 1) / 2,
    "ratio": lambda all_of_it, a, b: all_of_it * a / (a + b),
    "decimals": lambda a, b, c, d: round(a + b / 100 + c + d / 100, 2),
    "coins": lambda quarters, dimes, nickels: 25 * quarters + 10 * dimes + 5 * nickels,
    "pages": lambda all_of_them, daily, days: all_of_them - daily * days,
    "multiples": lambda k, low, high: len([n for n in range(low, high + 1) if n % k == 0]),
    "proportion": lambda bought, price, more: price / bought * more,
    "formula": lambda a, two, b, x: a * x**two + b,
    "divisor-count": lambda n: len([k for k in range(1, n + 1) if n % k == 0]),
    "path": lambda side, width: 4 * width * (side + width),
    "working-together": lambda a, b, hours: hours * a + hours * b,
}  # fmt: skip
BY_QUESTION = {
    "roman": lambda asked: roman(re.search(r"numeral ([IVXLC]+)\?", asked)[1]),
    "binary": lambda asked: int(re.search(r"\d+", asked)[0], 2),
    "largest": lambda asked: sorted(map(int, re.findall(r"\d+", asked)))[
        {"largest": -1, "smallest": 0, "second largest": -2}[re.search("the (.+) of these", asked)[1]]
    ],
    "square": lambda asked: int(re.search(r"\d+", asked)[0]) ** 2,
    "growth": lambda asked: math.prod(
        [int(re.search(r"\d+", asked)[0])]
        + [2 if "doubles" in asked else 3] * int(re.search(r"after (\d+) hours", asked)[1])
    ),
    "words-in": lambda asked: len(re.search(r"list: (.+?)\?", asked)[1].split()),
}


@pytest.mark.parametrize("name", [*BY_NUMBERS, *BY_QUESTION])
def test_an_answer_is_that_of_its_question(name):
    for problem in everyday.problems(name, 40, seed=3):
        asked = problem["prompt"][0]["content"]
        if name in BY_QUESTION:
            expected = BY_QUESTION[name](asked)
        else:
            expected = BY_NUMBERS[name](*map(int, re.findall(r"\d+", asked)))
        assert float(problem["answer"]) == pytest.approx(float(expected)), asked


@pytest.mark.parametrize("name", everyday.FAMILIES)
def test_problems_of_a_family_are_different_numbers_and_the_same_each_time(name):
    made = everyday.problems(name, 45, seed=0)
    assert [row["family"] for row in made] == [name] * 45
    assert all(re.fullmatch(r"-?\d+(\.\d+)?", row["answer"]) for row in made)
    endings = "|".join(map(re.escape, sorted(filter(None, everyday.ENDINGS))))
    assert len({re.sub(f"({endings})$", "", row["prompt"][0]["content"]) for row in made}) == 45
    assert made == everyday.problems(name, 45, seed=0)
    assert made != everyday.problems(name, 45, seed=1)


def test_sixteen_families_choose_between_heads():
    assert len(everyday.FAMILIES) == 49
    assert len(set(everyday.HELD_OUT) & everyday.FAMILIES.keys()) == len(everyday.HELD_OUT) == 16


def test_a_family_that_has_fewer_questions_says_so():
    assert len(everyday.problems("weekdays", 19 * 6, seed=0)) == 114
    with pytest.raises(InputError, match="family weekdays: has 114 questions, not 115; ask for fewer"):
        everyday.problems("weekdays", 115, seed=0)


def test_held_out_families_are_in_no_anchors(tmp_path, monkeypatch, capsys):
    pytest.importorskip("reasoning_gym")
    monkeypatch.syspath_prepend(FOLDER)
    script = load("problems")
    monkeypatch.setattr(script, "SETS", {"reasoning": (None, None, FOLDER / "unseen.yaml", 0, 2)})
    monkeypatch.setattr(script, "other_prompts", lambda *_: [[{"role": "user", "content": "Of another family"}]])
    monkeypatch.setattr(script, "write_training", lambda *_: 0)
    monkeypatch.setattr("sys.argv", ["problems.py", str(tmp_path), "reasoning", "--seed", "5", "--everyday", "3"])
    script.main()
    out = capsys.readouterr().out
    assert "anchors.jsonl: 1321 problems" in out
    assert "training.jsonl: 99 problems" in out
    trained = read_problems(tmp_path / "training.jsonl")
    assert [row["family"] for row in trained] == [
        name for name in everyday.FAMILIES if name not in everyday.HELD_OUT for _ in range(3)
    ]
    assert trained[0] == everyday.problems("difference", 3, seed=6)[0]
    held_out, unseen = (read_problems(tmp_path / f"{name}.jsonl") for name in ("held_out", "unseen"))
    assert [row["family"] for row in held_out] == [name for name in everyday.HELD_OUT for _ in range(45)]
    assert held_out[0] == everyday.problems("remainder", 45, seed=5)[0]
    assert len(unseen) == 8
    anchors = (tmp_path / "anchors.jsonl").read_text().splitlines()
    assert len(anchors) == 1 + 33 * 40
    opening = re.compile(
        "Roman numeral|median of|remainder when|discount of|quarters,| mod |do the three have|returned"
        "|multiples of|squared|the square of|\\^2|at the same price|divisors does|the path in|every hour|pack together"
    )
    assert not [line for line in anchors if opening.search(line) or "How many minutes does it" in line]
    assert sum(bool(opening.search(row["prompt"][0]["content"])) for row in held_out) == 15 * 45
