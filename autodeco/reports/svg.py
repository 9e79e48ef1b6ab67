"""Figures of matplotlib as SVG text."""

import io

from matplotlib import rc_context
from matplotlib.figure import Figure

# the same figure gives the same bytes; text stays text
STYLE = {"svg.hashsalt": "autodeco", "svg.fonttype": "none"}


def svg_of(figure: Figure) -> str:
    """Return ``figure`` as an ``<svg>`` element; the settings of matplotlib stay as they are."""
    file = io.StringIO()
    with rc_context(STYLE):
        figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]
