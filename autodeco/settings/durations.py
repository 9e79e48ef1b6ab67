"""Lengths of time as people write them: 30m, 2h, 1h30m."""

import re

from autodeco.errors import InputError

MINUTE, HOUR = 60, 3600


def parse_duration(name: str, text: str) -> float:
    """Return the seconds that ``text`` says; raises InputError, which calls it ``name``, unless they are some."""
    found = re.fullmatch(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?", text.replace(" ", ""))
    hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    total = hours * HOUR + minutes * MINUTE + seconds
    if not total:
        raise InputError(f"{name} {text!r}: is no length of time; give one as 30m, 2h or 1h30m")
    return float(total)


def duration(seconds: float) -> str:
    """Return ``seconds`` in the two units that say enough of them."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / MINUTE)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{round(hours / 24)} days"
