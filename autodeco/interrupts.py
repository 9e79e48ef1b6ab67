"""Interrupts that wait for a moment at which stopping leaves everything in order."""

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[None]:
    """Hold an interrupt (Ctrl-C) back while the body runs and raise its KeyboardInterrupt after it; a second one is
    raised at once. Outside the main thread, where Python delivers no signals, this does nothing."""
    caught = []

    def note(number, frame):
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught:
        raise KeyboardInterrupt
