"""Problems of one kind with known answers, split into test, validation and training without a question in common."""

import hashlib
import json
import random
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from autodeco.data.checkers import check, check_problems, checker
from autodeco.data.draws import drawn_entries
from autodeco.data.json_lines import json_lines
from autodeco.data.messages import check_messages, text_of
from autodeco.data.problems import problem_of, read_problems
from autodeco.data.scoring import Scorer
from autodeco.errors import InputError
from autodeco.evaluation.families import OWN, family
from autodeco.runs.atomic import replacing
from autodeco.settings.options import bare, said
from autodeco.settings.yaml_file import read_yaml

# A family may have few different questions; after so many draws for each one wanted, it is taken to have no more.
DRAWS_PER_PROBLEM = 50


@dataclass(frozen=True)
class TaskSpec:
    """A kind of problems: ``source`` is a family of reasoning-gym or of ``autodeco.evaluation.families`` with its
    ``config``, or a JSON lines file of problems.

    ``checker`` is one of ``autodeco.data.checkers``; empty: the family's own, and exact for a file. ``group`` is what
    reports call its problems together with those of other tasks, where these name no group themselves.
    """

    name: str
    source: str
    config: dict[str, Any] = field(default_factory=dict)
    checker: str = ""
    group: str = ""

    def __post_init__(self):
        for name, kind in (("name", str), ("source", str), ("config", dict), ("checker", str), ("group", str)):
            if not isinstance(value := getattr(self, name), kind):
                kinds = {str: "text", dict: "a table of settings"}
                raise InputError(f"task {said(self.name)}: its {name} {said(value)} must be {kinds[kind]}")
        if not re.fullmatch(r"[\w.+-]+", self.name):
            raise InputError(f"task {said(self.name)}: use letters, digits, '.', '+', '-' and '_' in its name")

    @property
    def is_file(self) -> bool:
        return self.source.endswith(".jsonl")

    @property
    def checked_by(self) -> str:
        """The checker that judges answers to these problems."""
        if self.checker:
            return self.checker
        own = None if self.is_file else family(self.source)
        return "exact" if self.is_file else "reasoning-gym" if own is None else own.checker


def parse_specs(texts: list[str]) -> list[TaskSpec]:
    """Read tasks from ``NAME[:key=value,...]``, ``python:MODULE:NAME`` (families), ``FILE.jsonl[:CHECKER]`` and
    ``FILE.yaml`` (a list of the fields of TaskSpec); raises InputError for anything else and for a name that comes
    twice."""
    specs: list[TaskSpec] = []
    for text in texts:
        source, _, rest = text.partition(":")
        if source.endswith((".yaml", ".yml")):
            specs += _read_yaml(Path(source))
        elif source.endswith(".jsonl"):
            specs.append(TaskSpec(Path(source).stem, source, checker=rest))
        elif text.startswith(OWN):
            specs.append(TaskSpec(text.rpartition(":")[2], text))
        else:
            specs.append(TaskSpec(source, source, dict(_setting(text, part) for part in rest.split(",") if part)))
    names = [spec.name for spec in specs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"task {twice[0]}: is there twice; give each a name of its own in a YAML file")
    return specs


def _setting(text: str, part: str) -> tuple[str, Any]:
    key, separator, value = part.partition("=")
    if not separator:
        raise InputError(f"task {text}: {part!r} is no key=value")
    try:
        return key.strip(), json.loads(value)
    except ValueError:
        return key.strip(), value.strip()


def _read_yaml(path: Path) -> list[TaskSpec]:
    tables = read_yaml(path, "give a list of tasks, each with name and source")
    known = TaskSpec.__dataclass_fields__
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise InputError(f"{path}: expected a list of tasks, each with {', '.join(known)}")
    specs = []
    for table in tables:
        if table.keys() - known or not {"name", "source"} <= table.keys():
            raise InputError(
                f"{path}: a task has {', '.join(map(bare, table))}; it needs name and source of {', '.join(known)}"
            )
        spec = TaskSpec(**table)
        # a file is named as seen from the one that names it
        specs.append(TaskSpec(**{**table, "source": str(path.parent / spec.source)}) if spec.is_file else spec)
    return specs


def question_of(problem: dict[str, Any]) -> str:
    """The text that a problem asks: its prompt, or the last message of it."""
    prompt = problem["prompt"]
    return prompt if isinstance(prompt, str) else text_of(prompt[-1])


@dataclass(frozen=True)
class TrainedOn:
    """What was trained on, normalized: ``questions``, and ``texts`` in which questions may stand anywhere."""

    questions: frozenset[str] = frozenset()
    texts: tuple[str, ...] = ()

    def __contains__(self, question: str) -> bool:
        if question in self.questions:
            return True
        anywhere = re.compile(rf"(?<!\w){re.escape(question)}(?!\w)")
        return any(anywhere.search(text) for text in self.texts)

    def __len__(self) -> int:
        return len(self.questions) + len(self.texts)

    def digest(self) -> str | None:
        """A hash of everything in it; None if it is empty."""
        every = ["\n".join(sorted(self.questions)), *self.texts]
        return hashlib.sha256("\0".join(every).encode()).hexdigest() if self else None


