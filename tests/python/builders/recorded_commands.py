"""Commands that others run, recorded in place of being run; what they would write is written."""

import json
from collections.abc import Callable
from pathlib import Path

from autodeco import cli
from autodeco.export import cli as export_cli

TRAINED = {
    "arguments": {"samples": 16, "batch_problems": 10},
    "updates": [{"tokens": 16000}],
    "result": {"tokens_per_second": 1e4},
}


def record_commands(monkeypatch, report: dict) -> tuple[Callable, list[list[str]]]:
    """Return the real ``autodeco``, and the list that the arguments of the commands it runs come to.

    An evaluation writes ``report``.
    """
    words: list[list[str]] = []

    def main(argv) -> int:
        words.append(argv)
        given = {flag: argv[i + 1] for i, flag in enumerate(argv[:-1]) if flag.startswith("-")}
        if argv[0] == "reward":
            folder = Path(given["-o"])
            folder.mkdir(exist_ok=True)
            (folder / "training.json").write_text(json.dumps(TRAINED))
            (folder / "report.html").touch()
        elif argv[0] == "control":
            Path(given["-o"]).mkdir(exist_ok=True)
            (Path(given["-o"]) / "control.json").touch()
        elif "--training-problems" in given:
            Path(given["--training-problems"]).write_text('{"prompt": "1 + 1?"}\n', encoding="utf-8")
        elif argv[0] == "eval":
            folder = Path(given["-o"]) / "run"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "report.html").write_text("the report")
            (folder / "report.json").write_text(json.dumps(report))
        else:
            Path(given["-o"]).touch()
        return 0

    real = cli.main
    monkeypatch.setattr(cli, "main", main)
    monkeypatch.setattr(export_cli, "main", main)
    return real, words
