"""A control head that reads what a prompt asks for, learned from the states at the ends of prompts.

The state that an answer's first token is drawn from knows what was asked for; later ones forget it. So learning needs
no answers: a prompt is read once in each way of asking, and the level that it asks for is known. The head learns in
seconds on a GPU.

The numbers of a state have different sizes and depend on each other, and what varies most between states is what the
prompt is about. So half of the hidden units see states whose numbers are uncorrelated: with V, E the eigenvectors and
eigenvalues of the correlations, a state z of mean 0 and variance 1 becomes z V / sqrt(E + s). Directions in which
states vary little, which tell of commands, then weigh more, the more the smaller s is. This half reads known wordings
best. The other half sees z, and is better at other wordings. Each learns alone, and the head reads the mean of both. In
the end its first layer does all of this itself.

With u the argument of the head's sigmoid, r = 2 sigmoid(u) - 1 is what it reads. A reading of level l costs (r - l)^2.
The weight of a kind of reading does not depend on how many of them there are. Readings of one prompt are ranked
besides: for levels k < l they cost relu(1 - (u_l - u_k) / ((l - k) m)), with a margin m. Quotations are other texts,
and are not.

What is read of a prompt that asks for nothing is small, and steers nothing: the dead zone reaches as far as is read of
nearly all such prompts of a fifth that has not been learned from. The head then learns from all of them.
"""

import copy
import math

import torch
from torch import Tensor, nn

from autodeco.errors import InputError
from autodeco.export.control_ends import ControlEnds
from autodeco.export.schema import HEAD_WIDTH
from autodeco.heads import Head, Heads
from autodeco.rewards.policy import Policy
from autodeco.runs.seeds import Stream, generator
from autodeco.steering.arguments import SteeringArguments
from autodeco.steering.states import NONE, QUOTED, SCALE, WORDED, States

CLIP = 1.0  # of the gradient's norm
LEAST_RATE = 0.02  # of the learning rate, at the last update
MOST_DEAD = 0.9
PROMPTS_AT_A_TIME = 64
TINY = 1e-6


def refuse_other_heads(policy: Policy, heads: Heads) -> None:
    """Raise InputError for ``heads`` of another model than that of ``policy``, or without one of the two."""
    if heads.temp_head is None or heads.top_p_head is None:
        raise InputError("heads: one of the two is missing; control needs a temperature head and a top-p head")
    if heads.hidden_size != policy.identity.hidden_size:
        raise InputError(
            f"heads: for hidden states of {heads.hidden_size} numbers, {policy.identity.name} has "
            f"{policy.identity.hidden_size}; give heads of this model"
        )


def with_control(base: Heads, training: States, validation: States, arguments: SteeringArguments) -> tuple[Heads, dict]:
    """Return ``base`` with a control head that learned from both, and figures of one that learned from ``training``
    alone, measured on ``validation``."""
    first = learned(training, arguments)
    dead_zone = dead_zone_of(first, validation, arguments.moved)
    figures = {"dead_zone": dead_zone, **read_right(first, validation, dead_zone)}
    head = first if arguments.validate else learned(States.joined([training, validation]), arguments)
    ends = ControlEnds(
        arguments.low_factor,
        arguments.high_temperature,
        arguments.low_top_p_factor,
        arguments.high_top_p,
        dead_zone,
    )
    heads = Heads(base.hidden_size, base.prob_stats, control=ends)
    heads.load_state_dict(base.without_control().state_dict(), strict=False)
    heads.control_head = head.cpu()
    heads.base_config = copy.deepcopy(base.base_config)
    return heads.requires_grad_(False), figures


def learned(states: States, arguments: SteeringArguments) -> Head:
    """Return a head whose 2 sigmoid(u) - 1 reads the level of ``states``.

    u is ``arguments.gain`` times the mean of what its halves have learned, one from whitened states and one from states
    as they are.
    """
    torch.manual_seed(arguments.seed)
    mean, deviation, whitened = moments(states.hidden, arguments.whitening)
    halves = [
        _half(states, mean, matrix, arguments, number)
        for number, matrix in enumerate((whitened, torch.diag(1 / deviation)))
    ]
    head = Head(states.hidden.shape[-1], 0.5).to(mean.device).requires_grad_(False)
    head.mlp[0].weight.copy_(torch.cat([half[0].weight for half in halves]))
    head.mlp[0].bias.copy_(torch.cat([half[0].bias for half in halves]))
    head.mlp[2].weight.copy_(torch.cat([half[2].weight for half in halves], 1) * (arguments.gain / len(halves)))
    head.mlp[2].bias.copy_(sum(half[2].bias for half in halves) * (arguments.gain / len(halves)))
    return head


def _half(states: States, mean: Tensor, matrix: Tensor, arguments: SteeringArguments, number: int) -> nn.Sequential:
    """Return half of a head's ``mlp``, which has learned from (states - ``mean`` [H]) ``matrix`` [H, H]."""
    seen = torch.cat([(part.float() - mean) @ matrix for part in states.hidden.split(PROMPTS_AT_A_TIME)])
    width = HEAD_WIDTH // 2
    mlp = nn.Sequential(nn.Linear(len(mean), width), nn.ReLU(), nn.Linear(width, 1)).to(seen.device)
    optimizer = torch.optim.AdamW(mlp.parameters(), lr=arguments.learning_rate, weight_decay=arguments.weight_decay)
    weight, ranked = weights(states, arguments), states.kind != QUOTED
    batches = list(_batches(len(states.level), arguments, number))
    for step, prompts in enumerate(batches):
        done = (step + 1) / len(batches)
        for group in optimizer.param_groups:
            group["lr"] = arguments.learning_rate * max(LEAST_RATE, 0.5 + 0.5 * math.cos(math.pi * done))
        prompts = prompts.to(seen.device)
        u, level = mlp(nn.functional.dropout(seen[prompts], arguments.dropout)).squeeze(-1), states.level[prompts]
        loss = distance_loss(u, level, weight[prompts])
        loss = loss + arguments.ranking * order_loss(u[:, ranked], level[:, ranked], arguments.margin)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(mlp.parameters(), CLIP)
        optimizer.step()
    mlp.requires_grad_(False)
    mlp[0].weight.copy_(mlp[0].weight @ matrix.T)
    mlp[0].bias -= mlp[0].weight @ mean
    return mlp


