"""From sampled answers to the decisions that heads learn from."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from autodeco.errors import InputError
from autodeco.rewards.baselines import prefix_baselines
from autodeco.rewards.distributions import Distributions, compress, token_atoms
from autodeco.rewards.objective import Decisions
from autodeco.rewards.policy import Policy, Sampled
from autodeco.rewards.targets import Target

SURE = 0.95  # of the likeliest token at T 1: above it a temperature below 1 changes next to nothing
SURE_SHARE = 0.03  # of such positions are kept, to price what would leak there
# Of logits at a time: a CPU is quicker with what its caches hold.
CHUNK_BYTES, CPU_CHUNK_BYTES = 2**30, 2**24


def decisions(
    policy: Policy,
    answers: Sequence[Sequence[Sampled]],
    rewards: np.ndarray,
    target: Target,
    generators: Iterable[np.random.Generator],
    counts: np.ndarray | None = None,
) -> Decisions:
    """Return the decisions of ``answers`` with ``rewards`` [problems, n], on the policy's device.

    The answers are those of the policy's last ``sample``. Their states are read once and compressed. Each problem's of
    ``generators`` chooses which sure positions of its answers are kept. A token's advantage is the slope of ``target``
    times the answer's reward less the baseline of its prefix. ``counts`` [problems] is what each problem counts for
    (default: 1).
    """
    slopes = target.slopes(rewards)
    if counts is not None:
        slopes = slopes * counts[:, None]
    baselines = np.concatenate(
        [
            each
            for group, row in zip(answers, rewards, strict=True)
            for each in prefix_baselines([answer.tokens for answer in group], row)
        ]
    )
    flat = [answer for group in answers for answer in group]
    columns = {
        name: np.concatenate([getattr(answer, name) for answer in flat])
        for name in ("tokens", "states", "temperature", "top_p", "top_probability")
    }
    drawn = [
        generator.random(sum(len(answer.tokens) for answer in group))
        for generator, group in zip(generators, answers, strict=True)
    ]
    chosen, uncertain = kept_positions(columns["top_probability"], np.concatenate(drawn))
    answer = np.repeat(np.arange(len(flat)), [len(answer.tokens) for answer in flat])[chosen]

    def column(values: np.ndarray, dtype=torch.float32) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(values)).to(policy.device, dtype)

    slope, baseline = slopes.reshape(-1)[answer], baselines[chosen]
    # the token sampled at a sure position says nothing about the heads
    gains = np.where(uncertain, slope * (rewards.reshape(-1)[answer] - baseline), 0.0)
    tokens = column(columns["tokens"][chosen], torch.long)
    hidden, distributions, atoms = read_states(policy, columns["states"][chosen], tokens)
    return Decisions(
        hidden,
        distributions,
        atoms,
        column(columns["temperature"][chosen]),
        column(columns["top_p"][chosen]),
        column(gains),
        column(slope * baseline),
        column(position_weights(uncertain)),
    )


def kept_positions(top_probability: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices [k] of the positions to keep, and which of them [k] are uncertain.

    All uncertain ones are kept, of the sure ones a sample by the random numbers ``drawn``, all [positions].
    """
    uncertain = top_probability < SURE
    chosen = np.flatnonzero(uncertain | (drawn < SURE_SHARE))
    return chosen, uncertain[chosen]


def position_weights(uncertain: np.ndarray) -> np.ndarray:
    """Return how many positions each kept one stands for: a sure one also for those left out."""
    return np.where(uncertain, 1.0, 1 / SURE_SHARE)


@torch.no_grad()
def read_states(
    policy: Policy, states: np.ndarray, tokens: torch.Tensor
) -> tuple[torch.Tensor, Distributions, torch.Tensor]:
    """Return hidden states [n, H], compressed distributions and the atoms of ``tokens`` [n].

    A state that several of ``states`` [n] name, as answers do that begin alike, is read once.
    """
    chunk = CPU_CHUNK_BYTES if torch.device(policy.device).type == "cpu" else CHUNK_BYTES
    size = max(64, chunk // (4 * policy.identity.vocab_size))
    different, place = np.unique(states, return_inverse=True)
    by_state = np.argsort(place, kind="stable")
    number = max(1, -(-len(different) // size))  # no states are nevertheless of a shape
    ends = np.searchsorted(place[by_state], size * np.arange(number + 1))
    of_state = torch.as_tensor(place).to(policy.device)
    parts, gap = [], torch.zeros(len(states), device=policy.device)
    for part in range(number):
        hidden = policy.states(different[part * size : (part + 1) * size])
        logits = policy.logits(hidden)
        if not logits.isfinite().all():
            raise InputError(
                f"{policy.identity.name}: a hidden state or its logits are beyond the range of their type; use another "
                "quantization or --device cpu, or --dtype float32 with transformers"
            )
        found = compress(logits)
        parts.append((hidden, found.gaps, found.counts))
        here = torch.as_tensor(by_state[ends[part] : ends[part + 1]]).to(policy.device)
        rows = of_state[here] - part * size
        gap[here] = logits.amax(-1)[rows] - logits[rows, tokens[here]]
    hidden, gaps, counts = (torch.cat(part)[of_state] for part in zip(*parts, strict=True))
    distributions = Distributions(gaps, counts, policy.identity.vocab_size)
    return hidden, distributions, token_atoms(distributions, gap)
