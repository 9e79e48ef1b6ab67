"""autodeco-server ends at SIGTERM, whatever lock the thread that the signal interrupts holds."""

import contextlib
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from builders.server import running
from builders.tiny_llama import write_llama

pytestmark = pytest.mark.slow  # the server is compiled first

TIMES, CLIENTS = 30, 4
# After SIGUSR1, the main thread gets SIGTERM while it holds the next lock that it takes: the one of the tasks, of the
# answers or of the log.
SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile sig_atomic_t armed;

static void arm(int signal) { (void) signal; armed = 1; }

__attribute__((constructor)) static void begin(void) { signal(SIGUSR1, arm); }

int pthread_mutex_unlock(pthread_mutex_t * mutex) {
    static int (*unlock)(pthread_mutex_t *);
    if (!unlock) {
        unlock = (int (*)(pthread_mutex_t *)) dlsym(RTLD_NEXT, "pthread_mutex_unlock");
    }
    if (armed && syscall(SYS_gettid) == getpid()) {
        armed = 0;
        raise(SIGTERM);
    }
    return unlock(mutex);
}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("signals") / "model.gguf")


@pytest.fixture
def interrupted_in_locks(tmp_path, monkeypatch) -> Path:
    """A library for programs that start: it interrupts them while they hold a lock."""
    if sys.platform != "linux":
        pytest.skip("the library is for Linux")
    source, library = tmp_path / "locked.c", tmp_path / "locked.so"
    source.write_text(SOURCE)
    subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    monkeypatch.setenv("LD_PRELOAD", str(library))
    return library


def stream(server) -> None:
    """Ask for long answers until the server ends."""
    with contextlib.suppress(OSError, ValueError):
        while True:
            server.stream("/completion", prompt=[1, 2, 3], n_predict=200)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGUSR1], ids=["SIGTERM", "SIGTERM in a lock"])
def test_a_server_under_load_ends_at_a_signal(model, tmp_path, how, request):
    if how == signal.SIGUSR1:
        request.getfixturevalue("interrupted_in_locks")
    for time in range(TIMES):
        arguments = tmp_path / f"{time}.log", "-m", model, "-np", CLIENTS, "-c", CLIENTS * 256
        with running(*arguments) as server, ThreadPoolExecutor(CLIENTS) as clients:
            for _ in range(CLIENTS):
                clients.submit(stream, server)
            server.post("/completion", prompt=[1], n_predict=1 + time)
            server.process.send_signal(how)
            try:
                assert server.process.wait(timeout=60) == 0, server.log.read_text()[-2000:]
            finally:
                server.process.kill()  # else its clients wait for it
