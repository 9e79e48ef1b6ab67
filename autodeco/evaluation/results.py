"""The figures of an evaluation, JSON-ready."""

from typing import Any

import numpy as np

from autodeco.data import statistics
from autodeco.evaluation import methods
from autodeco.evaluation.answer_logs import Pass
from autodeco.evaluation.by_family import by_family
from autodeco.evaluation.final_answers import votes_of
from autodeco.evaluation.head_figures import BEST, ORACLE, guided_by, head_figures, sets_of
from autodeco.evaluation.methods import Method
from autodeco.evaluation.rates import by_problem, known_ks, rates, right_of
from autodeco.evaluation.running import TaskPasses
from autodeco.evaluation.settings import Settings

ONE_FOR_ALL = "best for all tasks on test (oracle)"


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
    chosen, rules = {how: figures[how] for how in (BEST, ORACLE)}, figures["rules"]
    found = {m.title: head_figures(passes, m, chosen, rules, settings) for m in guided_by(passes.test)}
    return figures | ({"heads": found} if len(found) > 1 else next(iter(found.values()), {}))


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
    that is best on all of them (ONE_FOR_ALL); None for a single task, and without heads.

    Of several sets of heads, each has its own, by its title.
    """
    if len(tasks) < 2 or not (titles := list(sets_of(tasks[0]))):
        return None

    def joined(names: list[str]) -> np.ndarray:
        pairs = zip(passes, names, strict=True)
        return np.concatenate([rates(of_task.test[name], settings.test, 1) for of_task, name in pairs])

    static = [name for name, answers in passes[0].validation.items() if answers.method.is_static]
    one = max(static, key=lambda name: joined([name] * len(tasks)).mean())

    def of_set(title: str) -> dict[str, Any]:
        against = [sets_of(task)[title]["against"] for task in tasks]
        chosen = {rival: [of_task[rival]["method"] for of_task in against] for rival in against[0]}
        chosen[ONE_FOR_ALL] = [one] * len(tasks)
        guided = joined([title] * len(tasks))
        low, high = statistics.interval(guided, settings.seed)
        return {
            "pass_at_1": {"value": float(guided.mean()), "low": low, "high": high},
            "against": {
                rival: {"methods": names, **statistics.paired(guided, joined(names), settings.seed)}
                for rival, names in chosen.items()
            },
        }

    found = {title: of_set(title) for title in titles}
    problems = {"problems": settings.test * len(tasks)}
    return problems | ({"heads": found} if len(found) > 1 else found[titles[0]])


def method_figures(answers: Pass, asked: list[dict], settings: Settings) -> dict[str, Any]:
    method: Method = answers.method
    problems = len(asked)
    is_of_grid = method.is_static and not method.from_heads and method.name != methods.VENDOR
    tokens = sum(row["tokens"] for row in answers.rows)
    pass_at = {}
    for k in known_ks(answers, problems, {1} if method.is_greedy else settings.ks):
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
        **({"set": method.of} if method.of else {}),
        "kind": "greedy" if method.is_greedy else "static" if is_of_grid else "single",
        "answers": len(answers.rows),
        "right": right_of(answers, problems).tolist(),
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
    rows = by_problem(answers)
    votes = [votes_of(problem, rows[i]) for i, problem in enumerate(asked)]
    right = [[row["right"] for row in rows[i]] for i in range(len(asked))]
    maj_at = {}
    for k in known_ks(answers, len(asked), settings.ks)[1:]:
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
