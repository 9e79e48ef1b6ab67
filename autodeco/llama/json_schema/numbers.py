"""Numbers between two bounds as expressions of GBNF."""

from dataclasses import dataclass, replace

MOST_DIGITS = 16  # of an integer, as everywhere in a grammar of JSON
FRACTION = '"." [0-9]{1,16}'
ABOVE = '"." "0"{0,15} [1-9] [0-9]{0,15}'  # a fraction that is not zero
NOTHING = '"." "0"{1,16}'


@dataclass(frozen=True)
class Bounds:
    """``low`` and ``high``, whole numbers or None; whether each is itself outside."""

    low: int | None = None
    high: int | None = None
    above_low: bool = False
    below_high: bool = False


def integers(bounds: Bounds) -> str | None:
    """Return the integers within ``bounds``; None if there are none."""
    least, most = -(10**MOST_DIGITS) + 1, 10**MOST_DIGITS - 1
    low = least if bounds.low is None else max(least, bounds.low + bounds.above_low)
    high = most if bounds.high is None else min(most, bounds.high - bounds.below_high)
    parts = []
    if low < 0 and low <= high:
        parts.append(f'"-" ({_counting(max(1, -high), -low)})')
    if high >= 0 and low <= high:
        parts.append(_counting(max(0, low), high))
    return " | ".join(parts) or None


def numbers(bounds: Bounds) -> str | None:
    """Return the decimal numbers within ``bounds``, without exponents; None if there are none."""
    parts = []
    low, high = bounds.low, bounds.high
    if low is None or low < 0:
        mirrored = Bounds(
            0 if high is None or high >= 0 else -high,
            None if low is None else -low,
            (high is None or high >= 0) or bounds.below_high,
            bounds.above_low,
        )
        if below := _positive(mirrored):
            parts.append(f'"-" ({below})')
    if high is None or high >= 0:
        positive = bounds if low is not None and low >= 0 else replace(bounds, low=0, above_low=False)
        if above := _positive(positive):
            parts.append(above)
    return " | ".join(parts) or None


def _positive(bounds: Bounds) -> str | None:
    """The same of bounds of which none is negative."""
    low, high = bounds.low, 10**MOST_DIGITS if bounds.high is None else bounds.high
    parts = []
    first = low + 1 if bounds.above_low else low
    if first <= high - 1:
        parts.append(f"({_counting(first, high - 1)}) ({FRACTION})?")
    if bounds.above_low and low < high:
        parts.append(f'"{low}" {ABOVE}')
    if bounds.high is not None and not bounds.below_high and (high > low or not bounds.above_low) and high >= low:
        parts.append(f'"{high}" ({NOTHING})?')
    return " | ".join(parts) or None


def _counting(low: int, high: int) -> str:
    """The integers from ``low`` to ``high``, none negative, ``low`` not above ``high``."""
    parts = []
    for digits in range(len(str(low)), len(str(high)) + 1):
        least, most = max(low, 10 ** (digits - 1) if digits > 1 else 0), min(high, 10**digits - 1)
        parts += _same_length(str(least), str(most))
    return " | ".join(parts)


def _same_length(low: str, high: str) -> list[str]:
    """The numbers from ``low`` to ``high``, which have equally many digits."""
    if low == high:
        return [f'"{low}"']
    shared = next(i for i in range(len(low)) if low[i] != high[i])
    begin = f'"{low[:shared]}" ' if shared else ""
    rest = len(low) - shared - 1
    if rest == 0:
        return [f"{begin}[{low[-1]}-{high[-1]}]"]
    low, high = low[shared:], high[shared:]
    first, last = int(low[0]), int(high[0])
    parts = []
    if low[1:] != "0" * rest:
        parts.append(f'"{first}" ({" | ".join(_same_length(low[1:], "9" * rest))})')
        first += 1
    ending = None
    if high[1:] != "9" * rest:
        ending = f'"{last}" ({" | ".join(_same_length("0" * rest, high[1:]))})'
        last -= 1
    if first <= last:
        parts.append(f"[{first}-{last}] [0-9]{{{rest}}}")
    return [f"{begin}({part})" for part in (*parts, *([ending] if ending else []))]
