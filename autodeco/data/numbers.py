"""Numbers in texts, as people and models write them, compared exactly.

Where comma and point are both there, the last is the decimal one; a lone comma is that only with ``decimal_comma``.
"""

import re
import unicodedata
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from autodeco.data import number_forms as forms

# Of numbers that need arithmetic. One that is written out is compared by its digits, however many these are.
MOST_DIGITS = 1000
_GROUPED_BY_BLANKS = re.compile(r"(?<=\d) (?=[1-9]\d\d(?!\d))")


@dataclass(frozen=True)
class Number:
    """A number in a text: ``text`` is how a program writes it, ``unit`` the power of ten of its unit, 0 without one.

    Equal numbers have the same ``value``: sign, digits without zeros at their ends, a denominator without 2 and 5, and
    a power of ten. It is None for what has no value or too many digits for arithmetic.
    """

    text: str
    value: tuple[bool, str, int, int] | None
    unit: int = 0

    def equals(self, other: "Number") -> bool:
        """Whether both are the same number; a unit that only one of them has may count or not: 50% is 0.5 and 50."""
        if self.value is None or other.value is None:
            return False
        bare = not (self.unit and other.unit) and self.value == other.value
        return bare or _scaled(self.value, self.unit) == _scaled(other.value, other.unit)


def numbers(text: str, decimal_comma: bool = False) -> Iterator[Number]:
    """Yield the numbers in ``text``, in time linear in its length."""
    text, at = _uniform(text), 0
    while start := forms.START.search(text, at):
        at = start.start()
        if forms.RAISED_NAME.search(text, max(0, at - 6), at):  # m/s^2
            at = max(start.end(), forms.DIGITS.match(text, at).end())
        elif (found := _number(text, at, decimal_comma)) is None:
            at = start.end()
        else:
            number, at = found
            yield number


def last_number(text: str, decimal_comma: bool = False) -> Number | None:
    """Return the last number in ``text``, None if there is none."""
    text = _uniform(text)
    digit = max(map(text.rfind, "0123456789" + forms.VULGAR))
    # no number goes on over a blank between two letters: what lies before the last of these need not be read
    begin = max((found.start() for found in forms.WORDS.finditer(text, max(0, digit - 400), digit + 1)), default=0)
    for start in dict.fromkeys((begin, 0)):
        if last := deque(numbers(text[start:], decimal_comma), maxlen=1):
            return last[0]
    return None


def last_readings(text: str, decimal_comma: bool = False) -> list[Number]:
    """Return what the last number in ``text`` may be, none if there is none: where blanks part digits in groups of
    three, as in "100 200 300", it is all of them or the last."""
    parted = _GROUPED_BY_BLANKS.sub("; ", text)
    found = [last_number(each, decimal_comma) for each in dict.fromkeys((text, parted))]
    return [number for number in found if number is not None]


def whole_number(text: str) -> tuple[Number, bool] | None:
    """Return the number that all of ``text`` is, and whether its comma is a decimal one; None if it is no number."""
    text = re.sub(rf"^([{forms.MINUS}])\s+", r"\1", _uniform(text).strip())
    for decimal_comma in (False, True):
        start = forms.START.search(text)
        found = start and _number(text, start.start(), decimal_comma)
        if found and found[0].value:
            before, after = (
                re.sub(f"[+{forms.MINUS}]", "", text[: start.start()], count=1),
                text[found[1] :].rstrip(". "),
            )
            if forms.AROUND.fullmatch(before) and forms.AROUND.fullmatch(after):
                return found[0], decimal_comma or _ends_by_comma(text[start.start() : found[1]])
    return None


def _ends_by_comma(number: str) -> bool:
    """Whether the comma of a number that is read in either way is a decimal one: that of 1.234,5 and of 1 234,5."""
    before, comma, behind = number.rpartition(",")
    return bool(comma) and "." not in behind and bool(re.search(rf"\.|{forms.SP}|['\u2019_]", before))


