"""Heads that follow commands: rounds of answers that the model draws behind commands with the heads as they are, and of
updates from the states of their tokens.

Answers behind a command are other texts than answers without one, and heads that follow draw others again. So each
round draws its own, and the first heads learn from them anew: what a state says of a command is read in closed form
(``readout``), and a few passes of gradients follow (``autodeco.losses.levels``). The temperature head learns first. The
top-p head, which reads the statistics of softmax(logits / T), then learns at the temperatures that came out: the logits
of a token are computed once a round.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from autodeco.errors import InputError
from autodeco.heads import Heads
from autodeco.losses.levels import (
    Steps,
    distance_loss,
    hold_loss,
    mean_arguments,
    order_loss,
    temperature_steps,
    top_p_steps,
)
from autodeco.rewards.policy import Policy
from autodeco.runs.seeds import Stream, generator, seed_of
from autodeco.steering.answers import Drawn, drawn, features
from autodeco.steering.arguments import SteeringArguments
from autodeco.steering.asking import asked_in_training
from autodeco.steering.parts import parts
from autodeco.steering.readout import install, readout

CLIP = 1.0  # of the gradient's norm
HALVINGS = 30  # of the interval in which the last bias is looked for
REACH = 8.0  # of that interval to either side, in the argument of a sigmoid
TOKENS_AT_A_TIME = 1 << 16
LEAST_RATE = 0.02  # of the learning rate, at the last update


def learn(
    policy: Policy,
    base: Heads,
    arguments: SteeringArguments,
    after_round: Callable[[Heads, dict], None] = lambda heads, row: None,
    done: int = 0,
    begun: Heads | None = None,
) -> Heads:
    """Return heads that begin as ``base`` and follow commands.

    ``after_round`` is called with the heads and figures of each round. An interrupted run goes on after ``done`` rounds
    with the heads that it has ``begun``. Raises InputError for heads of another model, or without one of the two.
    """
    refuse_other_heads(policy, base)
    base = copy.deepcopy(base).to(policy.device).requires_grad_(False)
    heads = copy.deepcopy(begun or base).to(policy.device).requires_grad_(False)
    part, _ = parts(arguments.validate)
    for number in range(done, arguments.rounds):
        prompts = part.prompts_of_round(arguments.prompts, arguments.seed, number)
        answers = draw(policy, heads, prompts, arguments, number)
        begun = heads if arguments.continued and number else None
        heads, figures = _learned(policy, base, answers, arguments, number, begun)
        after_round(heads, {"round": number, "tokens": len(answers.answer), **figures})
    return heads


def refuse_other_heads(policy: Policy, heads: Heads) -> None:
    """Raise InputError for ``heads`` of another model than that of ``policy``, or without one of the two."""
    if heads.temp_head is None or heads.top_p_head is None:
        raise InputError("heads: one of the two is missing; control needs a temperature head and a top-p head")
    if heads.hidden_size != policy.identity.hidden_size:
        raise InputError(
            f"heads: for hidden states of {heads.hidden_size} numbers, {policy.identity.name} has "
            f"{policy.identity.hidden_size}; give heads of this model"
        )


def draw(policy: Policy, heads: Heads, prompts, arguments: SteeringArguments, number: int) -> Drawn:
    """Return the answers of round ``number``: one behind each command, with the same random numbers for a prompt."""
    asked = asked_in_training(
        prompts,
        arguments.wordings,
        arguments.degrees,
        arguments.seed,
        number,
        arguments.neutral,
        arguments.quoted,
        parts(arguments.validate)[0],
    )
    flat = [each for row in asked for each in row]
    sampled = policy.sample(
        [policy.prompt_ids(each.prompt) for each in flat],
        1,
        heads,
        seed_of(arguments.seed, Stream.ANSWERS, number),
        keep_states=True,
        numbers=[each.group for each in flat],
        max_tokens=arguments.max_tokens,
    )
    level = torch.tensor([[each.level for each in row] for row in asked])
    return drawn(policy, [group[0] for group in sampled], level)


def _learned(
    policy: Policy,
    base: Heads,
    answers: Drawn,
    arguments: SteeringArguments,
    number: int,
    begun: Heads | None,
) -> tuple[Heads, dict]:
    """Return heads that learn from the answers of one round, and the mean losses of their last epochs; they begin as
    ``begun``, or as ``base`` with what is read in closed form."""
    heads, hidden = copy.deepcopy(begun or base), answers.hidden.float()
    before = base.temperature(hidden)
    if begun is None:
        level = answers.level.flatten()
        weight = (torch.where(level == 0, arguments.hold, 1.0) / answers.counts)[answers.answer]
        kinds = (level, level.abs()) if arguments.presence else (level,)
        reads = [readout(hidden, kind[answers.answer], weight, arguments.ridge) for kind in kinds]
        install(heads.temp_head.mlp, reads, hidden, arguments.temperature_gain, arguments.units)
    steps = temperature_steps(before, arguments.low_factor, arguments.high_temperature)
    others = _others(heads.temp_head.mlp, base.temp_head.mlp, arguments)
    first = _fit(heads.temp_head.mlp, hidden, steps, answers, arguments, number, 0, others)
    temperature = heads.temperature(hidden).detach()
    known = features(policy, answers.hidden, (before, temperature)) if base.prob_stats else [None, None]
    top_p = base.top_p(hidden, before, known[0])
    columns = [
        [hidden, t.unsqueeze(-1), *([] if k is None else [k])] for t, k in ((before, known[0]), (temperature, known[1]))
    ]
    if begun is None:
        install(heads.top_p_head.mlp, reads, torch.cat(columns[0], -1), arguments.top_p_gain, arguments.units)
    steps = top_p_steps(top_p, arguments.low_top_p_factor, arguments.high_top_p)
    others = _others(heads.top_p_head.mlp, base.top_p_head.mlp, arguments)
    second = _fit(heads.top_p_head.mlp, torch.cat(columns[1], -1), steps, answers, arguments, number, 1, others)
    figures = {"temperature_loss": first, "top_p_loss": second, "mean_temperature": float(temperature.mean())}
    return heads.requires_grad_(False), figures


def _others(mlp, first, arguments: SteeringArguments) -> Tensor | None:
    """Return which hidden units [k] of ``mlp`` are still those of the ``first`` heads, if these are to stay."""
    if not arguments.units:
        return None
    return (mlp[0].weight == first[0].weight).all(1).nonzero().squeeze(-1)


def _fit(
    mlp,
    inputs: Tensor,
    steps: Steps,
    answers: Drawn,
    arguments: SteeringArguments,
    number: int,
    head: int,
    others: Tensor | None,
) -> float:
    """Update one head's ``mlp`` from ``inputs`` [n, width], which is to show the levels of ``answers`` in ``steps``;
    hidden units ``others`` [k] stay."""
    stays = None if others is None else [each.clone() for each in _weights(mlp, others)]
    mlp.requires_grad_(True)
    optimizer = torch.optim.AdamW(mlp.parameters(), lr=arguments.learning_rate, weight_decay=arguments.weight_decay)
    batches = list(_batches(answers, arguments, number, head))
    total, last = 0.0, len(batches) // arguments.epochs
    for step, prompts in enumerate(batches):
        done = (step + 1) / len(batches)
        for group in optimizer.param_groups:
            group["lr"] = arguments.learning_rate * max(LEAST_RATE, 0.5 + 0.5 * math.cos(math.pi * done))
        indices, answer = answers.batch(prompts)
        levels, u = answers.level[prompts], mlp(inputs[indices]).squeeze(-1)
        here = steps[indices]
        shown = here.level(u)
        means, first = (mean_arguments(each, answer, levels.numel()) for each in (u, here.first))
        # what answers a quotation is another text
        ranked = slice(levels.shape[1] - arguments.quoted)
        order = order_loss(means.view(levels.shape)[:, ranked], levels[:, ranked], arguments.margin)
        loss = arguments.distance * distance_loss(shown, levels.flatten()[answer], arguments.hold)
        loss = loss + arguments.ranking * (order + hold_loss(means, first, levels.flatten()))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(mlp.parameters(), CLIP)
        optimizer.step()
        if others is not None:
            _set_weights(mlp, others, stays)
        if step >= len(batches) - last:
            total += float(loss.detach()) / last
    mlp.requires_grad_(False)
    if arguments.calibrate:
        calibrate(mlp, inputs, steps.first, answers, 1 + arguments.neutral)
    return total


@torch.no_grad()
def _weights(mlp, units: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return all weights of hidden ``units`` [k]."""
    return mlp[0].weight[units], mlp[0].bias[units], mlp[2].weight[:, units]


