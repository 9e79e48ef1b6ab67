"""Text in a terminal, each token coloured by a value between 0 and a maximum."""

import functools
import re

from rich.color import Color, ColorSystem
from rich.console import COLOR_SYSTEMS, Console
from rich.style import Style
from rich.text import Text

# cold to hot, readable on dark and on light backgrounds
_STOPS = [(59, 107, 214), (38, 166, 154), (154, 176, 40), (240, 150, 30), (226, 58, 58)]

#: the largest value of each, which gets the hottest colour
SCALES = {"temperature": 2.0, "top-p": 1.0}


def color_of(value: float, maximum: float) -> Color:
    """Colour of ``value`` on a scale from 0 (cold) to ``maximum`` (hot)."""
    at = min(max(value / maximum, 0.0), 1.0) * (len(_STOPS) - 1)
    low = min(int(at), len(_STOPS) - 2)
    share = at - low
    mixed = [round(a + (b - a) * share) for a, b in zip(_STOPS[low], _STOPS[low + 1], strict=True)]
    return Color.from_rgb(*mixed)


def colored(text: str, value: float, maximum: float) -> Text:
    """``text`` in the colour of ``value``."""
    return Text(text, style=Style(color=color_of(value, maximum)))


@functools.cache
def _color_system() -> ColorSystem | None:
    return COLOR_SYSTEMS.get(Console().color_system or "")


def in_color(text: str, value: float, maximum: float) -> str:
    """``text`` in the colour of ``value`` as standard output shows colours, if it does; every letter of it stays."""
    style = Style(color=color_of(value, maximum))
    # line by line, so that no colour runs on over the end of one
    return "".join(style.render(line, color_system=_color_system()) for line in re.split("(\n)", text))


def legend(what: str) -> Text:
    """A line that shows the scale of "temperature" or "top-p"."""
    maximum = SCALES[what]
    line = Text(f"{what}: ")
    for step in range(9):
        value = maximum * step / 8
        line.append_text(colored(f"{value:.2g} ", value, maximum))
    return line
