"""llama-cpp-python's own tests, run on autodeco.Llama."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from autodeco.export.llama_cpp_source import PACKAGE, VERSION, cache_folder, unpacked

HERE = Path(__file__).parent
TESTS = ("tests/", "vendor/llama.cpp/models/ggml-vocab-llama-spm.gguf")


@pytest.mark.slow
def test_llama_cpp_python_s_tests_pass(exported):
    folder = unpacked(cache_folder() / f"tests-of-llama-cpp-python-{VERSION}", TESTS, PACKAGE)
    environment = {"PYTHONPATH": str(HERE / "programs"), "AUTODECO_TEST_HEADS": str(exported("f32"))}
    command = [sys.executable, "-m", "pytest", "-p", "stock_plugin", "-p", "no:cacheprovider", "-q", "tests"]
    result = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout[-5000:]
    assert re.search(r"\b12 passed, 14 skipped\b", result.stdout), result.stdout[-500:]
