"""The processes of a run: one alone, or those that `accelerate launch` started, which share its work."""

import contextlib
import os
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from autodeco.runs.interrupts import deferred_interrupt, noted_interrupt, raise_interrupt
from autodeco.training.device import processes

STOPPING = "stopping; press again to lose what came after the last round"


class Processes:
    """This process, number ``rank`` of ``count``, and the others; each computes on a ``device`` of its own.

    Processes do the same in the same order, each with its share, and meet where values are exchanged. They are
    interrupted together: several note an interrupt, and raise it in all of them where they next meet.
    """

    def __init__(self, device: str = "cpu"):
        self.rank, self.count, self.device = 0, 1, device
        self._accelerator, self._interrupts = None, []
        if processes() > 1:
            from accelerate import Accelerator

            self._accelerator = Accelerator(cpu=device == "cpu")
            self.rank, self.count = self._accelerator.process_index, self._accelerator.num_processes
            self.device = str(self._accelerator.device)

    @property
    def on_this_machine(self) -> int:
        """How many of the processes share this machine's processors."""
        return int(os.environ.get("LOCAL_WORLD_SIZE") or self.count) if self.count > 1 else 1

    def share(self, number: int) -> slice:
        """Return which of ``number`` things in a row are this process's: neighbours, and as many as others have."""
        return slice(self.rank * number // self.count, (self.rank + 1) * number // self.count)

    @contextlib.contextmanager
    def interrupted_together(self) -> Iterator[None]:
        """Have an interrupt end the body in all processes at once; a process alone is interrupted as ever."""
        if self.count == 1:
            yield
            return
        with noted_interrupt(STOPPING if self.rank == 0 else "") as self._interrupts:
            yield

    def uninterrupted(self) -> contextlib.AbstractContextManager:
        """Return a context which an interrupt does not leave half-done."""
        return deferred_interrupt() if self.count == 1 else contextlib.nullcontext()

    @contextlib.contextmanager
    def left_early(self) -> Iterator[None]:
        """Leave the body at an interrupt, which ``gather``, to be called next, raises in all processes."""
        try:
            yield
        except KeyboardInterrupt:
            if self.count == 1:
                raise

    def stop_if_interrupted(self) -> None:
        """Raise the interrupt that was noted, which the others have to be told by ``gather``."""
        if self._interrupts:
            raise_interrupt(self._interrupts[0])

    def gather(self, value) -> list:
        """Return ``value`` of each process; raise an interrupt that came to any of them."""
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object

        told = gather_object([(self._interrupts[:1], value)])
        caught = [number for interrupts, _ in told for number in interrupts]
        if caught:
            raise_interrupt(caught[0])
        return [each for _, each in told]

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()

    def sum_gradients(self, module: nn.Module, figures: Tensor) -> Tensor:
        """Add up the gradients of ``module`` over the processes, in place; return the sums of ``figures`` [k]."""
        if self._accelerator is None:
            return figures
        parameters = list(module.parameters())
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([figures.to(gradients[0]), *(gradient.flatten() for gradient in gradients)])
        figures, *summed = self._accelerator.reduce(flat, "sum").split([len(figures), *(p.numel() for p in parameters)])
        for parameter, gradient in zip(parameters, summed, strict=True):
            parameter.grad = gradient.reshape(parameter.shape)
        return figures