NOTHING = TrainedOn()


def normalized(question: str) -> str:
    """A question as it is compared with others: blanks and case do not count."""
    return " ".join(question.split()).casefold()


class Task:
    """Problems of one kind, different by text, in a seeded order: test first, then validation, then training."""

    def __init__(
        self,
        spec: TaskSpec,
        seed: int,
        test: int,
        validation: int = 0,
        training: int = 0,
        excluded: TrainedOn = NOTHING,
    ):
        """Draw the problems; ``excluded`` are questions to leave out. Raises InputError for a family, a
        configuration or a file that does not do, and when there are too few different questions."""
        self.spec = spec
        how = spec.checked_by
        self.checker, self._check = how, checker(how)
        wanted = test + validation + training
        problems, self.left_out = different_problems(spec, seed, wanted, excluded)
        if len(problems) < wanted:
            raise InputError(
                f"task {spec.name}: has {len(problems)} different questions and {wanted} are wanted; ask for fewer, or "
                "widen its config"
            )
        if spec.is_file:
            check_problems(how, problems)
        self.test = problems[:test]
        self.validation = problems[test : test + validation]
        self.training = problems[test + validation :]

    def is_right(self, problem: dict[str, Any], text: str, finished: bool) -> bool:
        """Whether an answer is wholly right; one that the limit of tokens cut off never is."""
        return finished and check(self._check, problem, text) == 1.0

    def start(self, problem: dict[str, Any], text: str, finished: bool, scorer: Scorer) -> Future:
        """Begin to find out the same with ``scorer``, of the same checker, which bounds time and memory of that."""
        if finished:
            return scorer.start(problem, text)
        cut_off: Future = Future()
        cut_off.set_result(0.0)
        return cut_off

    def was_right(self, started: Future, scorer: Scorer) -> bool:
        """What ``start`` began, once it is known."""
        return bool(scorer.scores([started])[0] == 1.0)


def different_problems(spec: TaskSpec, seed: int, wanted: int, excluded: TrainedOn = NOTHING) -> tuple[list[dict], int]:
    """Return up to ``wanted`` problems of a kind, different by text, in a seeded order; and how many draws were left
    out for being ``excluded``. Raises InputError for a family, a configuration or a file that does not do."""
    found: dict[str, dict] = {}
    left_out = 0
    listed = spec.is_file or family(spec.source) is not None
    most = DRAWS_PER_PROBLEM * (wanted + len(excluded)) + 1
    for problem in islice(_shuffled(spec, seed), most) if listed else _drawn(spec, seed, most):
        if len(found) == wanted:
            break
        key = normalized(question_of(problem))
        if key in excluded:
            left_out += 1
        else:
            found.setdefault(key, problem)
    return list(found.values()), left_out


def _drawn(spec: TaskSpec, seed: int, most: int) -> Iterator[dict]:
    """Up to ``most`` problems: a few families choose, for as many as they are told, what each is to be beforehand."""
    try:
        for entry in drawn_entries(spec.source, most, seed, spec.config):
            yield problem_of(spec.source, entry)
    except InputError as error:
        raise InputError(f"task {spec.name}: cannot be drawn from reasoning-gym's {spec.source} ({error})") from None


def _shuffled(spec: TaskSpec, seed: int) -> list[dict]:
    problems = read_problems(spec.source) if spec.is_file else list(family(spec.source).problems(spec.config))
    random.Random(seed).shuffle(problems)
    return problems


def read_questions(paths: Iterable[Path]) -> TrainedOn:
    """What the training data or problems in ``paths`` ask, JSON lines in any form that ``autodeco collect`` reads."""
    questions, texts = set(), []
    for path in paths:
        for line in json_lines(path, "prompt, messages or text"):
            asked = next((line[name] for name in ("messages", "text", "prompt") if line.get(name)), None)
            if line.get("messages") or isinstance(asked, list):
                check_messages(line.where, "messages", asked)
                questions.update(normalized(text_of(m)) for m in asked if m["role"] == "user")
            elif not isinstance(asked, str):
                raise InputError(f"{line.where}: expected a JSON object with prompt, messages or text")
            elif line.get("text"):
                texts.append(normalized(asked))
            else:
                questions.add(normalized(asked))
    return TrainedOn(frozenset(questions - {""}), tuple(sorted(set(texts))))


def write_training(tasks: list[Task], path: Path) -> int:
    """Write the training problems of ``tasks``, taking turns, to ``path`` for rollouts and rewards; return how many."""
    turns = zip_longest(*(task.training for task in tasks))
    problems = [problem for turn in turns for problem in turn if problem is not None]
    path.parent.mkdir(parents=True, exist_ok=True)
    # some families describe their problems with fractions, which only their own scorers of other answers read
    lines = (json.dumps(problem, default=str) + "\n" for problem in problems)
    with replacing(path) as part:
        part.write_text("".join(lines), encoding="utf-8")
    return len(problems)