def distance_loss(u: Tensor, level: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean of the squared distance of what is read, 2 sigmoid(``u``) - 1, from ``level`` [b, v]."""
    return ((2 * torch.sigmoid(u) - 1 - level).square() * weight).sum() / weight.sum()


def order_loss(u: Tensor, level: Tensor, margin: float) -> Tensor:
    """Return the mean hinge of all pairs of different ``level`` [g, v] of one prompt, for the arguments ``u`` [g, v]; 0
    if no prompt has two levels."""
    steps = level.unsqueeze(-2) - level.unsqueeze(-1)  # [g, k, l]: level l - level k
    pairs = steps > 0
    risen = u.unsqueeze(-2) - u.unsqueeze(-1)
    hinges = torch.relu(1 - risen / (steps.clamp(min=TINY) * margin))
    return (hinges * pairs).sum() / pairs.sum().clamp(min=1)


def weights(states: States, arguments: SteeringArguments) -> Tensor:
    """Return how much each reading counts [g, v].

    Commands in words count 2 together, the scale as ``arguments.graded`` says, its ends three times as much as its
    middle, readings without a command ``arguments.hold``, a third of it the prompt as it is, and quotations half of
    that.
    """
    found = torch.ones_like(states.level)
    found[:, states.kind == SCALE] = 1 + 2 * states.level[:, states.kind == SCALE].square()
    none = states.kind == NONE
    plain = none & (none.cumsum(0) == 1)  # the first of them
    of_kind = [(plain, arguments.hold / 3), (none & ~plain, arguments.hold * 2 / 3), (states.kind == WORDED, 2.0)]
    of_kind += [(states.kind == SCALE, arguments.graded), (states.kind == QUOTED, arguments.hold / 2)]
    for mine, wanted in of_kind:
        if mine.any():
            found[:, mine] *= wanted * len(found) / found[:, mine].sum()
    return found


def moments(hidden: Tensor, shrinkage: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and standard deviation [H] of ``hidden`` [g, v, H], and a matrix [H, H]: (hidden - mean) times it is
    uncorrelated, with a variance that tends to 0 where that of the correlations is far below ``shrinkage``."""
    count, size = hidden.shape[0] * hidden.shape[1], hidden.shape[-1]
    parts = hidden.split(PROMPTS_AT_A_TIME)
    mean = sum(part.double().sum((0, 1)) for part in parts) / count
    second = torch.zeros(size, size, dtype=torch.float64, device=hidden.device)
    for part in parts:
        centred = part.float().flatten(0, 1) - mean.float()
        second += centred.T @ centred
    deviation = (second.diagonal() / count).sqrt().clamp(min=TINY)
    values, vectors = torch.linalg.eigh(second / count / deviation / deviation.unsqueeze(-1))
    matrix = vectors / (values.clamp(min=0) + shrinkage).sqrt() / deviation.unsqueeze(-1)
    return mean.float(), deviation.float(), matrix.float()


@torch.no_grad()
def read(head: Head, states: States) -> Tensor:
    """Return what ``head`` reads of ``states``, 2 sigmoid(u) - 1, [g, v]."""
    return torch.cat([2 * head(part.float()) - 1 for part in states.hidden.split(PROMPTS_AT_A_TIME)])


def dead_zone_of(head: Head, states: States, moved: float) -> float:
    """Return a dead zone that the level of no more than a share ``moved`` of ``states`` without a command exceeds."""
    none = read(head, states)[:, states.kind == NONE].abs().flatten().double()
    return min(MOST_DEAD, float(torch.quantile(none, 1 - moved)))


def read_right(head: Head, states: States, dead_zone: float) -> dict:
    """Return how well ``head`` reads ``states``: of commands in words the share whose level has the right sign and is
    beyond ``dead_zone``, and the mean level of each kind."""
    found = read(head, states)
    level = torch.sign(found) * (found.abs() - dead_zone).clamp(min=0) / (1 - dead_zone)
    shares, means = {}, {}
    for name, sign in (("low", -1), ("high", 1)):
        mine = (states.kind == WORDED) & (states.level[0] == sign)
        shares[name] = float((sign * level[:, mine] > 0).double().mean())
        means[name] = float(level[:, mine].mean())
    means |= {"none": float(level[:, states.kind == NONE].abs().mean())}
    means |= {"quoted": float(level[:, states.kind == QUOTED].abs().mean())}
    return {"read": shares, "levels": means}


def _batches(prompts: int, arguments: SteeringArguments, number: int):
    random = generator(arguments.seed, Stream.UPDATES, number)
    for _ in range(arguments.epochs):
        yield from torch.from_numpy(random.permutation(prompts)).split(arguments.batch_prompts)
