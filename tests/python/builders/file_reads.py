"""Counting how often a GGUF's header is walked and its fingerprint is taken."""

from collections import Counter

from autodeco.export import embedded, layout


def count_reads(monkeypatch) -> Counter:
    """Return a counter of ``read_gguf`` (header walks) and ``fingerprint`` (256 blocks read) by ``open_layout``."""
    counts = Counter()

    def counted(name: str, function):
        def wrapped(*arguments):
            counts[name] += 1
            return function(*arguments)

        return wrapped

    for module, name in ((layout, "read_gguf"), (layout, "fingerprint"), (embedded, "read_gguf")):
        monkeypatch.setattr(module, name, counted(name, getattr(module, name)))
    return counts
