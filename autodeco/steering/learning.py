"""A control head that reads what a prompt asks for, learned from the states at the ends of prompts.

The state that an answer's first token is drawn from knows what was asked for; later ones forget it. So learning needs
no answers: a prompt is read once in each way of asking, and the level that it asks for is known. The head learns in
seconds on a GPU. Numbers of a state have different sizes, so it sees them with mean 0 and variance 1, which its first
layer computes at the end.

With u the argument of the head's sigmoid, r = 2 sigmoid(u) - 1 is what it reads. A reading of level l costs (r - l)^2,
and every kind of reading counts alike, whatever number of each there is. Readings of one prompt are ranked besides: for
levels k < l they cost relu(1 - (u_l - u_k) / ((l - k) m)), with a margin m. Quotations are other texts, and are not.

What is read of a prompt that asks for nothing is small, and steers nothing: the dead zone reaches as far as is read of
nearly all such prompts of a fifth that has not been learned from. The head then learns from all of them.
"""

import copy
import math

import torch
from torch import Tensor

from autodeco.errors import InputError
from autodeco.export.control_ends import ControlEnds
from autodeco.heads import Head, Heads
from autodeco.rewards.policy import Policy
from autodeco.runs.seeds import Stream, generator
from autodeco.steering.arguments import SteeringArguments
from autodeco.steering.states import NONE, QUOTED, SCALE, WORDED, States

CLIP = 1.0  # of the gradient's norm
LEAST_RATE = 0.02  # of the learning rate, at the last update
MOST_DEAD = 0.9
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
    """Return a head whose 2 sigmoid(u) - 1 reads the level of ``states``."""
    torch.manual_seed(arguments.seed)
    width = states.hidden.shape[-1]
    mean, deviation = moments(states.hidden)
    head = Head(width, 0.5)
    torch.nn.init.normal_(head.mlp[2].weight, std=1 / math.sqrt(head.mlp[2].in_features))
    head.to(states.hidden.device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=arguments.learning_rate, weight_decay=arguments.weight_decay)
    weight = weights(states, arguments)
    batches = list(_batches(len(states.level), arguments))
    for step, prompts in enumerate(batches):
        done = (step + 1) / len(batches)
        for group in optimizer.param_groups:
            group["lr"] = arguments.learning_rate * max(LEAST_RATE, 0.5 + 0.5 * math.cos(math.pi * done))
        prompts = prompts.to(states.level.device)
        seen = (states.hidden[prompts].float() - mean) / deviation
        u = head.mlp(torch.nn.functional.dropout(seen, arguments.dropout)).squeeze(-1)
        loss = loss_of(u, states.level[prompts], states.kind, weight, arguments)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), CLIP)
        optimizer.step()
    with torch.no_grad():
        head.mlp[0].weight /= deviation
        head.mlp[0].bias -= head.mlp[0].weight @ mean
    return head.requires_grad_(False)


def loss_of(u: Tensor, level: Tensor, kind: Tensor, weight: Tensor, arguments: SteeringArguments) -> Tensor:
    """Return the loss of arguments ``u`` [b, v] of readings that ask for ``level`` [b, v]; ``kind`` and ``weight`` [v]
    are those of the readings."""
    distance = ((2 * torch.sigmoid(u) - 1 - level).square() * weight).sum(-1).mean() / weight.sum()
    ranked = kind != QUOTED
    return distance + arguments.ranking * order_loss(u[:, ranked], level[:, ranked], arguments.margin)


def order_loss(u: Tensor, level: Tensor, margin: float) -> Tensor:
    """Return the mean hinge of all pairs of different ``level`` [g, v] of one prompt, for the arguments ``u`` [g, v]; 0
    if no prompt has two levels."""
    steps = level.unsqueeze(-2) - level.unsqueeze(-1)  # [g, k, l]: level l - level k
    pairs = steps > 0
    risen = u.unsqueeze(-2) - u.unsqueeze(-1)
    hinges = torch.relu(1 - risen / (steps.clamp(min=TINY) * margin))
    return (hinges * pairs).sum() / pairs.sum().clamp(min=1)


def weights(states: States, arguments: SteeringArguments) -> Tensor:
    """Return how much each reading of a prompt counts [v]: kinds of readings count alike, but for what ``arguments``
    say of them."""
    of_kind = {NONE: arguments.hold, WORDED: 2.0, SCALE: arguments.graded, QUOTED: arguments.hold}
    found = torch.zeros(len(states.kind), device=states.kind.device)
    for kind, wanted in of_kind.items():
        mine = states.kind == kind
        found[mine] = wanted / mine.sum().clamp(min=1)
    return found


def moments(hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation [H] of ``hidden`` [g, v, H]."""
    total = torch.zeros(hidden.shape[-1], dtype=torch.float64, device=hidden.device)
    squares = torch.zeros_like(total)
    for part in hidden.split(64):  # in parts, as float64 copies of all states would be large
        wide = part.double().flatten(0, 1)
        total += wide.sum(0)
        squares += wide.square().sum(0)
    count = hidden.shape[0] * hidden.shape[1]
    mean = total / count
    deviation = (squares / count - mean.square()).clamp(min=0).sqrt().clamp(min=TINY)
    return mean.float(), deviation.float()


@torch.no_grad()
def read(head: Head, states: States) -> Tensor:
    """Return what ``head`` reads of ``states``, 2 sigmoid(u) - 1, [g, v]."""
    return torch.cat([2 * head(part.float()) - 1 for part in states.hidden.split(64)])


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


def _batches(prompts: int, arguments: SteeringArguments):
    random = generator(arguments.seed, Stream.UPDATES)
    for _ in range(arguments.epochs):
        yield from torch.from_numpy(random.permutation(prompts)).split(arguments.batch_prompts)
