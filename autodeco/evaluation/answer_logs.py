"""The answers of a method as they are kept: a row each, in a log that a later run continues."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autodeco.base.token_bytes import TokenBytes
from autodeco.batch import Answer
from autodeco.evaluation import methods
from autodeco.evaluation.methods import Method
from autodeco.reports.token_texts import texts_of
from autodeco.runs.jsonl_log import JsonlLog


@dataclass(frozen=True)
class Pass:
    """The answers of one method to the problems of one split of one task, ``rows`` in order of problem and sample, and
    the seconds they took: of the time of all methods asked together, the share that their tokens have in the tokens."""

    method: Method
    rows: list[dict[str, Any]]
    seconds: float


def file_name(method: Method) -> str:
    """The name of a method as part of a file's name."""
    return re.sub(r"[,']", "", method.name).replace(" ", "-").replace("/", "-by-")


class MethodLog:
    """The answers of one method, in a log, a row each; a context in which more can be added.

    Of each problem, the first ``samples`` count.
    """

    def __init__(self, method: Method, path: Path, samples: int):
        self.method, self.samples = method, samples
        self._log = JsonlLog(path, check=lambda row: row["seconds"] + 0.0 if "seconds" in row else key_of(row))
        rows = [row for row in self._log.rows if "seconds" not in row]
        self.done = {key_of(row): row for row in rows if row["sample"] < samples}

    def __enter__(self) -> "MethodLog":
        self._log.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._log.__exit__(*error)

    def add(self, row: dict[str, Any]) -> None:
        """Note an answer."""
        self._log.add(row)
        self.done[key_of(row)] = row

    def add_seconds(self, seconds: float) -> None:
        """Note what the new answers took; rounded, as a run that reads it back finds it."""
        self._log.add({"seconds": round(seconds, 3)})

    def result(self) -> Pass:
        """Everything that was answered so far."""
        rows = [self.done[key] for key in sorted(self.done)]
        seconds = sum(row["seconds"] for row in self._log.rows if "seconds" in row)
        others = sum(row["tokens"] for row in self._log.rows if "seconds" not in row and key_of(row) not in self.done)
        if others:  # their share of the time is not that of these answers
            tokens = sum(row["tokens"] for row in rows)
            seconds *= tokens / (tokens + others)
        return Pass(self.method, rows, seconds)


def key_of(row: dict[str, Any]) -> tuple[int, int]:
    return row["problem"], row["sample"]


def answer_row(answer: Answer, right: bool, pieces: TokenBytes, method: Method) -> dict[str, Any]:
    """An answer, JSON-ready, with what heads picked for each of its tokens; ``pieces`` are the vocabulary's."""
    decoding = answer.decoding
    row = {
        "problem": answer.prompt,
        "sample": answer.sample,
        "right": right,
        "finish": answer.finish,
        "text": answer.text,
        "tokens": len(decoding),
    }
    if method.name in (methods.AUTODECO.name, methods.DEFAULT.name):
        row["ids"] = decoding.token.tolist()  # which the text does not tell: diagnostics read the answer again
    if method.sampling.heads != "none":
        row["token_texts"] = texts_of(pieces[token] for token in decoding.token.tolist())
        row["temperature"] = [round(value, 4) for value in decoding.temperature.tolist()]
        row["top_p"] = [round(value, 4) for value in decoding.top_p.tolist()]
    return row