def _uniform(text: str) -> str:
    """``text`` with one sign for each of what looks alike, and digits of ASCII."""
    text = forms.LATEX_MARK.sub(lambda found: forms.LATEX[found[0]], text)
    if text.isascii():
        return text
    text = forms.UNSEEN.sub("", text).translate(forms.ALIKE)
    return re.sub(r"(?![0-9])\d", lambda found: str(unicodedata.decimal(found[0])), text)


def _number(text: str, at: int, decimal_comma: bool) -> tuple[Number, int] | None:
    """The number that starts at ``at``, with sign and unit, and where it ends."""
    begin, plain, fraction = at, None, _fraction(text, at, decimal_comma)
    if fraction is None:
        if (term := _term(text, at, decimal_comma)) is None:
            return None
        plain, value, at = term
        gap = _mixed_gap(text, at) if plain and plain.isdigit() else None
        part = None if gap is None else _fraction(text, gap, decimal_comma)
        if part and part[0] is not None and 0 <= part[0] < 1:
            plain, value, at = None, _sum(value, part[0]), part[1]
    else:
        value, at = None if fraction[0] is None else _of_fraction(fraction[0]), fraction[1]
    if _is_negative(text, begin) and value is not None and value != _ZERO:
        value = (not value[0], *value[1:])
        plain = plain and f"-{plain}"
    unit = 0
    if found := forms.UNIT.match(text, at):
        unit, at = forms.UNITS[found[1].lower()], found.end()
    elif found := forms.SHORT_UNIT.match(text, at):
        unit, at = forms.SHORT_UNITS[found[1]], found.end()
    return Number(plain or _written(value), value, unit), at


def _mixed_gap(text: str, at: int) -> int | None:
    """Where the fraction of a mixed number would start behind its whole part, which ends at ``at``."""
    behind = at + 1 if text[at : at + 1] in (*forms.SP[1:-1],) else at
    is_ratio = behind > at and text[behind : behind + 1].isdigit()
    return behind if is_ratio or text[behind : behind + 1] in (*forms.VULGAR, "\\") else None


def _fraction(text: str, at: int, decimal_comma: bool) -> tuple[Fraction | None, int] | None:
    """The fraction that starts at ``at``, None within if its denominator is 0, and where it ends."""
    if text[at] in forms.VULGAR:
        return Fraction(unicodedata.numeric(text[at])).limit_denominator(10), at + 1
    if found := forms.FRAC.match(text, at):
        parts = [_exact(*_signed(part, decimal_comma)) for part in (found[1] or found[3], found[2] or found[4])]
        return (_divided(*parts), found.end()) if None not in parts else None
    if forms.CHAIN_BEFORE.search(text[max(0, at - 4) : at]) or (above := _term(text, at, decimal_comma)) is None:
        return None
    slash = forms.RATIO.match(text, above[2])
    below = slash and _term(text, slash.end(), decimal_comma)
    if not below or forms.CHAIN_AFTER.match(text, below[2]):
        return None
    fraction = _divided(_exact(above[1]), _exact(below[1]))
    return (-fraction if fraction and slash[1] else fraction), below[2]


def _signed(text: str, decimal_comma: bool) -> tuple[tuple | None, bool]:
    """The value of a text that is a term alone, and whether a minus stands before it."""
    text = text.strip()
    bare = text.lstrip(f"+{forms.MINUS}")
    term = _term(bare, 0, decimal_comma)
    return (term[1] if term and term[2] == len(bare) else None), text[:1] in tuple(forms.MINUS)


def _divided(above: Fraction | None, below: Fraction | None) -> Fraction | None:
    return above / below if above is not None and below else None


def _term(text: str, at: int, decimal_comma: bool) -> tuple[str | None, tuple | None, int] | None:
    """The number without sign or fraction at ``at``: how a program writes it if it is plain, its value, its end."""
    found = forms.PLAIN[decimal_comma].match(text, at)
    if not found:
        return None
    plain, at = _as_written_by_programs(found[0], decimal_comma), found.end()
    if more := forms.EXPONENT.match(text, at) or forms.TIMES_TEN.match(text, at):
        exponent = _integer(more[1] or more[2])
        return None, None if exponent is None else _of_digits(plain, exponent), more.end()
    if more := forms.POWER.match(text, at):
        exponent = _integer(more[1] or more[2])
        return None, None if exponent is None else _raised(plain, exponent), more.end()
    return plain, _of_digits(plain), at


