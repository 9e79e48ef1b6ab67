"""A short run of the soak: benchmarks/soak.py is the long one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parent.parent.parent / "benchmarks" / "soak.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="private memory is read from /proc")
def test_generations_loads_and_changes_of_heads_leave_no_memory_behind(tmp_path):
    result = tmp_path / "soak.json"
    command = [sys.executable, SOAK, "--generations", "120", "--loads", "12", "--output", result]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    growth = json.loads(result.read_text())["growth_mb"]
    assert set(growth) == {"generations", "loads"}
    assert max(growth.values()) < 5
