"""The commands as a user types them."""

import io
import os
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch

from autodeco.cli import main


def autodeco(*arguments, stdin="") -> subprocess.CompletedProcess:
    """A command in a process of its own."""
    command = [sys.executable, "-m", "autodeco", *(str(argument) for argument in arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)


def refused(*arguments) -> str:
    """The one line that a command with bad input ends with, in this process; what libraries print counts too."""
    nothing = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file, patch("sys.stdin", nothing):
        before = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            with redirect_stderr(file), redirect_stdout(io.StringIO()):
                code = main([str(argument) for argument in arguments])
        except SystemExit as ended:  # argparse
            code = ended.code
        finally:
            os.dup2(before, 2)
            os.close(before)
        file.seek(0)
        told = file.read()
    assert code == 2, told
    assert told.startswith("autodeco: error: "), told
    assert told.count("\n") == 1, told
    return told
