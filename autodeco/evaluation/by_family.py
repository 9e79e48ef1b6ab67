"""Rates by the families that problems name, where a file of problems holds several."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def by_family(rates: Mapping[str, np.ndarray], problems: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the number of problems of each ``family``, and the mean of each of ``rates`` [problems] over them, by
    name; nothing unless there are several."""
    places: dict[str, list[int]] = {}
    for i, problem in enumerate(problems):
        places.setdefault(str(problem.get("family", "")), []).append(i)
    if len(places) < 2:
        return {}
    return {
        family: {"problems": len(here), "pass_at_1": {name: float(of[here].mean()) for name, of in rates.items()}}
        for family, here in sorted(places.items())
    }
