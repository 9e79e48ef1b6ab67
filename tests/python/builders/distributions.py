"""What decoding draws from, computed plainly in float64."""

import numpy as np


def exact(logits: np.ndarray, temperature: float, top_p: float) -> np.ndarray:
    """Probability of each token in the smallest prefix, by probability, whose mass reaches top_p; 0 outside."""
    z = logits.astype(np.float64) / temperature
    p = np.exp(z - z.max())
    p /= p.sum()
    order = np.argsort(-logits, kind="stable")
    # a mass that equals top_p but for the rounding of either reaches it
    kept = int(np.searchsorted(np.cumsum(p[order]), top_p - 6e-8)) + 1 if top_p < 1 else len(p)
    q = np.zeros_like(p)
    q[order[: max(kept, 1)]] = p[order[: max(kept, 1)]]
    return q / q.sum()
