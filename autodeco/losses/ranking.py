"""Control by instruction: a ranking loss that orders temperature and top-p by what the prompt asks for.

The paper (arXiv 2510.26697) trains with such a loss and does not give its formula; this one is ours. The same answer is
read behind three prompts: with a command to be certain (low), without one, and with a command to be diverse (high). Let
L, N, H be the means of T, or of P, over the answer's tokens behind each. With a margin m in units of T or P,

    l = relu(1 - (N - L) / m) + relu(1 - (H - N) / m)

and the loss is the mean of these hinges over both values and over the prompts: 1 where the commands change nothing, 0
where every step is at least a margin. A token of an answer of n tokens gets, in low, no command and high,

    dl/dL = [N - L < m] / (m n)        dl/dN = ([H - N < m] - [N - L < m]) / (m n)        dl/dH = -[H - N < m] / (m n)

so the gradient is always a difference of two readings of one answer: it finds what the command changes in the hidden
states and cancels what the answer itself does. While both steps are short, what is predicted without a command is left
alone. It reaches the heads only; as in the likelihood losses, T and the statistics enter the top-p head without one.

Training adds it to the likelihood losses, which go on seeing answers without a command only.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autodeco.data.control import Command, share_names
from autodeco.heads import Heads
from autodeco.training.arguments import TrainingArguments
from autodeco.training.source import Chunk, Source

LOW, NONE, HIGH = range(3)


def ranking_loss(means: Tensor, margins: Sequence[float]) -> Tensor:
    """Return each prompt's loss [m] of ``means`` [k, 3, m]: of k values under low, no and high command.

    ``margins`` [k] are in the units of the values.
    """
    steps = means[:, 1:] - means[:, :-1]
    margin = torch.tensor(margins, dtype=means.dtype, device=means.device)
    return torch.relu(1 - steps / margin[:, None, None]).mean((0, 1))


def answer_means(values: Tensor, records: np.ndarray, places: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Return the means [k, 3, m] of ``values`` [k, n] over the answers of m records, and the records [m], ascending.

    ``records`` [n] says whose answer a token is in, ``places`` [n] is LOW, NONE or HIGH. Raises ValueError for a record
    that lacks one of them.
    """
    distinct, which = np.unique(records, return_inverse=True)
    cells = places * len(distinct) + which
    counts = np.bincount(cells, minlength=3 * len(distinct))
    if not counts.all():
        raise ValueError(f"record {distinct[counts.argmin() % len(distinct)] + 1} lacks a variant")
    cells, counts = (torch.from_numpy(array).to(values.device) for array in (cells, counts))
    sums = values.new_zeros(len(values), len(counts)).index_add(1, cells, values)
    return (sums / counts).unflatten(1, (3, len(distinct))), distinct


@dataclass
class Predicted:
    """T and P [2, n] predicted for the tokens of answers, and for each the record [n] and the command [n]."""

    values: Tensor
    records: np.ndarray
    commands: np.ndarray

    def means(self, commands: Sequence[Command], held_out: bool) -> tuple[Tensor, np.ndarray]:
        """Return ``answer_means`` behind training wordings, or behind ``held_out`` ones."""
        places = np.array([NONE, *(LOW if command.direction == "low" else HIGH for command in commands)])
        mine = np.array([True, *(command.held_out == held_out for command in commands)])[self.commands]
        values = self.values[:, torch.from_numpy(mine)]
        return answer_means(values, self.records[mine], places[self.commands[mine]])


def predict(heads: Heads, chunks: Iterable[Chunk]) -> Predicted:
    """Predict chunk by chunk; the graph that stays behind is that of the heads alone."""
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
    count = source.summed(torch.tensor(len(losses), device=losses.device))
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
        loss, *right, count = source.summed(total.to(means.device)).tolist()
        if not held_out:
            figures["ranking_loss"] = loss / count
        figures |= dict(zip(share_names(held_out).values(), (value / count for value in right), strict=True))
    return figures


def _losses(means: Tensor, arguments: TrainingArguments) -> Tensor:
    """Return the ranking loss [m] of ``means`` [2, 3, m] over the values that have a head."""
    margins = (arguments.control_temperature_margin, arguments.control_top_p_margin)
    present = [i for i, there in enumerate((arguments.temperature, arguments.top_p)) if there]
    return ranking_loss(means[present], [margins[i] for i in present])
