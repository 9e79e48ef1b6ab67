"""llama.cpp's RPC backend: devices of another process, here on this machine."""

import contextlib
import ctypes
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import llama_cpp

# The files that libllama itself has loaded: under their other names they would be loaded a second time.
LIBRARIES = Path(llama_cpp.__file__).parent / "lib"
SERVER = Path(__file__).parents[1] / "programs" / "rpc_server.py"

ggml = ctypes.CDLL(str(LIBRARIES / "libggml.so.0"))
base = ctypes.CDLL(str(LIBRARIES / "libggml-base.so.0"))
ggml.ggml_backend_load.restype = ctypes.c_void_p
ggml.ggml_backend_load.argtypes = [ctypes.c_char_p]
ggml.ggml_backend_register.argtypes = [ctypes.c_void_p]
ggml.ggml_backend_dev_by_name.restype = ctypes.c_void_p
ggml.ggml_backend_dev_by_name.argtypes = [ctypes.c_char_p]
base.ggml_backend_reg_get_proc_address.restype = ctypes.c_void_p
base.ggml_backend_reg_get_proc_address.argtypes = [ctypes.c_void_p, ctypes.c_char_p]


def rpc_function(library: str | Path, name: str, result, *arguments):
    """A function of the RPC backend in ``library``."""
    backend = ggml.ggml_backend_load(str(library).encode())
    assert backend, f"{library}: ggml does not load it"
    return ctypes.CFUNCTYPE(result, *arguments)(base.ggml_backend_reg_get_proc_address(backend, name.encode()))


def add_server(library: str | Path, endpoint: str) -> None:
    """Let llama.cpp use the devices at ``endpoint`` from now on."""
    backend = rpc_function(library, "ggml_backend_rpc_add_server", ctypes.c_void_p, ctypes.c_char_p)(endpoint.encode())
    assert backend, f"no server at {endpoint}"
    ggml.ggml_backend_register(backend)


@contextlib.contextmanager
def serving(library: str | Path) -> Iterator[tuple[str, subprocess.Popen]]:
    """The endpoint of a server, and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, SERVER, library, endpoint]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(200):
                with contextlib.suppress(OSError), socket.create_connection(endpoint.split(":")):
                    break
                time.sleep(0.1)
            yield endpoint, server
        finally:
            server.kill()
