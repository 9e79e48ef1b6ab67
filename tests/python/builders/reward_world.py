"""A world in which the value of any heads can be computed: answers of 50 places, each of a kind, on which nothing else
depends.

A token of a place keeps the answer right with a known probability, and an answer's score is the product of these, which
``reward_score`` reads from its text. The expected score of heads is then the product over places of sum_a pi(a)
keep(a), and the best heads are the best at each place by itself. The kinds are those of real answers:

    sure       the likeliest token is right and far above the others
    digit      the likeliest token is right, others are likely enough to be drawn
    wording    the three likeliest tokens are all right
    misranked  the likeliest token is often wrong, the next two are right

Every token behind the third breaks the answer, so a temperature that is too high loses everywhere.

Problems from ``ELSEWHERE`` on are those of another task. Their places are digits, but look much like the misranked ones
of the others: what heads learn there does not hold here.
"""

import functools

import numpy as np
import torch

from autodeco.base.identity import ModelIdentity
from autodeco.rewards.measuring import Static
from autodeco.rewards.policy import Sampled
from autodeco.training.processes import Processes

KINDS = ("sure", "digit", "wording", "misranked")
SHARES = (0.6, 0.2, 0.12, 0.08)
LENGTH, VOCABULARY, HIDDEN = 50, 40, 24
BROKEN = 0.05  # what a token behind the third leaves
ELSEWHERE = 100_000
# of the three likeliest tokens, by kind: lowest and highest logit, and what is kept; the others lie around -6
LOGITS = torch.tensor(
    [
        [[3.0, 6.0], [-4.0, -2.0], [-5.0, -3.0]],
        [[0.0, 1.0], [-2.0, 0.0], [-3.0, -1.0]],
        [[-0.5, 0.5], [-0.5, 0.5], [-1.0, 0.0]],
        [[0.3, 0.8], [-0.3, 0.3], [-0.5, 0.0]],
    ]
)
KEEPS = torch.tensor([[1.0, 0.6, 0.5], [1.0, 0.7, 0.6], [1.0, 1.0, 1.0], [0.7, 1.0, 1.0]])
TEMPERATURES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.3, 1.6, 2.0)
TOP_PS = (0.3, 0.5, 0.7, 0.9, 0.95, 0.99, 1.0)


