"""Requests over HTTP to several servers at once: limited, retried at whichever server is free, cut off when closed."""

import asyncio
import contextlib
import json
import os
import queue
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx2

from autodeco.errors import InputError
from autodeco.servers.protocol import Server, described
from autodeco.terminal import one_line

KEY = "LLAMA_API_KEY"  # the variable that llama.cpp's server takes its keys from
CONNECT_SECONDS = 10.0
LARGEST = 1 << 26  # bytes of one answer
MOST_TRIES = 8  # of one request: a server that it ends would else be started for nothing again and again
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0  # seconds before a server is tried again that gave no answer
PATIENCE = 180.0  # seconds that all servers may fail
SAID = 300  # characters of what a server says

Wanted = TypeVar("Wanted")


class Unanswered(Exception):
    """A request that another try may answer; ``reached`` tells whether a server had it."""

    def __init__(self, message: str, reached: bool = True):
        super().__init__(message)
        self.reached = reached


@dataclass
class Job(Generic[Wanted]):
    """One request, by the times that it was tried."""

    wanted: Wanted
    tries: int = 0


@dataclass
class State:
    """How a server does: after a failure it is left alone ``until`` a time, for a longer ``pause`` each time; then one
    request at a time, which holds ``probing``, finds out whether it answers. It has failed ``since``, if it does."""

    server: Server
    since: float | None = None
    pause: float = 0.0
    until: float = 0.0
    probing: asyncio.Lock = field(default_factory=asyncio.Lock)


def client(seconds: float) -> httpx2.AsyncClient:
    """A client that waits ``seconds`` for an answer and gives the key of the environment, if there is one."""
    key = os.environ.get(KEY)
    return httpx2.AsyncClient(
        timeout=httpx2.Timeout(seconds, connect=CONNECT_SECONDS, pool=None),
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
        headers={"Authorization": f"Bearer {key}"} if key else {},
    )


async def _body(response: httpx2.Response) -> bytes:
    """What ``response`` holds, of which a server may send without end."""
    parts, size = [], 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > LARGEST:
            raise InputError(f"{response.url}: answers with more than {LARGEST >> 20} MiB")
        parts.append(part)
    return b"".join(parts)


def _said(body: bytes) -> str:
    """What a server says of an error, in one line."""
    text = body[: 10 * SAID].decode("utf-8", "replace")
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        error = json.loads(body)["error"]
        text = error["message"] if isinstance(error, dict) else error
    return one_line(text)[:SAID] or "nothing"


async def _asked(http: httpx2.AsyncClient, method: str, url: str, body: dict | None = None) -> Any:
    """The JSON at ``url``; raises Unanswered where another try may give it, InputError where none will."""
    try:
        async with http.stream(method, url, json=body) as response:
            content = await _body(response)
    except httpx2.InvalidURL as error:
        raise InputError(f"{url}: is no address ({error})") from None
    except httpx2.HTTPError as error:
        reached = not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
        raise Unanswered(f"{type(error).__name__} {error}".strip(), reached) from None
    status = response.status_code
    if status in (408, 429) or status >= 500:
        raise Unanswered(f"status {status}: {_said(content)}")
    if status in (401, 403):
        raise InputError(f"{url}: wants another key ({_said(content)}); set {KEY}")
    if status >= 400:
        raise InputError(f"{url}: status {status}: {_said(content)}")
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise InputError(f"{url}: answers with what is no JSON: {_said(content)}") from None


async def _opened(http: httpx2.AsyncClient, url: str) -> Server:
    found = []
    for path in ("/props", "/v1/models"):
        try:
            found.append(await _asked(http, "GET", url + path))
        except InputError as error:
            if "another key" in str(error):
                raise
            found.append(None)
        except Unanswered as error:
            raise InputError(f"{url}: does not answer ({error}); is it started?") from None
    if found == [None, None]:
        raise InputError(f"{url}: has neither /props nor /v1/models; give the address of a server of OpenAI's API")
    return described(url, *found)


def opened(urls: Sequence[str]) -> list[Server]:
    """The servers at ``urls``, as they describe themselves; raises InputError for one that does not answer."""

    async def all_of_them() -> list[Server]:
        async with client(CONNECT_SECONDS) as http:
            return [await _opened(http, url) for url in urls]

    return asyncio.run(all_of_them())


