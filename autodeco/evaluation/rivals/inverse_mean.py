"""Heads held at the mean of 1/T, in which the log-probability of a token is concave, and at the mean of top-p."""

import numpy as np

from autodeco.data.inverse_temperature import inverse_mean
from autodeco.evaluation.methods import Method, held

NAME = "mean shift in 1/T"


def method(rows: list[dict]) -> Method:
    """The method, by what heads predicted in the answers ``rows``."""
    temperatures = np.concatenate([row["temperature"] for row in rows])
    top_ps = np.concatenate([row["top_p"] for row in rows])
    return held(NAME, 1.0 / inverse_mean(temperatures), float(top_ps.mean()))
