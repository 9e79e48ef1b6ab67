"""Install the llama-cpp-python of constraints.txt, and say how far its compiling is, of which pip shows nothing.

python cmake/install_llama_cpp_python.py    with the Python that shall have it; CMAKE_ARGS and pip's settings count
"""

import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

FOLDER = Path(__file__).resolve().parent
STEP = re.compile(r"\s*\[(\d+)/(\d+)\] ")  # as ninja begins its lines
SECONDS_BETWEEN_LINES = 15
LINES_OF_A_FAILURE = 40


def requirement() -> str:
    """What pyproject.toml requires of llama-cpp-python."""
    pyproject = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8"))
    requirements = pyproject["project"]["dependencies"]
    return next(each for each in requirements if each.startswith("llama-cpp-python"))


def environment() -> dict[str, str]:
    """The environment with a CMAKE_ARGS that leaves out what Python never loads of llama.cpp."""
    less = shlex.quote(f"-DCMAKE_PROJECT_llama_cpp_INCLUDE={FOLDER / 'llama_cpp_python.cmake'}")
    return {**os.environ, "CMAKE_ARGS": f"{os.environ.get('CMAKE_ARGS', '')} {less}"}


def follow(lines: Iterable[str], log: TextIO) -> None:
    """Write ``lines`` to ``log`` and print the progress that ninja tells in them: on a terminal in one line."""
    terminal = sys.stdout.isatty()
    begun = told = None
    for line in lines:
        log.write(line)
        step = STEP.match(line)
        if not step:
            continue
        now = time.monotonic()
        if begun is None:
            begun = now
            print("llama.cpp is compiled, once: pip keeps the result", flush=True)
        done, steps = map(int, step.groups())
        if terminal or told is None or done == steps or now - told >= SECONDS_BETWEEN_LINES:
            told = now
            minutes, seconds = divmod(round(now - begun), 60)
            text = f"llama.cpp: {done} of {steps} steps after {minutes}:{seconds:02} minutes"
            print(f"\r{text}" if terminal else text, end="" if terminal and done < steps else "\n", flush=True)


def run(command: list[str], log: Path) -> int:
    """Run ``command`` with its output in ``log`` and its progress on the screen; return its exit status."""
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8", "errors": "replace"}
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(command, env=environment(), **output) as process,
    ):
        follow(process.stdout, file)
    if process.returncode:
        said = [line for line in log.read_text(encoding="utf-8").splitlines() if not STEP.match(line)]
        print(*said[-LINES_OF_A_FAILURE:], sep="\n", file=sys.stderr)
        print(f"llama-cpp-python was not installed; all that pip said is in {log}", file=sys.stderr)
    return process.returncode


def main() -> int:
    print("llama-cpp-python: fetching", flush=True)
    command = [sys.executable, "-m", "pip", "install", "--verbose", requirement()]
    command += ["--constraint", str(FOLDER.parent / "constraints.txt")]
    failed = run(command, Path(sys.prefix) / "llama-cpp-python.log")
    if not failed:
        print("llama-cpp-python: installed", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