def _as_written_by_programs(text: str, decimal_comma: bool) -> str:
    text = re.sub(f"{forms.SP}|['\u2019_]", "", text)
    comma, point = text.rfind(","), text.rfind(".")
    if comma >= 0 and point >= 0:
        decimal = max(comma, point)
    elif comma >= 0:
        decimal = comma if text.count(",") == 1 and (decimal_comma or not re.fullmatch(r"\d{1,3},\d{3}", text)) else -1
    else:
        is_group = decimal_comma and re.fullmatch(r"[1-9]\d{0,2}\.\d{3}", text)
        decimal = point if text.count(".") == 1 and not is_group else -1
    if decimal < 0:
        return re.sub("[,.]", "", text)
    return (re.sub("[,.]", "", text[:decimal]) or "0") + "." + text[decimal + 1 :]


_ZERO = (False, "0", 1, 0)


def _of_digits(plain: str, exponent: int = 0) -> tuple:
    """The value of digits with at most one point, times ten to ``exponent``."""
    whole, _, part = plain.partition(".")
    digits = (whole + part).lstrip("0")
    bare = digits.rstrip("0")
    return (False, bare, 1, exponent - len(part) + len(digits) - len(bare)) if bare else _ZERO


def _of_fraction(value: Fraction) -> tuple:
    if value == 0:
        return _ZERO
    above, below, exponent = abs(value.numerator), value.denominator, 0
    twos = (below & -below).bit_length() - 1
    above, below, exponent = above * 5**twos, below >> twos, exponent - twos
    while below % 5 == 0:
        above, below, exponent = above * 2, below // 5, exponent - 1
    _, digits, _, shift = _of_digits(str(Decimal(above)))
    return value < 0, digits, below, exponent + shift


def _exact(value: tuple | None, negative: bool = False) -> Fraction | None:
    """A value as a fraction; None for one of too many digits."""
    if value is None or len(value[1]) + abs(value[3]) > MOST_DIGITS:
        return None
    fraction = Fraction(int(value[1]), value[2]) * Fraction(10) ** value[3]
    return -fraction if value[0] != negative else fraction


def _sum(value: tuple | None, part: Fraction) -> tuple | None:
    whole = _exact(value)
    return None if whole is None else _of_fraction(whole + part)


def _raised(plain: str, exponent: int) -> tuple | None:
    if plain == "10":
        return _of_digits("1", exponent)
    base = _exact(_of_digits(plain))
    if base is None or (base == 0 and exponent < 0) or len(plain) * abs(exponent) > MOST_DIGITS:
        return None
    return _of_fraction(base**exponent)


def _integer(text: str) -> int | None:
    text = text.translate(str.maketrans(forms.HIGH, "0123456789+-"))
    digits = text.lstrip(f"+{forms.MINUS}")
    if len(digits) > MOST_DIGITS:
        return None
    return -int(digits) if text[0] in forms.MINUS else int(digits)


def _scaled(value: tuple, unit: int) -> tuple:
    return value if value == _ZERO else (*value[:3], value[3] + unit)


def _written(value: tuple | None) -> str:
    """A value as a program would write it: with a point if it ends, else as a fraction; nothing for what it is not."""
    fraction = _exact(value)
    if fraction is None:
        return ""
    negative, digits, below, exponent = value
    return f"{Decimal((negative, tuple(map(int, digits)), exponent)):f}" if below == 1 else str(fraction)


def _is_negative(text: str, at: int) -> bool:
    """Whether a minus before ``at`` is the number's sign, not one between two numbers, a dash or a list's mark."""
    sign = forms.SIGN.search(text, max(0, at - 12), at)
    if not sign:
        return False
    before = text[max(0, sign.start() - 12) : sign.start()]
    return bool(forms.ASSIGNED.search(before)) if sign[2] else not forms.OPERAND.search(before)
