"""One thread that uses the model, for one request after the other, and what requests await of it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.requests import Request

from autodeco.serve.served_llama import Stopped

POLL = 0.1  # seconds between looks at whether a client that awaits an answer is still there
_END = object()


class Worker:
    """The thread. Work is done in the order that it came in."""

    def __init__(self):
        self._thread = ThreadPoolExecutor(1, "autodeco-model")

    def begin(self, make: Callable[[threading.Event], Iterator[Any]]) -> "Work":
        """Have the thread iterate over what ``make`` returns, which is given the event that asks it to stop; in a
        coroutine."""
        work = Work()
        self._thread.submit(work.run, make)
        return work

    def close(self) -> None:
        """Take no more work."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class Work:
    """What one request has the thread do."""

    def __init__(self):
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[Any] = asyncio.Queue()
        self.stopped = threading.Event()

    def run(self, make: Callable[[threading.Event], Iterator[Any]]) -> None:
        """In the thread: pass on what is made, or what was raised."""
        last: Any = _END
        try:
            if not self.stopped.is_set():
                for item in make(self.stopped):
                    self._put(item)
        except Stopped:
            pass
        except Exception as error:
            last = error
        self._put(last)

    def _put(self, item: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)
        except RuntimeError:  # the loop is closed: the server ends
            self.stopped.set()

    async def first(self, request: Request) -> Any:
        """The first thing made; raises what was raised instead, and Stopped once the client is gone."""
        waiting = asyncio.ensure_future(self._items.get())
        try:
            while not (await asyncio.wait({waiting}, timeout=POLL))[0]:
                if await request.is_disconnected():
                    raise Stopped
        except BaseException:
            self.stopped.set()
            waiting.cancel()
            raise
        item = waiting.result()
        if item is _END:
            raise Stopped
        if isinstance(item, Exception):
            raise item
        return item

    async def rest(self) -> AsyncIterator[Any]:
        """What is made after the first; an exception is the last item."""
        try:
            while (item := await self._items.get()) is not _END:
                yield item
                if isinstance(item, Exception):
                    return
        finally:
            self.stopped.set()
