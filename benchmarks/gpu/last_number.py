"""A checker for problems whose answer is a number at the end of what a model says, or a word that is all it says."""

from autodeco.data.numbers import last_number, whole_number


def right(problem: dict, text: str) -> float:
    """Return 1 for an answer whose last number is the problem's, or that is the problem's if this is no number."""
    expected = str(problem["answer"]).strip()
    if number := whole_number(expected):
        found = last_number(text, number[1])
        return float(found is not None and found.equals(number[0]))
    return float(text.strip() == expected)