class Pool(Generic[Wanted]):
    """``in_flight`` requests at a time for each of ``servers`` (None: one for each of its slots), each of which may
    take ``seconds``."""

    def __init__(self, servers: Sequence[Server], in_flight: int | None, seconds: float):
        self._servers = servers
        self._in_flight = in_flight
        self._seconds = seconds

    def ask(
        self,
        wanted: Sequence[Wanted],
        of: Callable[[Wanted, Server], tuple[str, dict[str, Any]]],
    ) -> Iterator[tuple[Wanted, Server, Any]]:
        """Yield each of ``wanted`` as it is answered, with the server and the JSON that came back.

        ``of`` gives the path and body that a server is sent. What a server leaves unanswered goes to the next one that
        is free. Closing the iterator ends what is under way. Raises InputError for a request that a server refuses, and
        when all servers have failed for three minutes.
        """
        results: queue.SimpleQueue = queue.SimpleQueue()
        run = _Run([Job(one) for one in wanted], of, self, results)
        thread = threading.Thread(target=run.whole, daemon=True, name="requests to servers")
        thread.start()
        try:
            for _ in wanted:
                result = results.get()
                if isinstance(result, BaseException):
                    raise result
                yield result
        finally:
            run.stop()
            thread.join()

    def slots(self, server: Server) -> int:
        """How many requests are under way at ``server``."""
        return self._in_flight or server.slots


class _Run:
    """One call of ``Pool.ask``, in a thread of its own."""

    def __init__(self, jobs: list[Job], of: Callable, pool: Pool, results: queue.SimpleQueue):
        self._jobs = jobs
        self._of = of
        self._pool = pool
        self._results = results
        self._stopped = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task | None = None

    def whole(self) -> None:
        """Everything, from the first request to the last answer."""
        try:
            asyncio.run(self._all())
        except asyncio.CancelledError:
            pass
        except BaseExceptionGroup as group:
            self._results.put(group.exceptions[0])
        except BaseException as error:
            self._results.put(error)

    def stop(self) -> None:
        """End what is under way."""
        self._stopped.set()
        loop, main = self._loop, self._main
        if loop is not None and main is not None:
            with contextlib.suppress(RuntimeError):  # it is closed already
                loop.call_soon_threadsafe(main.cancel)

    async def _all(self) -> None:
        self._main = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        if self._stopped.is_set():
            return
        waiting: asyncio.Queue[Job] = asyncio.Queue()
        for job in self._jobs:
            waiting.put_nowait(job)
        self._left, self._done = len(self._jobs), asyncio.Event()
        if not self._left:
            return
        self._states = [State(server) for server in self._pool._servers]
        async with client(self._pool._seconds) as http, asyncio.TaskGroup() as group:
            workers = []
            for state in self._states:
                count = min(self._pool.slots(state.server), self._left)
                workers += [group.create_task(self._work(http, state, waiting)) for _ in range(count)]
            await self._done.wait()
            for worker in workers:
                worker.cancel()

    async def _work(self, http: httpx2.AsyncClient, state: State, waiting: asyncio.Queue) -> None:
        while True:
            async with state.probing if state.pause else contextlib.nullcontext():
                if (pause := state.until - self._now()) > 0:
                    await asyncio.sleep(pause)
                await self._one(http, state, waiting)

    async def _one(self, http: httpx2.AsyncClient, state: State, waiting: asyncio.Queue) -> None:
        job, server = await waiting.get(), state.server
        if state.until > self._now():  # it failed meanwhile: another server may have the request
            waiting.put_nowait(job)
            return
        path, body = self._of(job.wanted, server)
        sent = self._now()
        try:
            answer = await _asked(http, "POST", server.url + path, body)
        except Unanswered as error:
            job.tries += error.reached
            waiting.put_nowait(job)
            self._failed(state, job, error)
            return
        state.since = None
        if state.pause and sent >= state.until:  # not one that was under way when another failed
            warnings.warn(f"{server.url}: answers again", stacklevel=1)
            state.pause = 0.0
        self._results.put((job.wanted, server, answer))
        self._left -= 1
        if not self._left:
            self._done.set()

    def _failed(self, state: State, job: Job, error: Unanswered) -> None:
        now, url = self._now(), state.server.url
        if job.tries >= MOST_TRIES:
            raise InputError(f"{url}: gives no answer to a request, asked {job.tries} times: {error}")
        if now < state.until:  # another request has told so already
            return
        if state.since is None:
            state.since = now
        since = [state.since for state in self._states]
        if None not in since and now - max(since) > PATIENCE:
            raise InputError(f"{url}: no server has answered for {PATIENCE:.0f} s ({error}); start one and go on")
        if not state.pause:
            warnings.warn(f"{url}: gives no answer ({error}); others are asked, and it again later", stacklevel=1)
        state.pause = min(max(FIRST_PAUSE, 2 * state.pause), LONGEST_PAUSE)
        state.until = now + state.pause

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
