"""Interrupts that wait for a moment at which stopping leaves everything in order."""

import contextlib
import signal
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def noted_interrupt(said: str = "") -> Iterator[list[int]]:
    """Note an interrupt (Ctrl-C) in the list that is yielded while the body runs; a second one is raised at once.

    ``said`` goes to stderr when the first one comes.

    Outside the main thread, where Python delivers no signals, this does nothing.
    """
    caught: list[int] = []

    def note(number, frame):
        if caught:
            raise KeyboardInterrupt
        caught.append(number)
        if said:
            print(f"\n{said}", file=sys.stderr, flush=True)

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:
        yield caught
        return
    try:
        yield caught
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[None]:
    """Hold an interrupt back while the body runs and raise its KeyboardInterrupt after it; a second one is raised at
    once."""
    with noted_interrupt() as caught:
        yield
    if caught:
        raise KeyboardInterrupt
