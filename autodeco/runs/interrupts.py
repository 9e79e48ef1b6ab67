"""Interrupts (Ctrl-C, and the SIGTERM of a scheduler), held until a moment at which stopping loses nothing."""

import contextlib
import signal
import sys
from collections.abc import Iterator

from autodeco.terminal import one_line

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """A SIGTERM, which ends a program as Ctrl-C does."""


def exit_code(number: int) -> int:
    """Return the exit code of a program that signal ``number`` ended: 143 for SIGTERM, else 130, as for Ctrl-C."""
    return 128 + (number if number == signal.SIGTERM else signal.SIGINT)


def raise_interrupt(number: int, frame=None) -> None:
    """Raise the exception of signal ``number``: KeyboardInterrupt, or Terminated for SIGTERM. It serves as a signal
    handler too."""
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


@contextlib.contextmanager
def raised_sigterm() -> Iterator[None]:
    """Let SIGTERM raise Terminated while the body runs, so that half-written files are removed.

    Outside the main thread, and where SIGTERM is handled or ignored already, this does nothing.
    """
    try:
        before = signal.getsignal(signal.SIGTERM)
        if before is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, raise_interrupt)
    except ValueError:
        before = None
    try:
        yield
    finally:
        if before is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def noted_interrupt(message: str = "") -> Iterator[list[int]]:
    """Note an interrupt in the list that is yielded while the body runs, as the signal's number; a second one is raised
    at once.

    ``message`` goes to stderr when the first one comes.

    Outside the main thread, where Python delivers no signals, this does nothing.
    """
    caught: list[int] = []

    def note(number, frame):
        if caught:
            raise_interrupt(number)
        caught.append(number)
        if message:
            print(f"\n{one_line(message)}", file=sys.stderr, flush=True)

    before = {}
    try:
        for number in SIGNALS:
            before[number] = signal.signal(number, note)
    except ValueError:
        yield caught
        return
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[None]:
    """Hold an interrupt back while the body runs and raise it after it; a second one is raised at once."""
    with noted_interrupt() as caught:
        yield
    if caught:
        raise_interrupt(caught[0])
