"""Control by instruction: a ranking loss that orders temperature and top-p by what the prompt asks for.

The paper (arXiv 2510.26697) trains with such a loss and does not give its formula; this one is ours. The same answer is
read after three prompts: with a command to be certain (low), without one, and with a command to be diverse (high). Let
L, N, H be the means of T, or of P, over the answer's tokens after each. With a margin m in units of T or P,

    l = relu(1 - (N - L) / m) + relu(1 - (H - N) / m)

and the loss is the mean of these hinges over both values and over the prompts: 1 where the commands change nothing, 0
where every step is at least a margin. A token of an answer of n tokens gets, in low, no command and high,

    dl/dL = [N - L < m] / (m n)        dl/dN = ([H - N < m] - [N - L < m]) / (m n)        dl/dH = -[H - N < m] / (m n)

so the gradient is always a difference of two readings of one answer: it finds what the command changes in the hidden
states and cancels what the answer itself does. While both steps are short, what is predicted without a command is left
alone. It reaches the heads only; as in the likelihood losses, T and the statistics enter the top-p head without one.

Training adds it to the likelihood losses, which go on seeing answers without a command only.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

LOW, NONE, HIGH = range(3)


def ranking_loss(means: Tensor, margins: Sequence[float]) -> Tensor:
    """Return each prompt's loss [m] of ``means`` [k, 3, m]: of k values under low, no and high command.

    ``margins`` [k] are in the units of the values.
    """
    steps = means[:, 1:] - means[:, :-1]
    margin = torch.tensor(margins, dtype=means.dtype, device=means.device)
    return torch.relu(1 - steps / margin[:, None, None]).mean((0, 1))


def answer_means(values: Tensor, records: np.ndarray, levels: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Return the means [k, 3, m] of ``values`` [k, n] over the answers of m records, and the records [m], ascending.

    ``records`` [n] says whose answer a token is in, ``levels`` [n] is LOW, NONE or HIGH. Raises ValueError for a record
    that lacks one of them.
    """
    distinct, which = np.unique(records, return_inverse=True)
    cells = levels * len(distinct) + which
    counts = np.bincount(cells, minlength=3 * len(distinct))
    if not counts.all():
        raise ValueError(f"record {distinct[counts.argmin() % len(distinct)] + 1} lacks a variant")
    cells, counts = (torch.from_numpy(array).to(values.device) for array in (cells, counts))
    sums = values.new_zeros(len(values), len(counts)).index_add(1, cells, values)
    return (sums / counts).unflatten(1, (3, len(distinct))), distinct
