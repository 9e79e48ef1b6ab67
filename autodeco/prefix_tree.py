"""Answers to one problem as a tree: which token, after which beginning, did better than what else followed there.

The policy gradient of an answer's token is its advantage times the gradient of its log-probability. Answers that begin
alike share the states of that beginning, so each (beginning, next token) is scored once, with the sum of the advantages
of all answers that went there; what no advantage is left for is not scored at all.

An advantage is a reward minus a baseline. Any baseline is unbiased that does not depend on the token drawn. The mean of
the *other* answers is one (which is reward - group mean, times N / (N - 1)); the mean of those others that reached the
same beginning is another, and it varies less with what happened before: after a wrong turn, all that follow are wrong,
and no later token is blamed for it. Few others make a noisy mean, so it is drawn towards that of the beginning before:

    b(i, s) = (sum of R_j + PULL * b(i, parent of s)) / (count + PULL)      over the others j != i through s
"""

from collections import defaultdict
from collections.abc import Collection, Sequence

Tokens = tuple[int, ...]
PULL = 2.0


def advantages(answers: Sequence[Tokens], rewards: Sequence[float], baseline: str = "prefix") -> list[list[float]]:
    """Return the advantage of every token of every answer; ``baseline`` is "prefix" or "group". Needs two answers."""
    total, count = sum(rewards), len(rewards)
    sums: dict[Tokens, float] = defaultdict(float)
    counts: dict[Tokens, int] = defaultdict(int)
    for tokens, reward in zip(answers, rewards, strict=True):
        for t in range(len(tokens)):
            sums[tokens[:t]] += reward
            counts[tokens[:t]] += 1
    result = []
    for tokens, reward in zip(answers, rewards, strict=True):
        expected = (total - reward) / (count - 1)
        values = []
        for t in range(len(tokens)):
            if baseline == "prefix" and t > 0:
                others = counts[tokens[:t]] - 1
                expected = (sums[tokens[:t]] - reward + PULL * expected) / (others + PULL)
            values.append(reward - expected)
        result.append(values)
    return result


def edges(answers: Sequence[Tokens], values: Sequence[Sequence[float]]) -> dict[Tokens, float]:
    """Return the sum of ``values`` (one for each token of each answer) by the tokens up to and including that one."""
    sums: dict[Tokens, float] = defaultdict(float)
    for tokens, row in zip(answers, values, strict=True):
        for t, value in enumerate(row):
            sums[tokens[: t + 1]] += value
    return {tokens: value for tokens, value in sums.items() if abs(value) > 1e-9}


def paths(wanted: Collection[Tokens]) -> list[tuple[Tokens, int]]:
    """Return token sequences that visit each edge of ``wanted`` once: (tokens, from which of them on), in an order in
    which neighbours begin alike."""
    ordered = sorted(wanted)
    result, seen = [], ()
    for tokens, following in zip(ordered, [*ordered[1:], ()], strict=True):
        if following[: len(tokens)] == tokens:  # part of a longer one
            continue
        pairs = enumerate(zip(seen, tokens, strict=False))
        shared = next((t for t, (a, b) in pairs if a != b), len(seen))  # neither is the beginning of the other
        first = next(t for t in range(shared, len(tokens)) if tokens[: t + 1] in wanted)
        result.append((tokens, first))
        seen = tokens
    return result
