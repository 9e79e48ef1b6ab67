"""The sets of heads that an evaluation compares: each is a file and a name."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from autodeco.errors import InputError
from autodeco.evaluation.settings import OPTIONAL, RIVALS
from autodeco.runs.provenance import file_hash
from autodeco.settings.options import bare

ALONE = ""  # the name of the only set: its methods are called as if there could be no other
TAKEN = {name.casefold() for name in ("greedy", *OPTIONAL, *RIVALS)}  # what other methods are called

Sets = Mapping[str, Path]


def parse_sets(texts: Sequence[str]) -> dict[str, Path]:
    """Return the files of heads in ``texts``, FILE or NAME=FILE, by name: the file's stem where none is given, ALONE
    for a single one.

    Raises InputError for a name that comes twice, that is a method's or no name, and for the same heads twice.
    """
    found: dict[str, Path] = {}
    for text in texts:
        name, file = _named(text)
        if len(texts) > 1:
            _check_name(name, file, found)
        found[name] = file
    if len(found) < 2:
        return dict.fromkeys([ALONE], file) if found else {}
    contents: dict[str, str] = {}
    for name, file in found.items():
        if (other := contents.setdefault(file_hash(file), name)) != name:
            raise InputError(f"{file}: {name} and {other} are the same heads; give each set once")
    return found


def _named(text: str) -> tuple[str, Path]:
    name, sign, file = text.partition("=")
    if not sign or Path(text).is_file():
        return Path(text).stem, Path(text)
    return name, Path(file)


def _check_name(name: str, file: Path, others: Sets) -> None:
    how = f"give it another name, as in --heads mine={file}"
    if name in others:
        raise InputError(f"{file}: heads of the name {bare(name)} are there twice; {how}")
    if name.casefold() in TAKEN:
        raise InputError(f"{file}: {name} is the name of another method; {how}")
    if not re.fullmatch(r"[\w.+-]+", name):
        raise InputError(f"{file}: use letters, digits, '.', '+', '-' and '_' in the name {bare(name)!r}; {how}")


def as_sets(heads: Path | Sets | None) -> Sets:
    """Return ``heads``, a single file or none too, as sets by name."""
    if heads is None:
        return {}
    return {ALONE: heads} if isinstance(heads, Path) else heads
