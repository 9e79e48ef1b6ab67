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
SHOWN = (PLAIN, PLAIN, *DIRECTIONS)  # two answers without a command: how far apart are they?


def probe(policy: Policy, heads: Heads, steering: SteeringArguments, measured: MeasuringArguments) -> dict:
    """Return how well levels are told from states of answers that ``policy`` draws with ``heads``, by kind of guess."""
    heads = heads.to(policy.device)
    training, other = parts(steering.validate)
    seen = draw(policy, heads, training.prompts(steering.prompts, steering.seed), steering, steering.rounds)
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
    return {
        "straight line": _right(line(other), new),
        "network": _right(_network(hidden, target, weight / weight.mean(), other, steering.seed), new),
    }


def _network(hidden: Tensor, level: Tensor, weight: Tensor, new: Tensor, seed: int) -> Tensor:
    """Return what a network of a head's size, which learned ``level`` [n] at ``hidden`` [n, H], guesses at ``new``."""
    mean, deviation = hidden.mean(0), hidden.std(0).clamp(min=1e-6)
    with torch.random.fork_rng([hidden.device] if hidden.is_cuda else []):
        torch.manual_seed(seed)
        mlp = nn.Sequential(nn.Linear(hidden.shape[1], HEAD_WIDTH), nn.ReLU(), nn.Linear(HEAD_WIDTH, 1))
    mlp.to(hidden.device)
    optimizer = torch.optim.AdamW(mlp.parameters(), lr=RATE, weight_decay=DECAY)
    random = generator(seed, Stream.UPDATES, 0, 2)
    in_a_pass = -(-len(hidden) // TOKENS)
    passes = max(PASSES, -(-LEAST_UPDATES // in_a_pass))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, passes * in_a_pass)
    for _ in range(passes):
        for part in torch.from_numpy(random.permutation(len(hidden))).to(hidden.device).split(TOKENS):
            guess = mlp((hidden[part] - mean) / deviation).squeeze(-1)
            loss = ((guess - level[part]).square() * weight[part]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        return torch.cat([mlp((part - mean) / deviation).squeeze(-1) for part in new.split(TOKENS)])


def _right(guess: Tensor, new: Drawn) -> dict:
    """Return in what share of prompts the ``guess`` [n] orders two tokens, and two answers, as they were asked for."""
    owner = new.answer.cpu().numpy()
    value = guess.double().cpu().numpy()
    counts = new.counts.cpu().numpy()
    means = (np.bincount(owner, value, len(counts)) / counts).reshape(new.level.shape)
    columns = [value[owner % len(SHOWN) == column] for column in range(len(SHOWN))]
    step = np.diff(means[:, [2, 0, 3]], axis=1).mean(0)
    return {
        "token": {"low": ordered(columns[2], columns[0]), "high": ordered(columns[0], columns[3])},
        "answer": {
            "low": float((means[:, 2] < means[:, 0]).mean()),
            "high": float((means[:, 0] < means[:, 3]).mean()),
        },
        "step": {"low": float(step[0]), "high": float(step[1])},
        "between two answers": float((means[:, 1] - means[:, 0]).std()),
    }


def ordered(less: np.ndarray, more: np.ndarray) -> float:
    """Return how often one of ``less`` is below one of ``more``, of all pairs."""
    rank = np.searchsorted(np.sort(less), more, side="left") + np.searchsorted(np.sort(less), more, side="right")
    return float(rank.mean() / 2 / len(less))
