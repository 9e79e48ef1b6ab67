"""The C++ tests, which `make strict` builds."""

import subprocess
from pathlib import Path

PROGRAM = Path(__file__).parents[2] / "build" / "strict" / "test_sampler"


def test_the_sampler_from_cpp(smollm2, exported):
    assert PROGRAM.exists(), "run `make strict` first, as `make test` does"
    result = subprocess.run(
        [PROGRAM, smollm2, exported("f32")], capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "12 passed, 0 failed" in result.stdout


def test_tokens_become_text():
    result = subprocess.run([PROGRAM.with_name("test_text_stream")], capture_output=True, text=True, check=False)
    assert "12 passed, 0 failed" in result.stdout, result.stdout
