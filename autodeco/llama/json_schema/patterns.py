"""Regular expressions over the texts of JSON strings as expressions of GBNF."""

import re
import re._constants as kinds
import re._parser as parser
from collections.abc import Sequence

from autodeco.llama.json_schema.rules import literal

LAST = 0x10FFFF
DIGIT = [(0x30, 0x39)]
WORD = [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)]
SPACE = [(0x09, 0x0D), (0x20, 0x20), (0xA0, 0xA0)]
CATEGORIES = {
    kinds.CATEGORY_DIGIT: (DIGIT, False),
    kinds.CATEGORY_NOT_DIGIT: (DIGIT, True),
    kinds.CATEGORY_WORD: (WORD, False),
    kinds.CATEGORY_NOT_WORD: (WORD, True),
    kinds.CATEGORY_SPACE: (SPACE, False),
    kinds.CATEGORY_NOT_SPACE: (SPACE, True),
}
BEGINNINGS = (kinds.AT_BEGINNING, kinds.AT_BEGINNING_STRING)
ENDS = (kinds.AT_END, kinds.AT_END_STRING)
ESCAPED = {0x22: '\\"', 0x5C: "\\\\", 0x08: "\\b", 0x09: "\\t", 0x0A: "\\n", 0x0C: "\\f", 0x0D: "\\r"}

Ranges = list[tuple[int, int]]


class UnknownPattern(ValueError):
    """A pattern that no grammar can keep to."""


def pattern_expression(pattern: str) -> str:
    """Return the inside of the strings that ``pattern`` is found in; raises UnknownPattern."""
    try:
        parts = list(parser.parse(pattern))
    except re.error as error:
        raise UnknownPattern(str(error)) from None
    anchored = bool(parts) and parts[0][0] is kinds.AT and parts[0][1] in BEGINNINGS
    parts = parts[1:] if anchored else parts
    ended = bool(parts) and parts[-1][0] is kinds.AT and parts[-1][1] in ENDS
    parts = parts[:-1] if ended else parts
    return " ".join([*([] if anchored else ["char*"]), _sequence(parts), *([] if ended else ["char*"])])


def _sequence(parts: Sequence) -> str:
    return " ".join(_part(kind, value) for kind, value in parts) or '""'


def _part(kind, value) -> str:
    if kind is kinds.LITERAL:
        return _letters([(value, value)])
    if kind is kinds.NOT_LITERAL:
        return _letters(_without([(value, value)]))
    if kind is kinds.ANY:
        return _letters(_without([(0x0A, 0x0A), (0x0D, 0x0D)]))
    if kind is kinds.IN:
        return _letters(_set(value))
    if kind is kinds.BRANCH:
        return "(" + " | ".join(_sequence(branch) for branch in value[1]) + ")"
    if kind is kinds.SUBPATTERN and not value[1] and not value[2]:
        return f"({_sequence(value[3])})"
    if kind in (kinds.MAX_REPEAT, kinds.MIN_REPEAT):
        least, most, inner = value
        return f"({_sequence(inner)}){{{least},{'' if most is kinds.MAXREPEAT else most}}}"
    raise UnknownPattern(f"{str(kind).lower().replace('_', ' ')} is not possible")


def _set(items: Sequence) -> Ranges:
    ranges, negated = [], False
    for kind, value in items:
        if kind is kinds.NEGATE:
            negated = True
        elif kind is kinds.LITERAL:
            ranges.append((value, value))
        elif kind is kinds.RANGE:
            ranges.append(value)
        else:
            named, other = CATEGORIES[value]
            ranges += _without(named) if other else named
    return _without(ranges) if negated else ranges


def _without(ranges: Ranges) -> Ranges:
    left, start = [], 0
    for low, high in sorted(ranges):
        if low > start:
            left.append((start, low - 1))
        start = max(start, high + 1)
    return [*left, (start, LAST)] if start <= LAST else left


def _letters(ranges: Ranges) -> str:
    """One letter of ``ranges``, as it stands in a string of JSON."""
    plain, found = [], []
    for low, high in ranges:
        found += [literal(ESCAPED[letter]) for letter in ESCAPED if low <= letter <= high]
        allowed = (0x20, 0x21), (0x23, 0x5B), (0x5D, 0x7E), (0x80, 0xD7FF), (0xE000, LAST)
        plain += [(max(low, a), min(high, b)) for a, b in allowed if max(low, a) <= min(high, b)]
    if plain:
        found.insert(0, "[" + "".join(f"\\U{low:08X}-\\U{high:08X}" for low, high in plain) + "]")
    if not found:
        raise UnknownPattern("a set of letters is empty")
    return found[0] if len(found) == 1 else f"({' | '.join(found)})"
