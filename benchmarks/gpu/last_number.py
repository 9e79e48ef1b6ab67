"""A checker for problems whose answer is a number at the end of what a model says, or a word that is all it says."""

from autodeco.data.checkers import numbers


def right(problem: dict, text: str) -> float:
    """Return 1 for an answer whose last number is the problem's, or that is the problem's if this is no number."""
    expected = str(problem["answer"]).strip()
    if numbers(expected) == [expected]:
        found = numbers(text)
        return float(bool(found) and float(found[-1]) == float(expected))
    return float(text.strip() == expected)
