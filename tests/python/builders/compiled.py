"""What `make strict` builds from the C++."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
STRICT = REPOSITORY / "build" / "strict"


def compiled(name: str = "") -> Path:
    """A program of the build that AUTODECO_CPP_TESTS names, or of `make strict`; without a build the test is skipped.

    `make test` has built it before it runs a test, so nothing is skipped there.
    """
    asked = os.environ.get("AUTODECO_CPP_TESTS")
    folder = REPOSITORY / asked if asked else STRICT
    if not asked and not folder.exists():
        pytest.skip("the C++ is not built; run `make strict`, as `make test` does")
    assert (folder / name).exists(), f"{folder / name} was not built"
    return folder / name


def built(target: str, file: str = "") -> Path:
    """A part of the C++ that `make strict` leaves out, built now; ``file`` is its name where that is not ``target``."""
    compiled()  # skips where nothing is
    command = ["nice", Path(sys.executable).parent / "cmake", "--build", STRICT, "--target", target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return STRICT / (file or target)
