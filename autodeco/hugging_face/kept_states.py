"""Hidden states, numbered in the order of their arrival, in pages: keeping more never copies the earlier ones."""

import numpy as np
import torch
from torch import Tensor

PAGE = 1 << 16  # states


class KeptStates:
    """Any number of states [H], of H x the size of ``dtype`` bytes each."""

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device | str):
        self._empty = torch.empty(0, size, dtype=dtype, device=device)
        self._pages: list[Tensor] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, states: Tensor) -> int:
        """Keep ``states`` [k, H]; return the number of the first."""
        first = self._count
        while len(states):
            used = self._count % PAGE
            if used == 0:
                self._pages.append(self._empty.new_empty(PAGE, self._empty.shape[1]))
            part = states[: PAGE - used]
            self._pages[-1][used : used + len(part)] = part
            self._count += len(part)
            states = states[len(part) :]
        return first

    def __getitem__(self, numbers: np.ndarray) -> Tensor:
        """Return the states [k, H] of ``numbers`` [k]; raises IndexError for one that is not kept."""
        numbers = np.asarray(numbers, dtype=np.int64)
        if len(numbers) and not (numbers.min() >= 0 and numbers.max() < self._count):
            raise IndexError(f"states are numbered from 0 to {self._count - 1}")
        out = self._empty.new_empty(len(numbers), self._empty.shape[1])
        page_of = numbers // PAGE
        for page in np.unique(page_of):
            indices = np.flatnonzero(page_of == page)
            at = torch.from_numpy(np.stack([indices, numbers[indices] % PAGE])).to(out.device)
            out.index_copy_(0, at[0], self._pages[page].index_select(0, at[1]))
        return out
