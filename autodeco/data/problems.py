"""Files of problems: JSON lines, or a YAML list of reasoning-gym tasks that generate them."""

import os
from pathlib import Path

from autodeco.data.draws import drawn_entries
from autodeco.data.json_lines import Line, json_lines
from autodeco.data.messages import check_messages, checked_tools
from autodeco.errors import InputError
from autodeco.settings.options import checked
from autodeco.settings.yaml_file import read_yaml

MOST_DRAWN = 1_000_000  # problems of one family
TASK_KEYS = {"task", "size", "seed", "config"}


def read_problems(path: str | os.PathLike) -> list[Line]:
    """Return the problems in ``path``, each with ``prompt`` (text or messages) and what its checker needs.

    A ``.jsonl`` file has one object a line, with ``prompt`` and usually ``answer``. A ``.yaml`` file is a list of
    reasoning-gym tasks, ``{task, size, seed, config}``, whose distinct questions become chat prompts, interleaved.
    Raises InputError for anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give problems as JSON lines, or reasoning-gym tasks as YAML")
    if path.suffix not in (".yaml", ".yml"):
        return _written(path)
    if not (problems := _drawn(path)):
        raise InputError(f"{path}: holds no problem")
    return problems


def _written(path: Path) -> list[Line]:
    problems: list[Line] = []
    for problem in json_lines(path, "a prompt, and usually an answer"):
        if not problem.get("prompt"):
            raise InputError(f"{problem.where}: expected a JSON object with a prompt, text or messages")
        if not isinstance(problem["prompt"], str):
            check_messages(problem.where, "prompt", problem["prompt"])
        problem["tools"] = checked_tools(problem.where, problem.get("tools"))
        if problem["tools"] is None:
            del problem["tools"]
        problems.append(problem)
    return problems


def _drawn(path: Path) -> list[Line]:

    tasks = read_yaml(path, "give a list of tasks, each with task, size, seed and config")
    if not isinstance(tasks, list) or not all(isinstance(task, dict) and "task" in task for task in tasks):
        raise InputError(f"{path}: expected a list of tasks, each with task, size, seed and config")
    families = []
    for task in tasks:
        if unknown := sorted(map(str, task.keys() - TASK_KEYS)):
            raise InputError(f"{path}: {task['task']} has no setting {', '.join(unknown)}; config holds the task's own")
        checked(f"{path}: task", task["task"], str)
        size = checked(f"{path}: size", task.get("size", 100), int, 1, MOST_DRAWN)
        seed = checked(f"{path}: seed", task.get("seed", 0), int, 0, 2**63 - 1)
        try:
            entries = drawn_entries(task["task"], size, seed, task.get("config") or {})
            distinct = {entry["question"]: entry for entry in reversed(list(entries))}
        except InputError as error:
            raise InputError(f"{path}: task {task['task']} cannot be drawn ({error})") from None
        family = [problem_of(task["task"], entry) for entry in reversed(distinct.values())]
        for number, problem in enumerate(family, start=1):
            problem.where = f"{path}, task {task['task']}, problem {number}"
        families.append(family)
    order = [(i / len(family), name, i) for name, family in enumerate(families) for i in range(len(family))]
    return [families[name][i] for _, name, i in sorted(order)]


def problem_of(task: str, entry: dict) -> Line:
    """Return the problem that an ``entry`` of the reasoning-gym family ``task`` is."""
    prompt = [{"role": "user", "content": entry["question"]}]
    problem = Line(prompt=prompt, answer=entry["answer"], task=task, entry=entry)
    problem.where = f"task {task}, question {entry['question'][:60]!r}"
    return problem
