"""The target that training maximises: pass@1, pass@k or both, as functions of the expected reward of an answer.

With n answers to a problem, sampled independently with rewards R, and V their expected reward, the targets are

    pass@1    V                     derivative  dV
    pass@k    1 - (1 - V)^k         derivative  k (1 - V)^(k - 1) dV

and a weighted sum of both. An estimator of dV from answer i is (R_i - b) dlog pi(answer i) with any baseline b that
does not depend on answer i (``baselines``). The share of sets of k - 1 of the others in which no answer is
right estimates (1 - V)^(k - 1) without bias. It does not depend on answer i, so the product has no bias either.
"""

import math
import re
from dataclasses import dataclass

import numpy as np

from autodeco.errors import InputError

MOST_WEIGHT = 1000


@dataclass(frozen=True)
class Target:
    """The target ``pass_at_1`` x pass@1 + ``pass_at_k`` x pass@k."""

    pass_at_1: float = 1.0
    pass_at_k: float = 0.0
    k: int = 1

    def value(self, v: np.ndarray) -> np.ndarray:
        """Return the target for expected rewards ``v``."""
        return self.pass_at_1 * v + self.pass_at_k * (1 - (1 - v) ** self.k)

    def derivative(self, v: np.ndarray) -> np.ndarray:
        """Return the derivative of ``value`` by ``v``."""
        return self.pass_at_1 + self.pass_at_k * self.k * (1 - v) ** (self.k - 1)

    def slopes(self, rewards: np.ndarray) -> np.ndarray:
        """Return estimates of the derivative [problems, n], each without the answer itself, from ``rewards``."""
        n = rewards.shape[1]
        if self.pass_at_k and self.k > n:
            raise InputError(f"pass@{self.k} wants at least {self.k} answers to a problem; there are {n}")
        wrong = (1 - rewards).sum(1, keepdims=True) - (1 - rewards)  # of the others
        none_right = _falling(wrong, self.k - 1) / math.perm(n - 1, self.k - 1)
        return self.pass_at_1 + self.pass_at_k * self.k * none_right

    def estimate(self, rewards: np.ndarray) -> np.ndarray:
        """Return unbiased estimates of the target [problems] from ``rewards`` [problems, n] of independent answers.

        With fewer answers than pass@k needs (greedy decoding has one), all further ones are assumed to be like them.
        """
        n = rewards.shape[1]
        k = min(self.k, n)
        none_right = _falling((1 - rewards).sum(1), k) / math.perm(n, k)
        return self.pass_at_1 * rewards.mean(1) + self.pass_at_k * (1 - none_right)

    def __str__(self) -> str:
        parts = ((self.pass_at_1, "pass@1"), (self.pass_at_k, f"pass@{self.k}"))
        return "+".join(name if weight == 1 else f"{weight:g}*{name}" for weight, name in parts if weight)


def parse_target(text: str) -> Target:
    """Return the target that ``text`` names: pass@1, pass@8, or a sum such as pass@1+0.5*pass@8."""
    weights = {}
    for term in text.split("+"):
        found = re.fullmatch(r"\s*(?:(\d+(?:\.\d+)?)\s*\*\s*)?pass@([1-9]\d*)\s*", term)
        if not found or int(found[2]) in weights:
            raise InputError(f"target: {text!r} is none; give pass@1, pass@K or a sum such as pass@1+0.5*pass@8")
        weights[int(found[2])] = float(found[1] or 1)
    if any(weight > MOST_WEIGHT for weight in weights.values()):
        raise InputError(f"target: {text!r} has a weight above {MOST_WEIGHT}; give smaller ones, whose ratio counts")
    ks = [k for k in weights if k > 1]
    if len(ks) > 1 or not any(weights.values()):
        raise InputError(f"target: {text!r} names more than one K above 1, or no weight; give one")
    k = ks[0] if ks else 1
    return Target(weights.get(1, 0.0), weights[k] if ks else 0.0, k)


def _falling(x: np.ndarray, k: int) -> np.ndarray:
    """Return x (x - 1) ... (x - k + 1), with 0 for factors below 0: C(x, k) k! for counts."""
    return np.prod([np.maximum(x - i, 0) for i in range(k)], axis=0) if k else np.ones_like(x)
