"""A command-line program of ours: its arguments, and its errors and warnings in one line each."""

import argparse
import contextlib
import errno
import functools
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence

from autodeco.errors import InputError
from autodeco.runs.interrupts import Terminated, exit_code, raised_sigterm
from autodeco.settings.extras import missing_package
from autodeco.settings.streams import check_streams, drop_output, flush_output
from autodeco.terminal import one_line, say

# a path that a user gave leads nowhere, or where one may not
_PLACES = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EACCES, errno.EPERM, errno.EROFS)
_PLACES += (errno.ENAMETOOLONG,)


LONGEST_LINE = 2000  # characters of a message, which may hold what a file says
Main = Callable[[Sequence[str] | None], int]


class Parser(argparse.ArgumentParser):
    """Reports a wrong argument in one line, as all other mistakes are reported."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {one_line(_short(message))}; see --help\n")

    def _print_message(self, message: str, file=None):
        if file is sys.stdout:  # argparse would not tell that it cannot be written
            file.write(message)
        else:
            super()._print_message(message, file)


def reports_errors(program: str) -> Callable[[Main], Main]:
    """Wrap ``main(argv) -> exit code`` of ``program``: InputError becomes one line on stderr and exit code 2, an
    interrupt becomes exit code 130, SIGTERM 143."""

    def wrap(main: Main) -> Main:
        @functools.wraps(main)
        def wrapped(argv: Sequence[str] | None = None) -> int:
            return _reported(program, main, argv)

        return wrapped

    return wrap


def _reported(program: str, main: Main, argv: Sequence[str] | None) -> int:
    try:
        check_streams()
        with raised_sigterm():
            try:
                code = main(argv)
            finally:  # --help ends the program by an exception
                flush_output()
            return code
    except InputError as error:
        message = str(error)
    except ModuleNotFoundError as error:
        message = missing_package(error.name or "", argv)
        if message is None:
            raise
    except BrokenPipeError:  # the reader of our output has seen enough (| head)
        drop_output()
        return 0
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"{error.filename or 'output'}: the disk is full; make room and run the same command again"
        elif error.errno in _PLACES and error.filename:
            message = f"{error.filename}: {error.strerror}; give a place that can be read and written"
        elif error.strerror is None:  # not the system's
            raise
        else:
            message = f"{error.filename or 'output'}: {error.strerror}; the system does not let it be read or written"
        drop_output()
    except MemoryError:
        message = "out of memory; give smaller sizes, or a smaller model"
    except KeyboardInterrupt as error:
        print("interrupted", file=sys.stderr)
        return exit_code(signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)
    with contextlib.suppress(OSError):  # where errors cannot be written either, the exit code tells
        say(f"{program}: error: {_short(message)}", file=sys.stderr)
    return 2


def _short(message: str) -> str:
    """``message``; a long one without its middle."""
    half = LONGEST_LINE // 2
    return message if len(message) <= LONGEST_LINE else f"{message[:half]} ... {message[-half:]}"


@contextlib.contextmanager
def one_line_warnings() -> Iterator[None]:
    """Show warnings that are meant for the user as one line on stderr; other warnings as Python does."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning(warnings.showwarning)
        yield


def _show_warning(show):
    """``show``, but in one line for what the user is to know."""

    def shown(message, category, filename, lineno, file=None, line=None):
        if category is UserWarning:
            say(f"autodeco: warning: {message}", file=sys.stderr)
        else:
            show(message, category, filename, lineno, file, line)

    return shown


def bar(total: int, initial: int, unit: str, desc: str, shown: bool = True, leave: bool = True):
    """Return a tqdm bar on stderr, hidden where that is no terminal, and unless ``shown``; without
    ``leave`` it goes when it is done."""
    from tqdm import tqdm

    hidden = None if shown else True
    return tqdm(total=total, initial=initial, unit=unit, desc=desc, smoothing=0.05, disable=hidden, leave=leave)
