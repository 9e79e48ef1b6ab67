"""Answers to problems as trees, and how good heads are at choosing between what the answers went on with.

The base is frozen, so what an answer is worth does not depend on the heads; they decide only how likely it is. Once
answers are drawn, what an answer is expected to be worth can be told without another draw. With V of an answer's end
its reward, pi the distribution that decoding draws from (``hard_top_p``), s a beginning and a the tokens that are known
to have followed it,

    rho(a|s) = pi(a|s) / (sum over known a' of pi(a'|s))        V(s) = sum over known a of rho(a|s) V(s, a)

which takes what was never drawn to be worth as much as what was. Its derivative by the heads is a policy gradient
without the noise of drawing, in which every token that is known has a say, not only those drawn this time, and whose
baseline is the value of the beginning itself:

    dV(root) = sum over edges (s, a) of w(s, a) dlog pi(a|s)    w(s, a) = reach(s) rho(a|s) (V(s, a) - V(s))

with reach(s) the product of rho on the way. Where only one token is known, or all are worth the same, heads are left as
they are. (Counting what was never drawn as wrong, instead, teaches them to be greedy even where every word would do.)

Answers that begin alike share edges; an edge is a token behind a beginning. Behind a token from which no right answer
is known all is worth 0, so that wrong answers are kept up to the token with which they leave the right ones.
"""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from torch import Tensor

from autodeco.errors import InputError
from autodeco.runs.atomic import replacing

Tokens = tuple[int, ...]
ROOT = -1  # the edge before a first token


@dataclass(frozen=True)
class Edges:
    """Edges of some problems, [n] each, every edge behind the one before it, and the states between them."""

    hidden: Tensor  # [states, H] float16
    token: Tensor
    parent: Tensor  # place among these edges, or ROOT
    problem: Tensor  # place among the problems asked for
    state: Tensor  # that of the beginning, which edges that begin alike have in common
    reward: Tensor  # of an answer that ends here, else 0
    depth: np.ndarray

    def parted(self) -> Tensor:
        """Return the places of edges that are not the only ones behind their beginning: where heads have a choice."""
        return (torch.bincount(self.state)[self.state] > 1).nonzero().squeeze(-1)


class AnswerTrees:
    """The known answers to problems, by index."""

    def __init__(self, hidden_size: int):
        self._hidden_size = hidden_size
        self._answers: dict[int, dict[Tokens, float]] = defaultdict(dict)  # rewards
        self._states: dict[int, dict[Tokens, np.ndarray]] = defaultdict(dict)  # [H] float16 by beginning
        self._built: dict[int, list[tuple[Tokens, float]]] = {}

    def right(self, problem: int) -> int:
        """Return how many right answers to ``problem`` are known."""
        return sum(reward > 0 for reward in self._answers.get(problem, {}).values())

    def states(self) -> int:
        """Return how many hidden states are kept."""
        return sum(map(len, self._states.values()))

    def missing(self, problem: int, answers: Mapping[Tokens, float]) -> list[Tokens]:
        """Return an edge behind each beginning of the right ones of ``answers`` whose state is not known."""
        known = self._states.get(problem, {})
        right = (tokens for tokens, reward in answers.items() if reward > 0)
        wanted = {
            tokens[:t]: tokens[: t + 1] for tokens in right for t in range(len(tokens)) if tokens[:t] not in known
        }
        return sorted(wanted.values())

    def add(self, part: dict[str, np.ndarray]) -> None:
        """Add answers and states, as ``part_of`` gives them."""
        for problem, tokens, reward in zip(*_columns(part, "answer"), part["reward"].tolist(), strict=True):
            self._answers[problem][tokens] = reward
            self._built.pop(problem, None)
        for problem, edge, hidden in zip(*_columns(part, "state"), part["hidden"], strict=True):
            self._states[problem][edge[:-1]] = hidden

    def _edges_of(self, problem: int) -> list[tuple[Tokens, float]]:
        """Return (edge, reward of an answer that ends with it) of ``problem``, each behind the one before it."""
        if problem not in self._built:
            answers = self._answers.get(problem, {})
            edges = {
                tokens[: t + 1]: reward * (t + 1 == len(tokens))
                for tokens, reward in answers.items()
                for t in range(len(tokens))
                if reward > 0
            }
            inside = set(edges)
            for tokens, reward in answers.items() if inside else ():
                if reward == 0:
                    exit = next((tokens[: t + 1] for t in range(len(tokens)) if tokens[: t + 1] not in inside), None)
                    edges |= {exit: 0.0} if exit else {}
            self._built[problem] = sorted(edges.items(), key=lambda item: (len(item[0]), item[0]))
        return self._built[problem]

    def edges(self, problems: Sequence[int], device: str) -> Edges:
        """Return the edges of ``problems``."""
        token, parent, owner, reward, state, hidden, depth = [], [], [], [], [], [], []
        for place, problem in enumerate(problems):
            places, states = {(): ROOT}, {}
            for edge, worth in self._edges_of(problem):
                if edge[:-1] not in states:
                    states[edge[:-1]] = len(hidden)
                    hidden.append(self._states[problem][edge[:-1]])
                places[edge] = len(token)
                token.append(edge[-1])
                parent.append(places[edge[:-1]])
                owner.append(place)
                reward.append(worth)
                state.append(states[edge[:-1]])
                depth.append(len(edge) - 1)
        hidden = np.stack(hidden) if hidden else np.zeros((0, self._hidden_size), np.float16)
        columns = (torch.tensor(each, dtype=torch.long, device=device) for each in (token, parent, owner, state))
        rewards = torch.tensor(reward, dtype=torch.float32, device=device)
        return Edges(torch.from_numpy(hidden).to(device), *columns, rewards, np.array(depth, np.int64))


