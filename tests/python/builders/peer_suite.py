"""llama.cpp's own server tests on its own server and on autodeco-server, without heads and with; the table of them.

python -m builders.peer_suite STOCK OURS: paths of llama-server and autodeco-server. Writes peer_results.json beside
the tests and the table in the documents anew; ends with 1 where a test has become worse and differences() says nothing
of it. A hub on this machine serves small random models under the names that the tests ask for.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from itertools import groupby
from pathlib import Path

from autodeco.export.llama_cpp_source import VERSION, cache_folder, unpacked
from builders.compiled import REPOSITORY
from builders.peer_hub import Hub
from builders.peer_models import write_hub

HERE = Path(__file__).parents[1]
RESULTS = HERE / "peer_results.json"
DOCUMENT = REPOSITORY / "docs" / "serve.md"
BEGIN, END = "<!-- llama.cpp's tests: written by `make server-peer` -->\n", "<!-- end of llama.cpp's tests -->\n"
FILES = ("tools/server/tests/", "models/templates/", "tools/mtmd/test-1.jpeg")
SERVERS = ("llama-server", "without heads", "with heads")

# Why a test that passes on llama-server does not with heads, by the beginning of its name.
DIFFERENCES: dict[str, str] = {}


def run(program: Path, hub: Hub, folder: Path, words: Path | None = None, only: tuple[str, ...] = ()) -> dict:
    """Outcomes and words of the tests on ``program``, and in ``folder`` its models; ``words``: those of another run."""
    source = unpacked(cache_folder() / f"server-tests-of-llama-cpp-python-{VERSION}", FILES)
    tests = source / "tools" / "server" / "tests"
    (tests / "tmp").mkdir(exist_ok=True)
    told = folder / "told.json"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "PYTHONPATH": str(HERE / "programs"),
        "PEER_TESTS": str(tests),
        "PEER_OUTCOMES": str(told),
        "PEER_WORDS": str(words or ""),
        "MODEL_ENDPOINT": hub.address,
        "LLAMA_CACHE": str(folder / "models"),
        "LLAMA_SERVER_BIN_PATH": str(program.resolve()),
        "LLAMA_ARG_THREADS": "1",  # so that a sum has one order
        "LLAMA_ARG_FIT": "off",
        "PORT": str(port),
    }
    command = [sys.executable, "-m", "pytest", "-p", "peer_plugin", "-p", "no:cacheprovider", "-q", "--tb=line"]
    subprocess.run([*command, "-m", "not slow", *only], cwd=tests, env=environment, check=False)
    return json.loads(told.read_text(encoding="utf-8"))


def compare(stock: Path, ours: Path, only: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """By test, what became of it on each of ``SERVERS``."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = None
        for i, program in enumerate((stock, ours, ours)):
            place = folder / str(i)
            place.mkdir()
            hub = Hub(write_hub(place / "hub", heads=i == 2))
            told = run(program, hub, place, words if i == 1 else None, only)
            # Once more: some tests wait for a moment that a busy machine misses.
            if failed := tuple(test for test, outcome in told["outcomes"].items() if outcome == "failed"):
                again = run(program, hub, place, words if i == 1 else None, failed)
                told = {part: told[part] | again[part] for part in told}
            hub.close()
            if words is None:
                words = folder / "words.json"
                words.write_text(json.dumps(told), encoding="utf-8")
            found.append(told["outcomes"])
    names = sorted(set().union(*found))
    return {name: [outcomes.get(name, "missing") for outcomes in found] for name in names}


def worse(results: dict[str, list[str]]) -> dict[str, list[str]]:
    """The tests that pass on llama-server and not without heads, or not with heads for no reason that is known."""
    return {
        name: outcomes
        for name, outcomes in results.items()
        if outcomes[0] == "passed" and (outcomes[1] != "passed" or (outcomes[2] != "passed" and not reason(name)))
    }


def reason(name: str) -> str:
    """Why the test ``name`` differs with heads; empty if that is not known."""
    return next((why for start, why in DIFFERENCES.items() if name.startswith(start)), "")


def table(results: dict[str, list[str]]) -> str:
    """The lines of the document: passed tests by file, and of all."""
    lines = [f"| tests of | run | {' | '.join(SERVERS)} |", "|---|---|---|---|---|"]
    ran = {name: outcomes for name, outcomes in results.items() if "skipped" not in outcomes}
    for file, names in groupby(ran, lambda name: name.partition("::")[0]):
        lines.append(_row(f"`{Path(file).stem.removeprefix('test_')}`", [ran[name] for name in names]))
    return "\n".join([*lines, _row("all", list(ran.values()))]) + "\n"


def _row(name: str, outcomes: list[list[str]]) -> str:
    passed = [sum(one[i] == "passed" for one in outcomes) for i in range(len(SERVERS))]
    return f"| {name} | {len(outcomes)} | {' | '.join(map(str, passed))} |"


def written_table() -> str:
    """The table that stands in the document."""
    return DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]


if __name__ == "__main__":
    stock, ours, *only = sys.argv[1:]
    results = compare(Path(stock), Path(ours), tuple(only))
    for name, outcomes in worse(results).items():
        print(name, *outcomes)
    if not only:
        RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
        DOCUMENT.write_text(before + BEGIN + table(results) + END + rest.partition(END)[2], encoding="utf-8")
    sys.exit(bool(worse(results)))
