"""The figures of an evaluation, JSON-ready."""

from typing import Any

import numpy as np

from autodeco.data import statistics
from autodeco.evaluation import methods
from autodeco.evaluation.by_family import by_family
from autodeco.evaluation.final_answers import votes_of
from autodeco.evaluation.methods import Method
from autodeco.evaluation.running import Pass, TaskPasses, mean_of
from autodeco.evaluation.settings import Settings
from autodeco.evaluation.tasks import question_of

BEST = "best on validation"
ORACLE = "best on test (oracle)"
ONE_FOR_ALL = "best for all tasks on test (oracle)"
EXAMPLES = 6
FIRST = 3
LEAST_ANSWERS = 10  # at a position, for its mean to be shown


def rates(answers: Pass, problems: int, k: int) -> np.ndarray:
    """Pass@k of each problem [problems]; greedy answers, all the same, count as any number of samples."""
    right = _right(answers, problems)
    samples = len(answers.rows) // problems
    return right.astype(np.float64) if answers.method.is_greedy else statistics.pass_at_k(right, samples, k)


def _right(answers: Pass, problems: int) -> np.ndarray:
    """How many answers to each problem are right."""
    right = np.zeros(problems, int)
    for row in answers.rows:
        right[row["problem"]] += row["right"]
    return right


def task_figures(passes: TaskPasses, settings: Settings) -> dict[str, Any]:
    """All figures of one task."""
    n, v = settings.test, settings.validation
    found = {name: method_figures(answers, passes.task.test, settings) for name, answers in passes.test.items()}
    everything = [*passes.validation.values(), *passes.test.values()]
    static = [name for name, answers in passes.validation.items() if answers.method.is_static]
    figures = {
        "task": passes.task.spec.name,
        "source": passes.task.spec.source,
        "config": passes.task.spec.config,
        "problems": {"validation": v, "test": n, "left_out": passes.task.left_out},
        "seconds": sum(answers.seconds for answers in everything),
        "tokens": sum(row["tokens"] for answers in everything for row in answers.rows),
        "methods": found,
        "families": by_family({name: rates(of, n, 1) for name, of in passes.test.items()}, passes.task.test),
        BEST: _best({name: passes.validation[name] for name in static}, v),
        ORACLE: _best({name: passes.test[name] for name in static}, n),
        "rules": _rules(passes, v, n),
        "grid": {
            "temperatures": settings.temperatures,
            "top_ps": settings.top_ps,
            "validation": _grid(passes.validation, v, settings),
            "test": _grid(passes.test, n, settings),
        },
    }
    if methods.AUTODECO.name in passes.test:
        guided = passes.test[methods.AUTODECO.name]
        rivals = {name: name for name, answers in passes.test.items() if name not in (methods.AUTODECO.name, *static)}
        fixed = {m.name: m.name for m in (methods.GREEDY, methods.DEFAULT) if m.name in passes.test}
        tuned = {name for of_one in figures["rules"].values() for name in of_one["settings"]}
        rivals = {rival: name for rival, name in rivals.items() if name not in tuned}
        best = {
            f"{rule}, {how}" if len(of_one["settings"]) > 1 else rule: of_one[how]
            for rule, of_one in figures["rules"].items()
            for how in (BEST, ORACLE)
        }
        rivals = {**fixed, BEST: figures[BEST], ORACLE: figures[ORACLE], **rivals, **best}
        figures["against"] = {
            rival: {"method": name, **_against(guided, passes.test[name], n, settings)}
            for rival, name in rivals.items()
        }
        predicted = passes.validation[methods.AUTODECO.name]
        figures["mean"] = dict(zip(("temperature", "top_p"), mean_of(predicted), strict=True))
        figures["spread"] = {name: _spread(predicted, name) for name in ("temperature", "top_p")}
        figures["positions"] = _positions(guided)
        figures["examples"] = _examples(passes, figures[BEST], settings.seed)
        figures["first"] = _first(passes, figures[ORACLE])
    return figures


def _rules(passes: TaskPasses, validation: int, test: int) -> dict[str, dict[str, Any]]:
    """The settings of each rule that can be tuned, and the best of them on validation and on test."""
    settings: dict[str, list[str]] = {}
    for name, answers in passes.validation.items():
        if answers.method.rule:
            settings.setdefault(answers.method.rule, []).append(name)
    return {
        rule: {
            "settings": names,
            BEST: _best({name: passes.validation[name] for name in names}, validation),
            ORACLE: _best({name: passes.test[name] for name in names}, test),
        }
        for rule, names in settings.items()
    }


def together(passes: list[TaskPasses], tasks: list[dict[str, Any]], settings: Settings) -> dict[str, Any] | None:
    """The figures at pass@1 of all ``tasks`` together, whose rivals have a setting for each, and of the static setting
    that is best on all of them (ONE_FOR_ALL); None for a single task, and without heads."""
    if len(tasks) < 2 or "against" not in tasks[0]:
        return None

    def joined(names: list[str]) -> np.ndarray:
        pairs = zip(passes, names, strict=True)
        return np.concatenate([rates(of_task.test[name], settings.test, 1) for of_task, name in pairs])

    guided = joined([methods.AUTODECO.name] * len(tasks))
    static = [name for name, answers in passes[0].validation.items() if answers.method.is_static]
    one = max(static, key=lambda name: joined([name] * len(tasks)).mean())
    chosen = {rival: [task["against"][rival]["method"] for task in tasks] for rival in tasks[0]["against"]}
    chosen[ONE_FOR_ALL] = [one] * len(tasks)
    low, high = statistics.interval(guided, settings.seed)
    return {
        "problems": len(guided),
        "pass_at_1": {"value": float(guided.mean()), "low": low, "high": high},
        "against": {
            rival: {"methods": names, **statistics.paired(guided, joined(names), settings.seed)}
            for rival, names in chosen.items()
        },
    }


