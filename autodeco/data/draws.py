"""Problems drawn from families of reasoning-gym, the same ones in every process.

Some families hang on the order of Python's sets of text, which each process has for itself, or on random numbers that
nobody seeds. They are drawn in a child process where both are fixed. So a seed always means the same questions, and a
continued run asks what it asked before.
"""

import contextlib
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator

from autodeco.errors import InputError

UNORDERED = frozenset(
    {
        "codeio",
        "intermediate_integration",
        "isomorphic_strings",
        "knight_swap",
        "list_functions",
        "polynomial_multiplication",
        "ransom_note",
        "word_ladder",
    }
)
_CHILD = "from autodeco.data.draws import _write_entries; _write_entries()"


def drawn_entries(task: str, size: int, seed: int, config: dict) -> Iterator[dict]:
    """Return the ``size`` entries of a family in their order; raises InputError with the reason if it cannot draw them.

    The first is drawn at once, so that a wrong configuration is told where it is given.
    """
    entries = (_of_child if _hangs_on_order(task, config) else _entries)(task, size, seed, config)
    first = next(entries)
    return _with_first(first, entries)


def _with_first(first: dict, others: Iterator[dict]) -> Iterator[dict]:
    yield first
    yield from others


def _hangs_on_order(task: str, config: dict) -> bool:
    parts = config.get("datasets") if task == "composite" and isinstance(config, dict) else None
    named = [part.get("name") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else [task]
    return not UNORDERED.isdisjoint(map(str, named))


def _entries(task: str, size: int, seed: int, config: dict) -> Iterator[dict]:
    import reasoning_gym
    from reasoning_gym.composite import DatasetSpec

    try:
        if task == "composite" and isinstance(parts := config.get("datasets"), list):
            config = config | {"datasets": [DatasetSpec(**{"weight": 1.0, "config": {}, **part}) for part in parts]}
        entries = reasoning_gym.create_dataset(task, size=size, seed=seed, **config)
        for index in range(size):
            with contextlib.redirect_stdout(io.StringIO()):  # some print while they draw
                entry = entries[index]
            yield entry
    except Exception as error:  # assertions, and whatever wrong values of a configuration lead to
        raise InputError(str(error) or type(error).__name__) from None


def _of_child(task: str, size: int, seed: int, config: dict) -> Iterator[dict]:
    """Yield the entries as JSON holds them; the child ends with this iterator."""
    try:
        asked = json.dumps([task, size, seed, config])
    except (TypeError, ValueError) as error:
        raise InputError(str(error)) from None
    path = os.pathsep.join(path for path in sys.path if path)
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", _CHILD, asked],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": path},
    )
    try:
        for _ in range(size):
            line = child.stdout.readline()
            if not line.endswith(b"\n"):
                raise InputError("the process that draws it was ended")
            said = json.loads(line)
            if "error" in said:
                raise InputError(said["error"])
            yield said["entry"]
    finally:
        child.kill()
        child.stdout.close()
        child.wait()


def _write_entries() -> None:
    """Write the entries that the command line asks for, a line of JSON each."""
    task, size, seed, config = json.loads(sys.argv[1])
    random.seed(seed)
    try:
        for entry in _entries(task, size, seed, config):
            print(json.dumps({"entry": entry}), flush=True)
    except (InputError, TypeError, ValueError) as error:  # the last two: what JSON does not hold
        print(json.dumps({"error": str(error)}), flush=True)
