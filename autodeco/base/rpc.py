"""Devices of other machines, by llama.cpp's RPC."""

import ctypes
import socket

import llama_cpp
import llama_cpp.llama_cpp as llama_cpp_api

from autodeco.errors import InputError

TIMEOUT = 10  # seconds, for a server to answer


def add_servers(endpoints: str) -> None:
    """Let llama.cpp use the devices of servers, "host:port,host:port", for every model that this process opens later.

    Raises InputError where llama.cpp has no RPC, for what is no endpoint, and where no server answers.
    """
    ggml = llama_cpp_api._lib  # what libllama links is found through it
    if not llama_cpp.llama_supports_rpc():
        ggml.ggml_backend_load_all()  # it may be a library of its own
    if not llama_cpp.llama_supports_rpc():
        raise InputError(
            "rpc_servers: the installed llama-cpp-python has no RPC; install it again, from source, with "
            "CMAKE_ARGS=-DGGML_RPC=ON"
        )
    for endpoint in endpoints.split(","):
        _check(endpoint)
        server = _adding(ggml)(endpoint.encode())
        if not server:
            raise InputError(f"rpc_servers: the server at {endpoint} has no devices, or is of another version")
        ggml.ggml_backend_register(ctypes.c_void_p(server))


def _adding(ggml: ctypes.CDLL):
    """llama.cpp's function that adds a server."""
    ggml.ggml_backend_reg_by_name.restype = ctypes.c_void_p
    ggml.ggml_backend_reg_get_proc_address.restype = ctypes.c_void_p
    backend = ctypes.c_void_p(ggml.ggml_backend_reg_by_name(b"RPC"))
    function = ggml.ggml_backend_reg_get_proc_address(backend, b"ggml_backend_rpc_add_server")
    return ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p)(function)


def _check(endpoint: str) -> None:
    """Raise InputError where nobody listens: llama.cpp aborts the process there."""
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InputError(f"rpc_servers: {endpoint!r} is no host:port")
    try:
        socket.create_connection((host, int(port)), TIMEOUT).close()
    except OSError as error:
        raise InputError(
            f"rpc_servers: no server answers at {endpoint} ({error.strerror or error}); start ggml-rpc-server there, "
            "of the same version of llama.cpp"
        ) from None