@torch.no_grad()
def _set_weights(mlp, units: Tensor, weights: Sequence[Tensor]) -> None:
    mlp[0].weight[units], mlp[0].bias[units], mlp[2].weight[:, units] = weights


@torch.no_grad()
def calibrate(mlp, inputs: Tensor, first: Tensor, answers: Drawn, variants: int) -> None:
    """Move the bias of ``mlp`` so that sigmoid(mlp(``inputs`` [n, width])) has the mean of sigmoid(``first`` [n]) over
    the answers to the first ``variants``, which ask for nothing; answers count alike.

    Noise in what is read of a command would raise low temperatures more than it lowers them.
    """
    held = (answers.answer % answers.level.shape[1] < variants).nonzero().squeeze(-1)
    weight = (1 / answers.counts)[answers.answer[held]].double()
    u = torch.cat([mlp(inputs[part]).squeeze(-1) for part in held.split(TOKENS_AT_A_TIME)]).double()
    wanted = (torch.sigmoid(first[held].double()) * weight).sum()
    low, high = -REACH, REACH
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if (torch.sigmoid(u + middle) * weight).sum() > wanted:
            high = middle
        else:
            low = middle
    mlp[2].bias += (low + high) / 2


def _batches(answers: Drawn, arguments: SteeringArguments, number: int, head: int) -> Iterator[Tensor]:
    random = generator(arguments.seed, Stream.UPDATES, number, head)
    for _ in range(arguments.epochs):
        order = torch.from_numpy(random.permutation(len(answers.level))).to(answers.answer.device)
        yield from order.split(arguments.batch_prompts)
