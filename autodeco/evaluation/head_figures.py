"""The figures of one set of heads on one task, JSON-ready."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from autodeco.data import statistics
from autodeco.evaluation import methods
from autodeco.evaluation.answer_logs import Pass
from autodeco.evaluation.methods import Method
from autodeco.evaluation.rates import by_problem, known_ks, rates
from autodeco.evaluation.running import TaskPasses, mean_of
from autodeco.evaluation.settings import Settings
from autodeco.evaluation.tasks import question_of

BEST = "best on validation"
ORACLE = "best on test (oracle)"
EXAMPLES = 6
FIRST = 3
LEAST_ANSWERS = 10  # at a position, for its mean to be shown


def guided_by(passes: Mapping[str, Pass]) -> list[Method]:
    """The methods among ``passes`` that are a whole set of heads each."""
    return [answers.method for answers in passes.values() if answers.method.name == methods.AUTODECO.name]


def sets_of(task: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The figures of each set of heads in those of a ``task``, or of all together, by its title; of the only set, they
    are among the task's own."""
    if "heads" in task:
        return task["heads"]
    return {methods.AUTODECO.name: task} if "against" in task else {}


def head_figures(
    passes: TaskPasses, ours: Method, chosen: Mapping[str, str], rules: Mapping[str, Any], settings: Settings
) -> dict[str, Any]:
    """The figures of the heads that are called ``ours``; ``chosen`` are the static settings BEST and ORACLE, ``rules``
    has the settings of each rule, and the best of them."""
    guided, predicted = passes.test[ours.title], passes.validation[ours.title]
    rivals = _rivals(passes, ours, chosen, rules)
    return {
        "against": {
            rival: {"method": title, **_against(guided, passes.test[title], settings)}
            for rival, title in rivals.items()
        },
        "mean": dict(zip(("temperature", "top_p"), mean_of(predicted), strict=True)),
        "spread": {name: _spread(predicted, name) for name in ("temperature", "top_p")},
        "positions": _positions(guided),
        "examples": _examples(passes, ours, chosen[BEST], settings.seed),
        "first": _first(passes, ours, chosen[ORACLE]),
    }


def _rivals(passes: TaskPasses, ours: Method, chosen: Mapping[str, str], rules: Mapping[str, Any]) -> dict[str, str]:
    """The titles of the methods that heads are compared with, by what they are to these: those made of them by their
    own name, other sets of heads by title, and the best settings of static ones and rules."""
    fixed = {m.name: m.name for m in (methods.GREEDY, methods.DEFAULT) if m.name in passes.test}
    static = {name for name, answers in passes.validation.items() if answers.method.is_static}
    tuned = {name for of_one in rules.values() for name in of_one["settings"]}
    others = {}
    for title, answers in passes.test.items():
        method = answers.method
        if title == ours.title or title in static or title in tuned:
            continue
        if method.of == ours.of:
            others[method.name] = title
        elif not method.of or method.name == methods.AUTODECO.name:
            others[title] = title
    best = {
        f"{rule}, {how}" if len(of_one["settings"]) > 1 else rule: of_one[how]
        for rule, of_one in rules.items()
        for how in (BEST, ORACLE)
    }
    return {**fixed, **chosen, **others, **best}


def _against(guided: Pass, rival: Pass, settings: Settings) -> dict[str, Any]:
    """The paired difference at pass@1, and under ``pass_at`` at each k for which both have answers enough."""
    problems = settings.test
    pass_at = {
        str(k): statistics.paired(rates(guided, problems, k), rates(rival, problems, k), settings.seed)
        for k in known_ks(rival, problems, known_ks(guided, problems, settings.ks))
    }
    return {**pass_at["1"], "pass_at": pass_at}


def _spread(answers: Pass, name: str) -> list[float]:
    """10th and 90th percentile of temperature or top-p over all tokens."""
    return np.percentile([value for row in answers.rows for value in row[name]], [10, 90]).tolist()


def _positions(answers: Pass) -> dict[str, list]:
    """Mean, 10th and 90th percentile of temperature and top-p at each position that enough answers are long enough
    for."""
    found: dict[str, list] = {"answers": []}
    longest = max(row["tokens"] for row in answers.rows)
    for name in ("temperature", "top_p"):
        found[name] = []
        for position in range(longest):
            values = [row[name][position] for row in answers.rows if row["tokens"] > position]
            if len(values) < min(LEAST_ANSWERS, len(answers.rows)):
                break
            low, high = np.percentile(values, [10, 90])
            found[name].append([float(np.mean(values)), float(low), float(high)])
            if name == "temperature":
                found["answers"].append(len(values))
    return found


def _examples(passes: TaskPasses, ours: Method, rival: str, seed: int) -> list[dict[str, Any]]:
    """Problems with a right and a wrong answer of the heads where there are such, else with any, each beside one of the
    best static setting; chosen at random."""
    guided = by_problem(passes.test[ours.title])
    rival_rows = by_problem(passes.test[rival])
    order = np.random.default_rng(seed).permutation(len(guided)).tolist()
    order.sort(key=lambda i: len({row["right"] for row in guided[i]}) < 2)  # stable: random within each kind
    examples = []
    for index in order[:EXAMPLES]:
        problem = passes.task.test[index]
        shown = {row["right"]: row for row in reversed(guided[index])}
        keys = ("right", "text", "token_texts", "temperature", "top_p")
        examples.append(
            {
                "question": question_of(problem),
                "answer": "" if problem.get("answer") is None else str(problem["answer"]),
                "answers": [{key: shown[right][key] for key in keys} for right in (True, False) if right in shown],
                "rival": {key: rival_rows[index][0][key] for key in ("right", "text")},
            }
        )
    return examples


def _first(passes: TaskPasses, ours: Method, rival: str) -> list[dict[str, Any]]:
    """The first test problems, each with the first answer of the heads, of greedy decoding and of the best static
    setting: typical ones, since nothing chooses them."""
    names = dict.fromkeys((ours.title, methods.GREEDY.name, rival))
    rows = {name: by_problem(passes.test[name]) for name in names}
    keys = ("right", "finish", "text", "token_texts", "temperature", "top_p")
    return [
        {
            "question": question_of(problem),
            "answer": "" if problem.get("answer") is None else str(problem["answer"]),
            "answers": {
                name: {key: of_one[index][0][key] for key in keys if key in of_one[index][0]}
                for name, of_one in rows.items()
            },
        }
        for index, problem in enumerate(passes.task.test[:FIRST])
    ]
