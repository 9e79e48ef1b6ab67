"""Names of files that lie beside others."""

import hashlib
import os
from pathlib import Path

_LONGEST = 255  # bytes of a name, where the file system does not say


def beside(path: Path, before: str, after: str) -> Path:
    """Return the path beside ``path`` whose name is that of ``path`` between ``before`` and ``after``.

    A name that would be longer than the file system takes is cut, and told from others by a hash of the whole."""
    whole = path.with_name(f"{before}{path.name}{after}")
    room = _longest(path.parent) - len(os.fsencode(before + after))
    name = path.name
    if len(os.fsencode(name)) <= room:
        return whole
    mark = "-" + hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
    while name and len(os.fsencode(name + mark)) > room:
        name = name[:-1]
    return path.with_name(f"{before}{name}{mark}{after}")


def _longest(folder: Path) -> int:
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows has no such call
        return _LONGEST
