"""Ctrl-C, pressed where a test says."""

import signal

from autodeco.training import loop


def interrupt_in(monkeypatch, step):
    """Let Ctrl-C be pressed in the middle of update ``step``; return what undoes that."""
    learning_rate = loop.learning_rate

    def pressed(at, arguments):
        if at == step:
            signal.raise_signal(signal.SIGINT)
        return learning_rate(at, arguments)

    monkeypatch.setattr(loop, "learning_rate", pressed)
    return lambda: monkeypatch.setattr(loop, "learning_rate", learning_rate)
