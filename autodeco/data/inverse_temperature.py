"""The inverse of temperatures, in which the log-probability of a token is concave, and its mean over tokens."""

import numpy as np
import numpy.typing as npt

LEAST_TEMPERATURE = 0.01


def inverse_mean(temperatures: npt.ArrayLike) -> float:
    """Return the mean of 1/T over ``temperatures`` [n], where T counts as ``LEAST_TEMPERATURE`` at least.

    There a logit that is 0.5 below the highest has a probability of e^-50: the token is drawn greedily already, and a
    smaller T would draw the same one. It would only count for more: at T 1e-4, one greedy token in a hundred makes the
    mean greedy for all, which is a weaker rival of heads than their mean should be.
    """
    return float(np.mean(1.0 / np.maximum(np.asarray(temperatures, np.float64), LEAST_TEMPERATURE)))
