"""The letter that an answer chooses."""

import random

import pytest

from autodeco.data.checkers import check, checker
from autodeco.data.choices import choices_of, named_choice
from autodeco.errors import InputError

FOUR = "ABCD"
TEXTS = [
    ("B", "B"),
    ("B.", "B"),
    ("(B)", "B"),
    ("**B**", "B"),
    ("b", "B"),
    ("(b)", "B"),
    ("I", None),
    ("A", "A"),
    ("I think it is B", "B"),
    ("B, I think", "B"),
    ("The answer is B. I am sure.", "B"),
    ("The answer is B. A cat has four legs.", "B"),
    ("The answer is (B), because I have counted.", "B"),
    ("The answer is not A but C", "C"),
    ("The correct answer is: **C**. A common error is D.", "C"),
    ("Answer: D", "D"),
    ("**Answer:** D. Paris", "D"),
    ("Final Answer - (C)", "C"),
    ("The answer to the second question would be option C", "C"),
    ("answer: c", "C"),
    ("Is the answer A? No, it is D.", "D"),
    ("The answer is A or B", None),
    ("The answer is A, B or C.", None),
    ("The answer is B, A is wrong.", "B"),
    ("The answer is B and A is wrong.", "B"),
    ("The answer is a cat, B", "B"),
    (r"so \boxed{B}, as A and C fail", "B"),
    (r"so $\boxed{\text{(D)}}$.", "D"),
    ("B is correct. A is near, C and D are far.", "B"),
    ("Option (C) is the right answer, D is not", "C"),
    ("I would go with option D. A good guess.", "D"),
    ("It must be (B), as vitamin C is absent", "B"),
    ("C. Berlin, a city that I know", "C"),
    ("C) Berlin", "C"),
    ("A: red\nB: blue\nC: green\nSo it is B", "B"),
    ("(A) red (B) blue (C) green. It is B", "B"),
    ("A) is wrong, as I said.\nB) is right.\nB", "B"),
    ("Not (A), not (B), so (C)", "C"),
    ("A is near, but the answer is (B).", "B"),
    ("Let me think.\n\nC", "C"),
    ("Let me think.\n\n### C.\n", "C"),
    ("A dog is an animal", None),
    ("I do not know", None),
    ("no letter", None),
    ("", None),
    ("It's neither; I'd pass", None),
    ("A is larger than B", "B"),
    ("B\n\nExplanation: A is too small.", "B"),
    ("B. Paris\n\nExplanation: A is too small.", "B"),
    ("The answer A is wrong, so C", "C"),
    ("Both A and B", None),
    ("(A) or (B)", None),
    ("The answer is not B", None),
    ("The answer is neither A nor B", None),
    ("D, because B is wrong", "D"),
    ("It isn't D. I say C rather than B", "C"),
    ("The answer should be B rather than A", "B"),
    ("It can't be A, B, or C, so it's D", "D"),
    ("Plan E is out, so D", "D"),
    ("The answer is E", None),
    ("Dr. B\u00f6hm says D", "D"),
]


@pytest.mark.parametrize(("text", "letter"), TEXTS)
def test_the_letter_that_an_answer_chooses_of_four(text, letter):
    assert named_choice(text, FOUR) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [("I think it is B", "B"), ("B, I think", "B"), ("The answer is I.", "I"), ("(I)", "I"), ("So E", "E"), ("I", "I")],
)
def test_the_letter_that_an_answer_chooses_of_any(text, letter):
    assert named_choice(text) == letter


@pytest.mark.parametrize(
    ("problem", "letters"),
    [
        ({"choices": ["red", "blue", "green"]}, "ABC"),
        ({"options": {"A": "red", "B": "blue"}}, "AB"),
        ({"choices": {"label": ["A", "B", "C", "D"], "text": ["1", "2", "3", "4"]}}, "ABCD"),
        ({"prompt": "Which?\nA. red\nB. blue\nC. green"}, "ABC"),
        ({"prompt": "Which? (A) red (B) blue"}, "AB"),
        ({"prompt": [{"role": "user", "content": "Which?\nA) I\nB) you\nC) A\nD) B"}]}, "ABCD"),
        ({"prompt": "Which? A. Only one"}, ""),
        ({"prompt": "Who? I or A?"}, ""),
        ({}, ""),
    ],
)
def test_the_letters_of_a_problems_choices(problem, letters):
    assert choices_of(problem) == list(letters)


@pytest.mark.parametrize(
    ("problem", "text", "right"),
    [
        ({"answer": "B"}, "A is near, but the answer is (B).", 1),
        ({"answer": "(c)"}, "**C**", 1),
        ({"answer": "A"}, "I think it is B", 0),
        ({"answer": "I"}, "I think it is B", 0),
        ({"answer": "A"}, "The answer is B. A fine day.", 0),
        ({"answer": "A", "choices": ["x", "y"]}, "A or B", 0),
        ({"answer": "B", "prompt": "?\nA. x\nB. y"}, "It is B, as plan C says", 1),
        ({"answer": "C", "prompt": "?\nA. x\nB. y"}, "The answer is C", 1),  # the known answer is not in the list
        ({"answer": "A"}, "no letter", 0),
    ],
)
def test_an_answer_is_right_if_it_chooses_the_problems_letter(problem, text, right):
    assert check(checker("choice"), problem, text) == right


def test_an_answer_that_is_no_letter_is_refused():
    with pytest.raises(InputError, match="is no letter of a choice"):
        check(checker("choice"), {"answer": "both"}, "B")


def test_every_choice_is_found_in_every_form():
    forms = ["{}", "({})", "{}.", "**{}**", "The answer is {}.", "Answer: ({})", "It is {}", "{} is correct, I think"]
    tails = ["", " A man said so.", "\n\nI hope that helps."]
    for letter in FOUR:
        for form in forms:
            for tail in tails:
                text = form.format(letter) + tail
                assert named_choice(text, FOUR) == letter, text


def test_odd_texts_never_fail():
    rng = random.Random(0)
    pieces = [
        "A",
        "I",
        "b",
        " ",
        "\n",
        "(",
        ")",
        "*",
        ".",
        ":",
        "answer",
        " is ",
        "or",
        "\\boxed{",
        "}",
        "correct",
        "\u00e9",
    ]
    for _ in range(3000):
        text = "".join(rng.choices(pieces, k=rng.randint(0, 25)))
        assert named_choice(text, FOUR) in (None, *FOUR)
        assert checker("choice")({"answer": "A", "prompt": text}, text) in (0.0, 1.0)
    for piece in ("answer ", "A ", "(A", "\n", "**", "the answer is "):
        named_choice(piece * (20_000 // len(piece)), FOUR)  # were it quadratic, this would take minutes
