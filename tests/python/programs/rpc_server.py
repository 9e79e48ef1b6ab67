"""Serve this process's CPU as a device of llama.cpp: python rpc_server.py LIBGGML_RPC.so HOST:PORT"""

import ctypes
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from builders.rpc import ggml, rpc_function

if __name__ == "__main__":
    library, endpoint = sys.argv[1:]
    arguments = ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p
    start = rpc_function(library, "ggml_backend_rpc_start_server", None, *arguments)
    devices = (ctypes.c_void_p * 1)(ggml.ggml_backend_dev_by_name(b"CPU"))
    start(endpoint.encode(), None, 1, 1, devices)
