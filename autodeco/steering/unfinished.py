"""A run of learning to follow commands, in a folder: an interrupted one does not read again what it has read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from autodeco.errors import InputError
from autodeco.heads import Heads
from autodeco.rewards.policy import Policy
from autodeco.runs.atomic import replacing
from autodeco.steering.arguments import MeasuringArguments, SteeringArguments
from autodeco.steering.states import States
from autodeco.steering.steering import steer
from autodeco.training.state import check_folder

UNFINISHED, READ, FIGURES, REPORT = "unfinished", "read.json", "control.json", "report.html"


def check_run_folder(folder: Path) -> None:
    """Raise InputError where no heads may be written: ``check_folder`` says where; an unfinished run is continued."""
    check_folder(folder, resume=(folder / UNFINISHED / READ).exists())


class Run:
    """The run in ``directory`` that is ``described``; raises InputError if an unfinished one there is another."""

    def __init__(self, directory: Path, described: dict[str, Any]):
        self.directory, self._described = directory, json.loads(json.dumps(described))
        self.seconds, self.chunks, self.readings = 0.0, 0, 0
        self._unfinished = directory / UNFINISHED
        file = self._unfinished / READ
        if not file.exists():
            return
        try:
            kept = json.loads(file.read_text(encoding="utf-8"))
            described, self.chunks = dict(kept["described"]), int(kept["chunks"])
            self.readings, self.seconds = int(kept["readings"]), float(kept["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            raise self._damaged(file) from None
        if different := [name for name, value in self._described.items() if described.get(name) != value]:
            raise InputError(
                f"{self._unfinished}: is of a run with another {', another '.join(different)}; use the same again to "
                "continue it, or give another -o"
            )

    def states(self, number: int) -> States | None:
        """Return the states of chunk ``number``, if they are there; raises InputError if their file is damaged."""
        if number >= self.chunks:
            return None
        file = self._file(number)
        try:
            found = load_file(file)
            states = States(found["hidden"], found["level"], found["kind"])
            whole = states.hidden.shape[:2] == states.level.shape and states.kind.shape == states.level.shape[1:]
        except (OSError, SafetensorError, ValueError, KeyError):
            whole = False
        if not whole or not torch.isfinite(states.hidden).all():
            raise self._damaged(file)
        return states

    def keep(self, number: int, states: States, seconds: float) -> None:
        """Keep the ``states`` of chunk ``number``, after so many ``seconds`` of reading."""
        self._unfinished.mkdir(parents=True, exist_ok=True)
        tensors = {"hidden": states.hidden, "level": states.level, "kind": states.kind}
        with replacing(self._file(number)) as part:
            part.write_bytes(save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}))
        self.chunks, self.readings, self.seconds = number + 1, self.readings + states.count, seconds
        counts = {"chunks": self.chunks, "readings": self.readings, "seconds": seconds}
        kept = {"described": self._described, **counts}
        with replacing(self._unfinished / READ) as part:
            part.write_text(json.dumps(kept), encoding="utf-8")

    def end(self) -> None:
        """Remove what an interrupted run needs."""
        shutil.rmtree(self._unfinished, ignore_errors=True)

    def _file(self, number: int) -> Path:
        return self._unfinished / f"states-{number}.safetensors"

    def _damaged(self, file: Path) -> InputError:
        return InputError(f"{file}: is damaged; remove {self._unfinished} to begin again")


def finish(
    run: Run,
    policy: Policy,
    base: Heads,
    steering: SteeringArguments,
    measured: MeasuringArguments,
    say: Callable[[dict], None],
) -> dict:
    """Read what is left of ``run``, learn, measure, and write heads, figures and report; return the figures."""
    from autodeco.steering.report import write_report

    heads, _, figures = steer(policy, base, steering, measured, say, run)
    heads.cpu().save_pretrained(run.directory)
    with replacing(run.directory / FIGURES) as part:
        part.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    write_report(run.directory / REPORT, figures)
    run.end()
    return figures
