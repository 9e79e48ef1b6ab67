"""Files of JSON lines: one object a line, with the place of each for messages."""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autodeco.errors import InputError


class Line(dict[str, Any]):
    """The object of a line; ``where`` says in messages where it stands, ``number`` counts lines from 1, as editors."""

    where = ""
    number = 0


def place_of(fields: dict) -> str:
    """Return where the object ``fields`` stands, with ": " behind it, to begin a message with; "" if nothing says."""
    where = getattr(fields, "where", "")
    return f"{where}: " if where else ""


def json_lines(path: Path, expected: str) -> Iterator[Line]:
    """Yield the objects in ``path``; empty lines and a byte order mark are passed over.

    Raises InputError with the line for what is no JSON object and for text that is no UTF-8 or holds half a surrogate
    pair, and for a file that is missing or empty; ``expected`` says what a line should hold.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a file of JSON lines with {expected}")
    found = False
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if line.strip():
                found = True
                yield _line(f"{path}, line {number}", number, line, expected)
    if not found:
        raise InputError(f"{path}: the file is empty; give one JSON object a line with {expected}")


def _line(where: str, number: int, text: bytes, expected: str) -> Line:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON ({error}); write one JSON object a line") from None
    if not isinstance(fields, dict):
        raise InputError(f"{where}: expected a JSON object with {expected}")
    if b"\\u" in text or b"\xed" in text:
        try:
            json.dumps(fields, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(error.object[error.start]):04x}"
            raise InputError(
                f"{where}: holds half a surrogate pair, {half}, which is no character; remove it"
            ) from None
    line = Line(fields)
    line.where, line.number = where, number
    return line
