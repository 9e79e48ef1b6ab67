"""Figures of a run sent to TensorBoard or Weights & Biases, through accelerate's trackers."""

import importlib
from dataclasses import asdict
from pathlib import Path

from autodeco.errors import InputError

_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb"}


class Tracker:
    """One run of accelerate's tracker ``name``."""

    def __init__(self, name: str, directory: Path, settings: dict):
        from accelerate import Accelerator

        self._accelerator = Accelerator(cpu=True, log_with=name, project_dir=directory)
        self._accelerator.init_trackers("autodeco", config=settings)

    def log(self, values: dict[str, float], step: int) -> None:
        self._accelerator.log(values, step=step)

    def finish(self) -> None:
        self._accelerator.end_training()


def open_tracker(arguments, directory: Path) -> Tracker | None:
    """Return the tracker that ``arguments`` name, writing into ``directory``; raises InputError if it is missing."""
    if arguments.tracker == "none":
        return None
    for package in ("accelerate", _PACKAGES[arguments.tracker]):
        try:
            importlib.import_module(package)
        except ImportError:
            raise InputError(f"tracker {arguments.tracker}: pip install {package}") from None
    return Tracker(arguments.tracker, directory, asdict(arguments))
