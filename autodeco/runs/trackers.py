"""Figures of a run sent to TensorBoard or Weights & Biases."""

import importlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from autodeco.errors import InputError

RUN = "autodeco"  # the name of the run, and of the folder of its TensorBoard files


class Tracker(Protocol):
    """Where figures go."""

    def log(self, values: dict[str, float], step: int) -> None: ...

    def finish(self) -> None: ...


class TensorBoard:
    """Files in ``directory``/autodeco, which ``tensorboard --logdir`` shows."""

    def __init__(self, directory: Path, settings: dict[str, Any]):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(directory / RUN))
        self._writer.add_text("settings", f"```\n{json.dumps(settings, indent=2)}\n```")

    def log(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def finish(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of the project autodeco, which keeps its files in ``directory`` too."""

    def __init__(self, directory: Path, settings: dict[str, Any]):
        import wandb

        self._run = wandb.init(project=RUN, dir=str(directory), config=settings)

    def log(self, values: dict[str, float], step: int) -> None:
        self._run.log(values, step=step)

    def finish(self) -> None:
        self._run.finish()


# by what a user calls them: the class, and the package that it needs
TRACKERS = {"tensorboard": (TensorBoard, "tensorboard"), "wandb": (WeightsAndBiases, "wandb")}


def check_tracker(arguments) -> None:
    """Raise InputError if the tracker that ``arguments`` name is not installed."""
    if arguments.tracker == "none":
        return
    package = TRACKERS[arguments.tracker][1]
    try:
        importlib.import_module(package)
    except ImportError:
        raise InputError(f"tracker {arguments.tracker}: pip install {package}") from None


def open_tracker(arguments, directory: Path) -> Tracker | None:
    """Return the tracker that ``arguments`` name, writing into ``directory``; raises InputError if it is missing."""
    check_tracker(arguments)
    return None if arguments.tracker == "none" else TRACKERS[arguments.tracker][0](directory, asdict(arguments))
