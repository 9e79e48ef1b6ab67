"""The commands as a user types them, in a process of their own."""

import subprocess
import sys


def autodeco(*arguments, stdin="") -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "autodeco", *(str(argument) for argument in arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)


def refused(*arguments) -> str:
    """The one line that a command with bad input ends with."""
    result = autodeco(*arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("autodeco: error: ")
    assert result.stderr.count("\n") == 1, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr
