"""The values in a server's answers, and when two answers have the same."""

import numpy as np

HOST = {"backend_sampling": False}  # in a request: heads on the host, not in the graph


def values(answer: dict) -> dict:
    """What the heads predicted for an answer, in which nothing is unknown."""
    found = (answer["choices"][0] if "choices" in answer else answer)["autodeco"]
    assert not any(None in column for column in found.values())
    return found


def assert_same(found: dict, wanted: dict, atol: float = 1e-4) -> None:
    assert found["token"] == wanted["token"]
    for name in ("temperature", "top_p", "prob"):
        np.testing.assert_allclose(found[name], wanted[name], atol=atol)