def part_of(
    answers: Sequence[tuple[int, Tokens, float]], states: Sequence[tuple[int, Tokens]], hidden: np.ndarray
) -> dict[str, np.ndarray]:
    """Return what ``AnswerTrees.add`` takes: ``answers`` with problem and reward, and ``hidden`` [m, H] before the last
    tokens of the edges ``states``, with their problems."""
    return {
        "answer_problem": np.array([problem for problem, _, _ in answers], np.int32),
        "answer_length": np.array([len(tokens) for _, tokens, _ in answers], np.int32),
        "answer_tokens": np.array([token for _, tokens, _ in answers for token in tokens], np.int32),
        "reward": np.array([reward for _, _, reward in answers], np.float32),
        "state_problem": np.array([problem for problem, _ in states], np.int32),
        "state_length": np.array([len(edge) for _, edge in states], np.int32),
        "state_tokens": np.array([token for _, edge in states for token in edge], np.int32),
        "hidden": hidden.astype(np.float16),
    }


def write_part(path: Path, part: dict[str, np.ndarray]) -> None:
    """Write answers and states to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        beside.write_bytes(save(part))


def read_part(path: str | os.PathLike, hidden_size: int) -> dict[str, np.ndarray]:
    """Read answers and states; raises InputError for a file that ``write_part`` did not write."""
    try:
        part = load_file(path)
        for kind, beside in (("answer", part["reward"]), ("state", part["hidden"])):
            lengths, tokens = part[f"{kind}_length"], part[f"{kind}_tokens"]
            n = len(part[f"{kind}_problem"])
            whole = len(lengths) == len(beside) == n and tokens.ndim == 1 and lengths.sum() == len(tokens)
            if not whole or (n and lengths.min() < 1):
                raise ValueError("its arrays do not belong together")
        if part["hidden"].shape[1:] != (hidden_size,):
            raise ValueError(f"its hidden states are not {hidden_size} wide")
        return part
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not readable ({error}); remove it, and its answers are drawn again") from None


@dataclass(frozen=True)
class Values:
    """What heads make of edges."""

    expected: Tensor  # [problems], V(root): the reward to expect
    weights: Tensor  # [n], w: derivatives of the sum of ``expected`` by log pi
    reach: Tensor  # [n], how likely decoding comes to the beginning before each edge


def values(log_p: Tensor, edges: Edges, problems: int) -> Values:
    """Return what edges with ``log_p`` [n] are worth; of edges without others behind the same beginning any will do."""
    largest = log_p.new_full((len(edges.hidden),), -torch.inf).scatter_reduce(0, edges.state, log_p, "amax")
    e = torch.exp(log_p - largest[edges.state])
    rho = e / torch.zeros_like(largest).index_add(0, edges.state, e)[edges.state]
    levels = _levels(edges)
    worth = edges.reward.to(rho.dtype).clone()
    for places in reversed(levels[1:]):
        worth.index_add_(0, edges.parent[places], rho[places] * worth[places])
    reach = torch.ones_like(rho)
    for places in levels[1:]:
        before = edges.parent[places]
        reach[places] = reach[before] * rho[before]
    of_state = torch.zeros_like(largest).index_add(0, edges.state, rho * worth)
    first = edges.parent == ROOT
    expected = worth.new_zeros(problems).index_add(0, edges.problem[first], (rho * worth)[first])
    return Values(expected, reach * rho * (worth - of_state[edges.state]), reach)


def _levels(edges: Edges) -> list[Tensor]:
    """Return the places of edges by their depth."""
    deepest = int(edges.depth.max()) if len(edges.depth) else -1
    where = (np.flatnonzero(edges.depth == depth) for depth in range(deepest + 1))
    return [torch.from_numpy(places).to(edges.token.device) for places in where]


def _columns(part: dict[str, np.ndarray], kind: str) -> tuple[list[int], list[Tokens]]:
    """Return the problems of answers or states, and their tokens."""
    ends = np.cumsum(part[f"{kind}_length"]).tolist()
    tokens = part[f"{kind}_tokens"].tolist()
    begins = [0, *ends[:-1]] if ends else []
    return part[f"{kind}_problem"].tolist(), [tuple(tokens[a:b]) for a, b in zip(begins, ends, strict=True)]
