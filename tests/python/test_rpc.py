"""Models on a device of another process: what the sampler adds to the graph runs in this one, or is a device's own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from builders.compiled import built
from builders.lfm2_model import write_lfm2
from builders.random_heads import write_random_heads
from builders.rpc import serving

PROGRAM = Path(__file__).parent / "programs" / "draw_in_every_way.py"


def drawn(*arguments) -> dict:
    # a process of its own, for llama.cpp keeps its devices
    done = subprocess.run([sys.executable, PROGRAM, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.slow
def test_every_way_of_drawing_gives_over_rpc_what_it_gives_here(tmp_path):
    library = built("ggml_rpc", "libggml_rpc.so")
    model = write_lfm2(tmp_path / "lfm2.gguf")
    heads = write_random_heads(tmp_path / "heads.gguf", model)
    here = drawn(model, heads)
    assert len({tuple(tokens) for tokens in here.values() if isinstance(tokens[0], int)}) > 3, "the ways are too alike"
    with serving(library) as (endpoint, server):
        there = drawn(model, heads, library, endpoint)
        assert server.poll() is None
    assert there == here
