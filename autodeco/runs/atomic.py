"""Files that appear whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from autodeco.runs.leftovers import make_held


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Name ``path`` in an OSError of the body that names no file, such as one of a write to an open file."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(path)
        raise


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; rename it onto ``path`` on success, delete it on any failure.

    Raises whatever the body raises; the old file at ``path`` is then untouched. An OSError names ``path``. A process
    that is killed leaves the temporary file, which the next one removes (``leftovers``).
    """
    path = Path(path)
    try:
        part, let_go = make_held(path, _new_file, "part")
    except OSError as error:
        error.filename = os.fspath(path)
        raise
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        if error.filename in (None, os.fspath(part)):
            error.filename, error.filename2 = os.fspath(path), None
        raise
    finally:
        part.unlink(missing_ok=True)
        let_go()


@contextlib.contextmanager
def scratch_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """Yield a new folder in ``folder`` for files that are needed for a while; it is removed at the end.

    One that a killed process left is removed by the next. Raises OSError where none can be made.
    """
    scratch, let_go = make_held(Path(folder) / "autodeco", os.mkdir, "scratch")
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        let_go()


def _new_file(path: Path) -> None:
    # 0o666 less the umask, which the kernel takes off: what any new file may
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
