"""Counting how often a GGUF's header is walked and its fingerprint is taken."""

from collections import Counter

from autodeco.export import layout


def count_reads(monkeypatch) -> Counter:
    """Return a counter of ``read_gguf`` (header walks) and ``fingerprint`` (256 blocks read) by ``open_layout``."""
    counts = Counter()

    def counted(name: str, function):
        def wrapped(*arguments):
            counts[name] += 1
            return function(*arguments)

        return wrapped

    for name in ("read_gguf", "fingerprint"):
        monkeypatch.setattr(layout, name, counted(name, getattr(layout, name)))
    return counts