def _against(guided: Pass, rival: Pass, problems: int, settings: Settings) -> dict[str, Any]:
    """The paired difference at pass@1, and under ``pass_at`` at each k."""
    pass_at = {
        str(k): statistics.paired(rates(guided, problems, k), rates(rival, problems, k), settings.seed)
        for k in sorted(settings.ks)
    }
    return {**pass_at["1"], "pass_at": pass_at}


def _spread(answers: Pass, name: str) -> list[float]:
    """10th and 90th percentile of temperature or top-p over all tokens."""
    return np.percentile([value for row in answers.rows for value in row[name]], [10, 90]).tolist()


def method_figures(answers: Pass, asked: list[dict], settings: Settings) -> dict[str, Any]:
    method: Method = answers.method
    problems = len(asked)
    is_of_grid = method.is_static and not method.from_heads and method.name != methods.VENDOR
    tokens = sum(row["tokens"] for row in answers.rows)
    ks = {1} if method.is_greedy else settings.ks
    pass_at = {}
    for k in sorted(ks):
        values = rates(answers, problems, k)
        low, high = statistics.interval(values, settings.seed)
        pass_at[str(k)] = {"value": float(values.mean()), "low": low, "high": high}
    return {
        "temperature": method.sampling.temperature,
        "top_p": method.sampling.top_p,
        "top_k": method.sampling.top_k,
        "min_p": method.sampling.min_p,
        "heads": method.sampling.heads,
        "rule": method.rule,
        "kind": "greedy" if method.is_greedy else "static" if is_of_grid else "single",
        "answers": len(answers.rows),
        "right": _right(answers, problems).tolist(),
        "pass_at": pass_at,
        "finished": sum(row["finish"] != "length" for row in answers.rows) / len(answers.rows),
        "tokens": tokens,
        "tokens_per_answer": tokens / len(answers.rows),
        "seconds": answers.seconds,
        **_votes(answers, asked, settings),
        "distinct": {str(n): _diversity(answers, n) for n in (1, 2)},
    }


def _votes(answers: Pass, asked: list[dict], settings: Settings) -> dict[str, Any]:
    """Maj@k for each k above 1, and the mean entropy of the final answers to a problem; nothing for greedy."""
    if answers.method.is_greedy:
        return {"maj_at": {}, "answer_entropy": None}
    rows = _by_problem(answers)
    votes = [votes_of(problem, rows[i]) for i, problem in enumerate(asked)]
    right = [[row["right"] for row in rows[i]] for i in range(len(asked))]
    maj_at = {}
    for k in sorted(settings.ks)[1:]:
        random = np.random.default_rng([settings.seed, k])
        pairs = zip(votes, right, strict=True)
        values = np.array([statistics.majority_at_k(*pair, k, random) for pair in pairs])
        low, high = statistics.interval(values, settings.seed)
        maj_at[str(k)] = {"value": float(values.mean()), "low": low, "high": high}
    return {"maj_at": maj_at, "answer_entropy": float(np.mean([statistics.entropy_of(of_one) for of_one in votes]))}


def _diversity(answers: Pass, n: int) -> float | None:
    """Mean over problems of distinct-n of the answers to it; None for greedy, which has one answer."""
    if answers.method.is_greedy:
        return None
    texts: dict[int, list[str]] = {}
    for row in answers.rows:
        texts.setdefault(row["problem"], []).append(row["text"])
    return float(np.mean([statistics.distinct(of_one, n) for of_one in texts.values()]))


def _best(passes: dict[str, Pass], problems: int) -> str:
    return max(passes, key=lambda name: rates(passes[name], problems, 1).mean())


def _grid(passes: dict[str, Pass], problems: int, settings: Settings) -> list[list[float]]:
    """Pass@1 [temperatures][top_ps]."""
    return [
        [float(rates(passes[methods.static(t, p).name], problems, 1).mean()) for p in settings.top_ps]
        for t in settings.temperatures
    ]


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


def _examples(passes: TaskPasses, rival: str, seed: int) -> list[dict[str, Any]]:
    """Problems with a right and a wrong answer of the heads where there are such, else with any, each beside one of the
    best static setting; chosen at random."""
    guided = _by_problem(passes.test[methods.AUTODECO.name])
    rival_rows = _by_problem(passes.test[rival])
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


def _first(passes: TaskPasses, rival: str) -> list[dict[str, Any]]:
    """The first test problems, each with the first answer of the heads, of greedy decoding and of the best static
    setting: typical ones, since nothing chooses them."""
    names = dict.fromkeys((methods.AUTODECO.name, methods.GREEDY.name, rival))
    rows = {name: _by_problem(passes.test[name]) for name in names}
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


def _by_problem(answers: Pass) -> dict[int, list[dict]]:
    found: dict[int, list[dict]] = {}
    for row in answers.rows:
        found.setdefault(row["problem"], []).append(row)
    return found
