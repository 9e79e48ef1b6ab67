"""A log in JSON lines that a run adds to and a later run of the same settings continues."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autodeco.errors import InputError
from autodeco.runs.atomic import naming


class JsonlLog:
    """The ``rows`` of the log at ``path``, in order; as a context, one that rows can be added to.

    Only whole lines count: a last line that an interruption cut short is dropped, and cut off before a row is added.
    ``header``, if given, is the first line and says what decides the rows. ``check`` is called with each row that is
    read and raises KeyError or TypeError for what is none. Raises InputError for a damaged line and for another header.
    One process at a time may write: the caller holds the lock of a file or folder (``runs.locks``).
    """

    def __init__(
        self,
        path: str | os.PathLike,
        header: dict[str, Any] | None = None,
        check: Callable[[dict[str, Any]], object] | None = None,
    ):
        self.path = Path(path)
        self.rows: list[dict[str, Any]] = []
        self._header = header
        content = self.path.read_bytes() if self.path.exists() else b""
        self._size = content.rfind(b"\n") + 1
        for number, line in enumerate(content[: self._size].split(b"\n")[:-1], start=1):
            is_header = header is not None and number == 1
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise TypeError(f"{row!r} is no JSON object")
                if check and not is_header:
                    check(row)
            except (ValueError, KeyError, TypeError, RecursionError):
                raise InputError(f"{self.path}, line {number}: is damaged; remove the file to start again") from None
            if is_header:
                self._compare(row)
            else:
                self.rows.append(row)

    def _compare(self, found: dict[str, Any]) -> None:
        wanted = json.loads(json.dumps(self._header))  # as a file holds it: tuples are lists
        different = sorted(key for key in wanted.keys() | found.keys() if found.get(key) != wanted.get(key))
        if different:
            raise InputError(
                f"{self.path}: the unfinished run had another {', another '.join(different)}; use the same again to "
                "continue it, or delete the file"
            )

    def __enter__(self) -> "JsonlLog":
        with naming(self.path):
            self._file = self.path.open("ab")
            self._file.truncate(self._size)
            if self._header is not None and not self._size:
                self._write(self._header)
        return self

    def __exit__(self, *error) -> None:
        with naming(self.path):
            self._file.close()
        self._size = self.path.stat().st_size

    def add(self, row: dict[str, Any]) -> None:
        """Add a row; it is in the file when this returns. An OSError names the file."""
        with naming(self.path):
            self._write(row)
        self.rows.append(row)

    def _write(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row).encode() + b"\n")
        self._file.flush()
