"""llama-cpp-python's own tests, run on autodeco.Llama."""

import os
import re
import subprocess
import sys
from pathlib import Path

from autodeco.export.llama_cpp_source import package_tests

HERE = Path(__file__).parent


def test_llama_cpp_python_s_tests_pass(exported):
    environment = {"PYTHONPATH": str(HERE), "AUTODECO_TEST_HEADS": str(exported("f32"))}
    command = [sys.executable, "-m", "pytest", "-p", "stock_plugin", "-p", "no:cacheprovider", "-q", "tests"]
    result = subprocess.run(
        command, cwd=package_tests(), env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout[-5000:]
    assert re.search(r"\b12 passed, 14 skipped\b", result.stdout), result.stdout[-500:]
