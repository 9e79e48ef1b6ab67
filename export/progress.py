"""How far a long copy or another program's work has come, on a terminal; elsewhere nothing, not even the import."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator

LOOKS_PER_SECOND = 5


@contextlib.contextmanager
def progress_bar(title: str, size: int | None) -> Iterator[Callable[[int], object]]:
    """Yield a function to call with the bytes of each step; ``size`` None: unknown. The bar goes at the end."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from tqdm import tqdm

    with tqdm(desc=title, total=size, unit="B", unit_scale=True, leave=False) as bar:
        yield bar.update


@contextlib.contextmanager
def growth_bar(title: str, path: str | os.PathLike, size: int | None = None) -> Iterator[None]:
    """Show how the file at ``path`` grows, which another program writes, to about ``size`` bytes (None: unknown)."""
    with progress_bar(title, size) as update:
        done = threading.Event()

        def watch():
            seen = 0
            while not done.wait(1 / LOOKS_PER_SECOND):
                now = os.path.getsize(path) if os.path.exists(path) else seen
                update(now - seen)
                seen = now

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
