"""The standard streams of a program: open, and able to take any letter."""

import os
import sys

from autodeco.errors import InputError


def check_streams() -> None:
    """Put the null device in the place of closed standard streams, and a question mark for a letter that one lacks.

    Else the next file that is opened would be written to as standard output. Raises InputError for a closed standard
    output: what would be written there would be lost."""
    is_closed = sys.stdout is None
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            if not _is_open(number):
                os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) in ("strict", "surrogateescape") and hasattr(stream, "reconfigure"):
            # a pipe or a file has the system's code page on Windows, which no other program of ours reads
            stream.reconfigure(encoding="utf-8" if sys.platform == "win32" else None, errors="replace")
    if is_closed:
        raise InputError("standard output is closed; give it a place, such as > /dev/null")


def flush_output() -> None:
    """Write what standard output still holds; raises OSError where it cannot be written, after which it is dropped."""
    try:
        sys.stdout.flush()
    except ValueError:  # it was closed meanwhile
        return
    except OSError:
        drop_output()
        raise


def drop_output() -> None:
    """Send the rest of standard output nowhere, so that it fails no second time when Python ends."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):  # a stream without a file, as a test has
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
