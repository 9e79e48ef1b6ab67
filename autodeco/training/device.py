"""Where a run trains: its device, and as how many processes."""

import os

import torch

from autodeco.errors import InputError


def processes() -> int:
    """Return how many processes `accelerate launch` or torchrun started, this one among them."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def check_alone(what: str) -> None:
    """Raise InputError where several processes were started for ``what``, which one alone does: all would write the
    same files."""
    if processes() > 1:
        raise InputError(f"{what} runs in one process, and {processes()} were started; leave out `accelerate launch`")


def take_device(device: str) -> None:
    """Make ``device`` (cpu, cuda, cuda:1, ..., mps) the one that torch, Accelerator, CUDA graphs and Triton use.

    Several processes get a GPU each from Accelerator. Raises InputError for a GPU that is not there, or one GPU named
    for several processes.
    """
    if device == "cpu":
        return
    there = torch.backends.mps if device == "mps" else torch.cuda
    if not there.is_available():
        raise InputError(f"device {device}: torch finds no such GPU here; use --device cpu")
    index = torch.device(device).index
    if index is None:
        return
    if processes() > 1:
        raise InputError(f"device {device}: {processes()} processes take a GPU each; give --device cuda")
    if index >= torch.cuda.device_count():
        raise InputError(f"device {device}: torch finds {torch.cuda.device_count()} GPU here, counted from cuda:0")
    torch.cuda.set_device(index)
