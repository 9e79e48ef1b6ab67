"""What hidden states tell of commands: how often the best guess from them is right, over a token and over an answer.

Heads see one state at a time, and what follows a command is measured over the tokens of an answer. So a guess is made
of each token's level, by a straight line and by a network of the size of a head, and its mean over each answer compared
with that of the answer without a command. Prompts and wordings are not those that the guess was learned from. Heads
cannot tell more than that.
"""

import numpy as np
import torch
from torch import Tensor, nn

from autodeco.data.control import DIRECTIONS
from autodeco.export.schema import HEAD_WIDTH
from autodeco.heads import Heads
from autodeco.rewards.policy import Policy
from autodeco.runs.seeds import Stream, generator, seed_of
from autodeco.steering.answers import Drawn, drawn
from autodeco.steering.arguments import MeasuringArguments, SteeringArguments
from autodeco.steering.asking import PLAIN, asked_in_measuring
from autodeco.steering.learning import draw
from autodeco.steering.parts import parts
from autodeco.steering.readout import readout

PASSES, TOKENS = 6, 2048  # of the network over all tokens, and of an update
LEAST_UPDATES = 400
RATE, DECAY = 0.001, 0.1
PROMPTS, SHARP = 16, 4.0  # of an update of the network over answers; of its logistic loss
PLACES = ((0, 1), (1, 4), (4, 16), (16, 64))  # of tokens in an answer
SHOWN = (PLAIN, PLAIN, *DIRECTIONS)  # two answers without a command: how far apart are they?


def probe(policy: Policy, heads: Heads, steering: SteeringArguments, measured: MeasuringArguments) -> dict:
    """Return how well levels are told from states of answers that ``policy`` draws with ``heads``, by kind of guess."""
    heads = heads.to(policy.device)
    training, other = parts(steering.validate)
    seen = draw(
        policy,
        heads,
        training.prompts_of_round(steering.prompts, steering.seed, steering.rounds),
        steering,
        steering.rounds,
    )
    asked = asked_in_measuring(other.prompts(measured.held_out_prompts, steering.seed), steering.seed, other)
    flat = [row[variant] for row in asked for variant in SHOWN]
    numbers = [each.group + len(asked) * (i % len(SHOWN) == 1) for i, each in enumerate(flat)]
    groups = policy.sample(
        [policy.prompt_ids(each.prompt) for each in flat],
        1,
        heads,
        seed_of(steering.seed, Stream.HELD_OUT_ANSWERS, 6),
        keep_states=True,
        numbers=numbers,
        max_tokens=steering.max_tokens,
    )
    level = torch.tensor([[row[variant].level for variant in SHOWN] for row in asked])
    return told(seen, drawn(policy, [group[0] for group in groups], level), steering)


def told(seen: Drawn, new: Drawn, steering: SteeringArguments) -> dict:
    """Return how well guesses learned from ``seen`` tell the level of ``new``, whose variants are plain, plain, low and
    high."""
    level = seen.level.flatten()
    target = level[seen.answer]
    weight = (torch.where(level == 0, steering.hold, 1.0) / seen.counts)[seen.answer]
    hidden, other = seen.hidden.float(), new.hidden.float()
    line = readout(hidden, target, weight, steering.ridge)
    network = _network(hidden, target, weight / weight.mean(), other, steering.seed)
    ranked = _ranking_network(seen, steering)
    return {
        "straight line": _right(line(other), new),
        "network": _right(network, new),
        "network, over answers": _right(_each(ranked, other), new),
        "the same, in training": _seen_right(_each(ranked, hidden), seen),
    }


