"""Decisions are read from the states of sampled answers, each state once."""

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from autodeco.rewards import decisions  # noqa: E402

VOCABULARY, HIDDEN = 300, 8


class Rows:
    """A policy that knows its states, and counts how many are read."""

    device, identity = "cpu", SimpleNamespace(vocab_size=VOCABULARY, name="rows")

    def __init__(self, states: int):
        random = np.random.default_rng(0)
        self.hidden = torch.as_tensor(random.normal(size=(states, HIDDEN)), dtype=torch.float32)
        self._matrix = torch.as_tensor(random.normal(size=(HIDDEN, VOCABULARY)), dtype=torch.float32)
        self.read = 0

    def states(self, rows: np.ndarray) -> torch.Tensor:
        self.read += len(rows)
        return self.hidden[rows]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden @ self._matrix


@pytest.mark.parametrize("size", [64, 10_000])
def test_a_state_that_answers_share_is_read_once(monkeypatch, size):
    """In parts of ``size`` states or in one, every position gets what reading it alone gives."""
    monkeypatch.setattr(decisions, "CPU_CHUNK_BYTES", 4 * VOCABULARY * size)
    random, policy = np.random.default_rng(1), Rows(200)
    states = random.integers(0, 200, 900)
    tokens = torch.as_tensor(random.integers(0, VOCABULARY, 900))
    hidden, found, atoms = decisions.read_states(policy, states, tokens)
    assert policy.read == len(set(states.tolist())) < 200
    assert torch.equal(hidden, policy.hidden[states])
    for index in range(0, 900, 50):
        alone = decisions.read_states(policy, states[index : index + 1], tokens[index : index + 1])
        torch.testing.assert_close(found.gaps[index], alone[1].gaps[0], atol=2e-3, rtol=1e-3)
        assert torch.equal(found.counts[index], alone[1].counts[0])
        assert atoms[index] == alone[2][0]


def test_no_states_have_the_shape_of_some():
    hidden, found, atoms = decisions.read_states(Rows(1), np.zeros(0, int), torch.zeros(0, dtype=torch.long))
    assert hidden.shape == (0, HIDDEN)
    assert (len(found), found.gaps.shape[1], len(atoms)) == (0, 192, 0)
