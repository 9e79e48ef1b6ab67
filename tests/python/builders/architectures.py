"""Every architecture that llama.cpp can make a tiny model of, run with heads; and the table of them in the documents.

python -m builders.architectures writes the table anew.
"""

import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

from autodeco.export.language_models import REFUSED
from builders.compiled import REPOSITORY, built

PROGRAM = Path(__file__).parents[1] / "programs" / "check_architectures.py"
SOURCE = REPOSITORY / "build" / "llama.cpp"
DOCUMENT = REPOSITORY / "docs" / "compatibility.md"
BEGIN, END = "<!-- architectures: written by `make architectures` -->\n", "<!-- end of architectures -->\n"
LARGEST_DISTANCE = 1e-3
WAYS = ("graph", "host", "logits_all", "batch", "evaluation", "collect", "layouts")
PARTS = ("[a-c]", "d", "[e-g]", "[h-l]", "[m-o]", "[p-z]")  # by first letters: all models together are 900 MB


def sweep() -> dict[str, dict]:
    """What came of each model, by the name of its file; two processes run at a time."""
    generator = built("generate_architectures")
    with ThreadPoolExecutor(2) as pool:
        return {name: found for part in pool.map(lambda p: _part(generator, p), PARTS) for name, found in part.items()}


def _part(generator: Path, first: str) -> dict[str, dict]:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [generator, "-a", f"^{first}", "-s", "1", "-o", folder], check=True, capture_output=True, timeout=300
        )
        return _checked(sorted(Path(folder).glob("*.gguf")))


def _checked(models: list[Path]) -> dict[str, dict]:
    found: dict[str, dict] = {}
    while left := [model for model in models if model.stem not in found]:
        done = subprocess.run(
            ["nice", sys.executable, PROGRAM, *left], capture_output=True, text=True, check=False, timeout=600
        )
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        found |= {line["model"]: line for line in lines if "distances" in line}
        if done.returncode:  # llama.cpp has ended the process
            died = next(model.stem for model in left if model.stem not in found)
            way = lines[-1].get("way", "opening") if lines and lines[-1]["model"] == died else "opening"
            found[died] = {"model": died, "distances": {}, "failed": {way: f"ended by {done.returncode}"}}
    return found


def architecture(model: str) -> str:
    """The architecture of a generated file, which names its variant too."""
    return re.sub("-(dense|moe)$", "", model)


def wrong(found: dict) -> dict:
    """By way of running it, what was wrong with a model."""
    far = {way: distance for way, distance in found["distances"].items() if not distance <= LARGEST_DISTANCE}
    missing = {way: "did not run" for way in WAYS if way not in found["distances"]}
    return missing | far | found.get("failed", {})


def known() -> set[str]:
    """All architectures of the pinned llama.cpp."""
    code = (SOURCE / "src" / "llama-arch.cpp").read_text()
    names = re.search(r"LLM_ARCH_NAMES = \{(.*?)\n\};", code, re.DOTALL).group(1)
    return set(re.findall(r'LLM_ARCH_\w+,\s*"([^"()]+)"', names))


def table(results: dict[str, dict]) -> str:
    """The lines of the document."""
    works = {architecture(model) for model, found in results.items() if "refused" not in found and not wrong(found)}
    works -= {architecture(model) for model, found in results.items() if "refused" in found or wrong(found)}
    untried = known() - works - set(REFUSED) - {architecture(model) for model in results}
    lines = [
        "| | |",
        "|---|---|",
        f"| work ({len(works)}) | {_names(works)} |",
        *(
            f"| refused: {what} | {_names(names)} |"
            for what, names in groupby(sorted(REFUSED, key=REFUSED.get), REFUSED.get)
        ),
        f"| not tried: llama.cpp makes no tiny model of them | {_names(untried)} |",
    ]
    return "\n".join(lines) + "\n"


def _names(architectures) -> str:
    return ", ".join(f"`{name}`" for name in sorted(architectures))


def written_table() -> str:
    """The table that stands in the document."""
    return DOCUMENT.read_text().partition(BEGIN)[2].partition(END)[0]


if __name__ == "__main__":
    results = sweep()
    for model, found in results.items():
        if "refused" not in found and wrong(found):
            sys.exit(f"{model}: {wrong(found)}")
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    DOCUMENT.write_text(before + BEGIN + table(results) + END + rest.partition(END)[2])