@functools.cache
def place(problem: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (kind [L], hidden [L, H], logits [L, V], keep [L, V]) of the places of an answer to ``problem``."""
    generator = torch.Generator().manual_seed(1000 + problem)
    kind = torch.multinomial(torch.tensor(SHARES), LENGTH, True, generator=generator)
    if elsewhere := problem >= ELSEWHERE:
        kind = torch.where(kind == KINDS.index("sure"), kind, KINDS.index("digit"))
    ways = torch.randn(len(KINDS) + 1, HIDDEN, generator=torch.Generator().manual_seed(1))
    looks = torch.where(kind == KINDS.index("digit"), KINDS.index("misranked"), kind) if elsewhere else kind
    hidden = ways[looks] + elsewhere * ways[-1] + 0.5 * torch.randn(LENGTH, HIDDEN, generator=generator)
    logits = 0.7 * torch.randn(LENGTH, VOCABULARY, generator=generator) - 6
    low, high = LOGITS[kind].unbind(-1)
    logits[:, :3] = low + (high - low) * torch.rand(LENGTH, 3, generator=generator)
    keep = torch.full((LENGTH, VOCABULARY), BROKEN)
    keep[:, :3] = KEEPS[kind]
    return kind, hidden, logits, keep


def nucleus(logits: torch.Tensor, temperature: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Return the probabilities [n, V] that decoding draws with."""
    z, order = logits.sort(dim=-1, descending=True, stable=True)
    p = torch.softmax(z / temperature.clamp(min=1e-3).unsqueeze(-1), -1)
    p = p * (p.cumsum(-1) - p < top_p.clamp(min=1e-6).unsqueeze(-1))
    p = p / p.sum(-1, keepdim=True)
    return torch.zeros_like(p).scatter(-1, order, p)


@torch.no_grad()
def value(predictor, problems: range) -> float:
    """Return the expected score of ``predictor`` over ``problems``, exactly."""
    found = []
    for problem in problems:
        _, hidden, logits, keep = place(problem)
        pi = nucleus(logits, *predictor(hidden, logits))
        found.append((pi * keep).sum(-1).log().sum().exp().item())
    return float(np.mean(found))


def best_value(problems: range) -> float:
    """Return the expected score of the best temperature and top-p of a grid at each place."""
    found = []
    for problem in problems:
        _, hidden, logits, keep = place(problem)
        settings = (Static(t, p)(hidden, logits) for t in TEMPERATURES for p in TOP_PS)
        each = torch.stack([(nucleus(logits, *setting) * keep).sum(-1) for setting in settings])
        found.append(each.amax(0).log().sum().exp().item())
    return float(np.mean(found))


def draws(logits, temperature, top_p, n: int, blur: float, generator: torch.Generator) -> torch.Tensor:
    """Return tokens [L, n]."""
    if not blur:
        return torch.multinomial(nucleus(logits, temperature, top_p), n, True, generator=generator)
    logits, temperature, top_p = (each.repeat_interleave(n, 0) for each in (logits, temperature, top_p))
    noise = torch.logit(torch.rand(len(top_p), generator=generator, dtype=torch.float64), eps=1e-9)
    top_p = torch.sigmoid(torch.logit(top_p.double(), eps=1e-9) + blur * noise).float()
    return torch.multinomial(nucleus(logits, temperature, top_p), 1, generator=generator).reshape(-1, n)


class WorldPolicy:
    """The world as a frozen model."""

    device, context = "cpu", None
    identity = ModelIdentity("world", "world-fingerprint", "world", "world", HIDDEN, VOCABULARY)

    def __init__(self):
        self.processes = Processes()
        self.rank = self.processes.rank
        self._hidden = self._all_logits = torch.zeros(0, HIDDEN)

    def prompt_ids(self, prompt, tools=None):
        return [int(prompt)]

    @torch.no_grad()
    def sample(self, prompts, n, heads, seed, keep_states=True, ended=None, numbers=None, max_tokens=None, blur=0.0):
        if not prompts:
            return []
        places = [place(prompt[0]) for prompt in prompts]
        hidden, logits = (torch.cat([each[i] for each in places]) for i in (1, 2))
        temperature, top_p = heads(hidden, logits)
        drawn = []
        of_problems = zip(*(each.split(LENGTH) for each in (logits, temperature, top_p)), strict=True)
        for number, problem in zip(numbers or range(len(prompts)), of_problems, strict=True):
            generator = torch.Generator().manual_seed((seed << 20) + number)
            drawn.append(draws(*problem, n, blur, generator))
        drawn = torch.cat(drawn)
        largest = torch.softmax(logits, -1).amax(-1).numpy()
        if keep_states:
            self._hidden, self._all_logits = hidden, logits
        answers = []
        for index in range(len(prompts)):
            rows = np.arange(index * LENGTH, (index + 1) * LENGTH)
            columns = (temperature[rows].numpy(), top_p[rows].numpy(), largest[rows])
            group = []
            for sample in range(n):
                tokens = drawn[rows, sample].numpy().astype(np.int32)
                kept = places[index][3][np.arange(LENGTH), tokens].tolist()
                text = " ".join(f"{token}:{keep:g}" for token, keep in zip(tokens.tolist(), kept, strict=True))
                group.append(Sampled(tokens, text, True, *columns, rows if keep_states else rows[:0]))
                if ended:
                    ended(index, sample, group[-1])
            answers.append(group)
        return answers

    def states(self, rows):
        return self._hidden[rows]

    def logits(self, hidden):
        # the world's logits are no matrix times its states: find the rows again
        rows = torch.cdist(hidden, self._hidden).argmin(-1)
        return self._all_logits[rows]

    def token_texts(self, tokens):
        return [f" {token}" for token in tokens]
