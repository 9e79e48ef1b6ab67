"""What devices have of the operations of heads and draws: the program's table, and Metal's rules without a Mac."""

import re
import subprocess
from pathlib import Path

from builders.compiled import compiled

REPOSITORY = Path(__file__).parents[2]
METAL_NODES = REPOSITORY / "tests" / "golden" / "metal_nodes.txt"
MOVED = f"""The pinned llama.cpp answers otherwise for Metal than {METAL_NODES.relative_to(REPOSITORY)} says.
If an operation went, heads or draws leave the GPU of a Mac: say so in docs/edge.md, or use another operation.
Then write the table anew: build/strict/metal_rules > {METAL_NODES.relative_to(REPOSITORY)}"""


def table_of(text: str) -> dict[str, list[str]]:
    """The lines of each device by its first."""
    tables = {}
    for line in text.splitlines():
        if not line.startswith("  "):
            tables[line] = lines = []
        else:
            lines.append(line.strip())
    return tables


def test_what_metal_has_is_what_the_committed_table_says():
    rules = subprocess.run([compiled("metal_rules")], capture_output=True, text=True, check=True).stdout
    assert rules == METAL_NODES.read_text(), MOVED


def test_the_committed_table_says_what_the_documentation_says():
    tables = table_of(METAL_NODES.read_text())
    page = (REPOSITORY / "docs" / "edge.md").read_text()
    assert len(tables) == 4
    for gpu, lines in tables.items():
        heads, draws = (
            re.fullmatch(r"(?:heads|draws) on the device: (.*); on the CPU: .*", line)[1] for line in lines[-2:]
        )
        assert f"| {gpu} | {heads} | {draws.replace(' ', ', ')} |" in page.splitlines()


def test_a_gpu_without_sums_over_a_group_of_threads_neither_predicts_nor_draws():
    lines = table_of(METAL_NODES.read_text())["a GPU before Metal 3 and Apple7"]
    lacking = {re.split(r"\s\s+", line)[1] for line in lines if line.endswith(" no")}
    assert {name.split()[0] for name in lacking} == {"CUMSUM", "SUM", "SUM_ROWS", "MUL_MAT"}


def test_the_program_shows_the_devices_of_this_machine():
    result = subprocess.run([compiled("autodeco-cli"), "--devices"], capture_output=True, text=True, check=True)
    tables = table_of(result.stdout)
    cpu = [lines for name, lines in tables.items() if name.startswith("CPU: ")]
    assert cpu == [["heads and draws by kernels of autodeco"]]
    assert result.stderr == ""