def _network(hidden: Tensor, level: Tensor, weight: Tensor, new: Tensor, seed: int) -> Tensor:
    """Return what a network of a head's size, which learned ``level`` [n] at ``hidden`` [n, H], guesses at ``new``."""
    mlp, optimizer = _begin(hidden, seed)
    random = generator(seed, Stream.UPDATES, 0, 2)
    in_a_pass = -(-len(hidden) // TOKENS)
    passes = max(PASSES, -(-LEAST_UPDATES // in_a_pass))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, passes * in_a_pass)
    for _ in range(passes):
        for part in torch.from_numpy(random.permutation(len(hidden))).to(hidden.device).split(TOKENS):
            guess = mlp(hidden[part]).squeeze(-1)
            _update(optimizer, schedule, ((guess - level[part]).square() * weight[part]).mean())
    return _each(mlp, new)


def _ranking_network(seen: Drawn, steering: SteeringArguments) -> nn.Module:
    """Return a network of a head's size whose means over answers to one prompt are to be in the order of levels."""
    hidden = seen.hidden.float()
    mlp, optimizer = _begin(hidden, steering.seed)
    random = generator(steering.seed, Stream.UPDATES, 0, 3)
    in_a_pass = -(-len(seen.level) // PROMPTS)
    passes = max(PASSES, -(-LEAST_UPDATES // in_a_pass))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, passes * in_a_pass)
    for _ in range(passes):
        for prompts in torch.from_numpy(random.permutation(len(seen.level))).to(hidden.device).split(PROMPTS):
            indices, answer = seen.batch(prompts)
            level = seen.level[prompts]
            level = level[:, : level.shape[1] - steering.quoted]
            sums = hidden.new_zeros(len(prompts) * seen.level.shape[1])
            sums = sums.index_add(0, answer, mlp(hidden[indices]).squeeze(-1))
            means = sums / torch.bincount(answer, minlength=len(sums)).clamp(min=1)
            means = means.view(len(prompts), -1)[:, : level.shape[1]]
            ranked = level.unsqueeze(-2) - level.unsqueeze(-1) > 0
            risen = means.unsqueeze(-2) - means.unsqueeze(-1)
            _update(optimizer, schedule, nn.functional.softplus(-risen[ranked] * SHARP).mean())
    return mlp


def _begin(hidden: Tensor, seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a network that has learned nothing, over states with the mean and deviation of ``hidden``, and what
    updates it."""
    with torch.random.fork_rng([hidden.device] if hidden.is_cuda else []):
        torch.manual_seed(seed)
        layers = nn.Linear(hidden.shape[1], HEAD_WIDTH), nn.ReLU(), nn.Linear(HEAD_WIDTH, 1)
    scaled = _Scaled(hidden.mean(0), hidden.std(0).clamp(min=1e-6))
    mlp = nn.Sequential(scaled, *layers).to(hidden.device)
    return mlp, torch.optim.AdamW(mlp.parameters(), lr=RATE, weight_decay=DECAY)


class _Scaled(nn.Module):
    def __init__(self, mean: Tensor, deviation: Tensor):
        super().__init__()
        self._mean, self._deviation = mean, deviation

    def forward(self, hidden: Tensor) -> Tensor:
        return (hidden - self._mean) / self._deviation


def _update(optimizer, schedule, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()


@torch.no_grad()
def _each(mlp: nn.Module, hidden: Tensor) -> Tensor:
    return torch.cat([mlp(part).squeeze(-1) for part in hidden.split(1 << 15)])


def _seen_right(guess: Tensor, seen: Drawn) -> dict:
    """Return the figures of ``_right`` for the answers of training: the first low and the first high of each prompt
    against the answer without a command."""
    level = seen.level.cpu()
    columns = [0, 0, int((level[0] == -1).nonzero()[0]), int((level[0] == 1).nonzero()[0])]
    rows = torch.arange(len(level)) * level.shape[1]
    wanted = torch.stack([rows + column for column in columns], 1).flatten().to(guess.device)
    tokens, owner = [], []
    for place, number in enumerate(wanted.tolist()):
        mine = (seen.answer == number).nonzero().squeeze(-1)
        tokens.append(mine)
        owner.append(torch.full_like(mine, place))
    indices = torch.cat(tokens)
    part = Drawn(seen.hidden[indices], torch.cat(owner), level[:, columns].to(guess.device))
    return _right(guess[indices], part)


def _right(guess: Tensor, new: Drawn) -> dict:
    """Return in what share of prompts the ``guess`` [n] orders two tokens, and two answers, as they were asked for."""
    owner = new.answer.cpu().numpy()
    value = guess.double().cpu().numpy()
    counts = new.counts.cpu().numpy()
    means = (np.bincount(owner, value, len(counts)) / counts).reshape(new.level.shape)
    columns = [value[owner % len(SHOWN) == column] for column in range(len(SHOWN))]
    places = np.arange(len(owner)) - np.searchsorted(owner, owner)  # tokens of an answer stand together
    step = np.diff(means[:, [2, 0, 3]], axis=1).mean(0)
    return {
        "token": {"low": ordered(columns[2], columns[0]), "high": ordered(columns[0], columns[3])},
        "by place": {
            f"{first + 1} to {end}": {
                direction: ordered(
                    *(value[(owner % len(SHOWN) == c) & (places >= first) & (places < end)] for c in pair)
                )
                for direction, pair in (("low", (2, 0)), ("high", (0, 3)))
            }
            for first, end in PLACES
        },
        "answer": {
            "low": float((means[:, 2] < means[:, 0]).mean()),
            "high": float((means[:, 0] < means[:, 3]).mean()),
        },
        "step": {"low": float(step[0]), "high": float(step[1])},
        "between two answers": float((means[:, 1] - means[:, 0]).std()),
    }


def ordered(less: np.ndarray, more: np.ndarray) -> float:
    """Return how often one of ``less`` is below one of ``more``, of all pairs; 0.5 if there are none."""
    if not len(less) or not len(more):
        return 0.5
    rank = np.searchsorted(np.sort(less), more, side="left") + np.searchsorted(np.sort(less), more, side="right")
    return float(rank.mean() / 2 / len(less))
