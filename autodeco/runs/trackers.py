"""Figures of a run sent to TensorBoard or Weights & Biases, through accelerate's trackers."""

import importlib
from dataclasses import asdict
from pathlib import Path

from autodeco.errors import InputError

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb"}


class Tracker:
    """One run of accelerate's tracker ``name``, which keeps its files in ``directory``.

    The tracker is used without an Accelerator: ending one ends the group of processes too, and there is another already
    where a model runs on several.
    """

    def __init__(self, name: str, directory: Path, settings: dict):
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        PartialState()  # trackers ask it whether they are in the first process
        place = "logging_dir" if name == "tensorboard" else "dir"
        self._tracker = LOGGER_TYPE_TO_CLASS[name]("autodeco", **{place: str(directory)})
        if hasattr(self._tracker, "start"):  # older versions start when they are made
            self._tracker.start()
        self._tracker.store_init_configuration(settings)

    def log(self, values: dict[str, float], step: int) -> None:
        self._tracker.log(values, step=step)

    def finish(self) -> None:
        self._tracker.finish()


def check_tracker(arguments) -> None:
    """Raise InputError if the tracker that ``arguments`` name is not installed."""
    if arguments.tracker == "none":
        return
    for package in ("accelerate", PACKAGES[arguments.tracker]):
        try:
            importlib.import_module(package)
        except ImportError:
            raise InputError(f"tracker {arguments.tracker}: pip install {package}") from None


def open_tracker(arguments, directory: Path) -> Tracker | None:
    """Return the tracker that ``arguments`` name, writing into ``directory``; raises InputError if it is missing."""
    check_tracker(arguments)
    return None if arguments.tracker == "none" else Tracker(arguments.tracker, directory, asdict(arguments))
