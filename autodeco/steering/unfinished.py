"""A run of learning to follow commands, in a folder: an interrupted one goes on after its last whole round."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autodeco.errors import InputError
from autodeco.heads import Heads
from autodeco.rewards.policy import Policy
from autodeco.runs.atomic import replacing
from autodeco.steering.arguments import MeasuringArguments, SteeringArguments
from autodeco.steering.steering import steer
from autodeco.training.state import check_folder

UNFINISHED, ROUNDS, FIGURES, REPORT = "unfinished", "rounds.json", "control.json", "report.html"


def check_run_folder(folder: Path) -> None:
    """Raise InputError where no heads may be written: ``check_folder`` says where; an unfinished run is continued."""
    check_folder(folder, resume=(folder / UNFINISHED / ROUNDS).exists())


class Run:
    """The run in ``directory`` that is ``described``; raises InputError if an unfinished one there is another."""

    def __init__(self, directory: Path, described: dict[str, Any]):
        self.directory, self._described = directory, json.loads(json.dumps(described))
        self.rounds: list[dict] = []
        self._unfinished = directory / UNFINISHED
        file = self._unfinished / ROUNDS
        if not file.exists():
            return
        try:
            kept = json.loads(file.read_text(encoding="utf-8"))
            described, self.rounds = dict(kept["described"]), kept["rounds"]
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"{file}: is damaged; remove {self._unfinished} to begin again") from None
        if different := [name for name, value in self._described.items() if described.get(name) != value]:
            raise InputError(
                f"{self._unfinished}: is of a run with another {', another '.join(different)}; use the same again to "
                "continue it, or give another -o"
            )

    def heads(self) -> Heads | None:
        """Return the heads after the last whole round, if there is one."""
        return Heads.from_pretrained(self._unfinished / f"round-{len(self.rounds)}") if self.rounds else None

    def keep(self, heads: Heads, rounds: list[dict]) -> None:
        """Keep ``heads``, which come out of ``rounds``."""
        heads.save_pretrained(self._unfinished / f"round-{len(rounds)}")
        with replacing(self._unfinished / ROUNDS) as part:
            part.write_text(json.dumps({"described": self._described, "rounds": rounds}), encoding="utf-8")
        shutil.rmtree(self._unfinished / f"round-{len(rounds) - 1}", ignore_errors=True)

    def end(self) -> None:
        """Remove what an interrupted run needs."""
        shutil.rmtree(self._unfinished, ignore_errors=True)


def finish(
    run: Run,
    policy: Policy,
    base: Heads,
    steering: SteeringArguments,
    measured: MeasuringArguments,
    say: Callable[[dict], None],
) -> dict:
    """Learn the rounds of ``run`` that are left, measure, and write heads, figures and report; return the figures."""
    from autodeco.steering.report import write_report

    heads, _, figures = steer(policy, base, steering, measured, say, run)
    heads.cpu().save_pretrained(run.directory)
    with replacing(run.directory / FIGURES) as part:
        part.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    write_report(run.directory / REPORT, figures)
    run.end()
    return figures
