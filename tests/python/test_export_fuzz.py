"""Whatever bytes a file holds, its readers end soon, in little memory, with a value or with one line.

Twenty seconds here; AUTODECO_FUZZ_SECONDS=600 for longer. Starts from tests/corpus.
"""

import os
import struct
import time
import tracemalloc
from pathlib import Path

import pytest

from autodeco.errors import InputError
from autodeco.export.checkpoint import read_heads
from autodeco.export.fingerprint import fingerprint
from autodeco.export.gguf_file import read_gguf
from autodeco.export.layout import open_layout
from autodeco.export.split import split

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

SECONDS = float(os.environ.get("AUTODECO_FUZZ_SECONDS", "20"))
CORPUS = Path(__file__).parent.parent / "corpus"
SEEDS = {kind: sorted(CORPUS.glob(f"*.{kind}-seed")) for kind in ("gguf", "safetensors")}

# Header objects weigh more than the bytes that describe them (a key of 14 bytes makes an object of some 400), but never
# more than in proportion to the file.
MEMORY_PER_BYTE, MEMORY_AT_LEAST = 64, 4 << 20
LONGEST = 2.0  # seconds for a file of a few kilobytes

INTERESTING = [0, 1, 4, 7, 8, 9, 12, 13, 31, 32, 33, 63, 64, 255, 256, 1 << 16, 1 << 20, (1 << 31) - 1, 1 << 31]
INTERESTING += [(1 << 32) - 1, 1 << 32, 1 << 40, 1 << 60, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]


@st.composite
def mutations(draw, kind):
    """A file: a seed with a few of its bytes, integers or stretches changed."""
    data = bytearray(draw(st.sampled_from(SEEDS[kind])).read_bytes())
    for _ in range(draw(st.integers(0, 6))):
        # Most of what can go wrong stands at the front.
        front = min(len(data), 3000 if draw(st.booleans()) else len(data))
        at = draw(st.integers(0, max(0, front - 1)))
        match draw(st.sampled_from(["bytes", "u64", "u32", "cut", "insert", "copy", "bit"])):
            case "bytes":
                new = draw(st.binary(min_size=1, max_size=8))
                data[at : at + len(new)] = new
            case "u64":
                data[at : at + 8] = struct.pack("<Q", draw(st.sampled_from(INTERESTING)))
            case "u32":
                data[at : at + 4] = struct.pack("<I", draw(st.sampled_from(INTERESTING)) & 0xFFFFFFFF)
            case "cut":
                del data[at : at + draw(st.integers(1, 64)) if draw(st.booleans()) else None]
            case "insert":
                data[at:at] = draw(st.binary(max_size=32))
            case "copy":
                start = draw(st.integers(0, max(0, len(data) - 1)))
                data[at:at] = data[start : start + draw(st.integers(1, 200))]
            case "bit" if data:
                data[at] ^= 1 << draw(st.integers(0, 7))
    return bytes(data)


def tried(read, *arguments):
    """Result of ``read``, or None where it refuses in one line; anything else that is raised is a failure."""
    try:
        return read(*arguments)
    except InputError as error:
        if "\n" in str(error):
            raise AssertionError(f"more than one line: {error}") from error
        return None


def read_gguf_every_way(path: Path) -> None:
    tried(read_gguf, path)
    tried(read_heads, path)
    layout = tried(open_layout, path)
    if layout is not None and layout.brings_heads:
        parts = tried(split, layout, path.parent / "parts")
        if parts is not None:
            assert fingerprint(parts[0]) == layout.model_fingerprint
            assert tried(open_layout, parts[0]).kind == "plain"
            assert open_layout(parts[1]).kind == "sidecar"
        if parts is not None and layout.kind == "merged":
            inside = path.read_bytes()[layout.base_offset : layout.base_offset + layout.base_size]
            assert parts[0].read_bytes() == inside


def read_safetensors(path: Path) -> None:
    tried(read_heads, path, 8)


def check(path: Path, data: bytes, read) -> None:
    path.write_bytes(data)
    tracemalloc.start()  # here only: it slows the making of files down
    try:
        started = time.perf_counter()
        read(path)
        assert time.perf_counter() - started < LONGEST
        _, peak = tracemalloc.get_traced_memory()
        assert peak < MEMORY_AT_LEAST + MEMORY_PER_BYTE * len(data)
    finally:
        tracemalloc.stop()


READERS = {"gguf": read_gguf_every_way, "safetensors": read_safetensors}


@pytest.mark.parametrize("kind", READERS)
def test_every_file_of_the_corpus(tmp_path, kind):
    assert len(SEEDS[kind]) >= 3
    for seed in SEEDS[kind]:
        check(tmp_path / "file", seed.read_bytes(), READERS[kind])


@pytest.mark.slow
@pytest.mark.parametrize("kind", READERS)
def test_mutated_files(tmp_path, kind):
    end, rounds = time.monotonic() + SECONDS / len(READERS), 0
    while time.monotonic() < end:
        rounds += 1

        @hypothesis.seed(rounds)
        @hypothesis.settings(
            max_examples=100, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
        )
        @hypothesis.given(mutations(kind))
        def one_round(data):
            check(tmp_path / "file", data, READERS[kind])

        one_round()
    print(f"{kind}: {rounds * 100} files")
