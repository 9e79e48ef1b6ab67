"""A progress bar for a long copy or another program's work; without a terminal tqdm is not even imported."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

from autodeco.terminal import one_line

LOOKS_PER_SECOND = 5


@contextlib.contextmanager
def growth_bar(title: str, path: str | os.PathLike, size: int | None = None) -> Iterator[None]:
    """Show how the file at ``path`` grows, which the system or another program writes, to about ``size`` bytes (None:
    unknown); the bar goes at the end."""
    if not sys.stderr.isatty():
        yield
        return
    from tqdm import tqdm

    with tqdm(desc=one_line(title), total=size, unit="B", unit_scale=True, leave=False) as bar:
        done = threading.Event()

        def watch():
            while not done.wait(1 / LOOKS_PER_SECOND):
                if os.path.exists(path):
                    bar.update(os.path.getsize(path) - bar.n)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
