"""Control by instruction in training: one update's ranking loss, and how far held-out prompts follow commands.

``autodeco.losses.ranking`` says what is ranked.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autodeco.data.control import Command, share_names
from autodeco.heads import Heads
from autodeco.losses.ranking import HIGH, LOW, NONE, answer_means, ranking_loss
from autodeco.training.arguments import TrainingArguments
from autodeco.training.source import Chunk, Source


@dataclass
class Predicted:
    """T and P [2, n] predicted for the tokens of answers, and for each the record [n] and the command [n]."""

    values: Tensor
    records: np.ndarray
    commands: np.ndarray

    def means(self, commands: Sequence[Command], held_out: bool) -> tuple[Tensor, np.ndarray]:
        """Return ``answer_means`` after training wordings, or after ``held_out`` ones."""
        levels = np.array([NONE, *(LOW if command.direction == "low" else HIGH for command in commands)])
        mine = np.array([True, *(command.held_out == held_out for command in commands)])[self.commands]
        values = self.values[:, torch.from_numpy(mine)]
        return answer_means(values, self.records[mine], levels[self.commands[mine]])


def predict(heads: Heads, chunks: Iterable[Chunk]) -> Predicted:
    """Predict chunk by chunk; the graph that is kept is that of the heads alone."""
    values, records, commands = [], [], []
    for chunk in chunks:
        values.append(torch.stack(heads(chunk.hidden, chunk.logits)))
        records.append(chunk.records)
        commands.append(chunk.commands)
    return Predicted(torch.cat(values, 1), np.concatenate(records), np.concatenate(commands))


def ranking_step(heads: Heads, source: Source, arguments: TrainingArguments, step: int) -> tuple[Tensor, np.ndarray]:
    """Return this process's part of update ``step``'s ranking loss, and the records that made it not finite, if any."""
    means, records = predict(heads, source.ranked(step)).means(source.commands, held_out=False)
    losses = _losses(means, arguments)
    count = source.all_reduce_sum(torch.tensor(len(losses), device=losses.device))
    return losses.sum() / count, records[~torch.isfinite(losses).cpu().numpy()]


@torch.no_grad()
def measure_control(heads: Heads, source: Source, arguments: TrainingArguments) -> dict[str, float]:
    """Return what a ControlEvaluation adds to an Evaluation, over the held-out prompts."""
    predicted, figures = predict(heads, source.ranked_validation()), {}
    for held_out in (False, True):
        means, _ = predicted.means(source.commands, held_out)
        right = (means[:, 1:] > means[:, :-1]).sum(2).T.flatten()  # low T, low P, high T, high P
        losses = _losses(means, arguments)
        total = torch.stack([losses.sum().double(), *right.double(), torch.tensor(losses.numel()).double()])
        loss, *right, count = source.all_reduce_sum(total.to(means.device)).tolist()
        if not held_out:
            figures["ranking_loss"] = loss / count
        figures |= dict(zip(share_names(held_out).values(), (value / count for value in right), strict=True))
    return figures


def _losses(means: Tensor, arguments: TrainingArguments) -> Tensor:
    """Return the ranking loss [m] of ``means`` [2, 3, m] over the values that have a head."""
    margins = (arguments.control_temperature_margin, arguments.control_top_p_margin)
    present = [i for i, there in enumerate((arguments.temperature, arguments.top_p)) if there]
    return ranking_loss(means[present], [margins[i] for i in present])
