"""Load damaged copies of a heads file, many times, in a process that may die of it.

python damaged_heads.py HEADS.gguf COUNT HEADER_BYTES [SEED]
"""

import ctypes
import random
import sys
import tempfile
from pathlib import Path

import llama_cpp

from autodeco import native
from autodeco.errors import InputError

BYTES = [0, 1, 127, 128, 255]
NUMBERS = [0, 10**6, 2**32, 2**60, 2**63 - 1, 2**64 - 1]


@llama_cpp.llama_log_callback
def quiet(level, text, data):
    """llama.cpp would print a line for each."""


def damaged(data: bytes, header: int, rng: random.Random) -> bytes:
    """``data`` with a few bytes of its header changed, numbers put in, stretches cut out, or the end missing."""
    result = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        at = rng.randrange(min(header, len(result)))
        kind = rng.random()
        if kind < 0.6:
            result[at] = rng.choice([*BYTES, rng.randrange(256)])
        elif kind < 0.8:
            result[at : at + 8] = rng.choice(NUMBERS).to_bytes(8, "little")
        elif kind < 0.9:
            del result[at : at + rng.randrange(1, 64)]
        else:
            return bytes(result[: rng.randrange(1, len(result))])
    return bytes(result)


def main(path: str, count: str, header: str, seed: str = "0") -> None:
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    data, rng = Path(path).read_bytes(), random.Random(int(seed))
    refused = 0
    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        for _ in range(int(count)):
            Path(file.name).write_bytes(damaged(data, int(header), rng))
            try:
                native.load_heads(file.name)
            except InputError:
                refused += 1
    print(refused)


if __name__ == "__main__":
    main(*sys.argv[1:])
