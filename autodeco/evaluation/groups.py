"""The figures of groups of problems, trained families and unseen ones say, over all tasks together; JSON-ready.

A group is named by the list that names a task, or by the problems of a file themselves.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np

from autodeco.data import statistics
from autodeco.evaluation import methods
from autodeco.evaluation.answer_logs import Pass
from autodeco.evaluation.head_figures import BEST, guided_by
from autodeco.evaluation.methods import Method
from autodeco.evaluation.rates import known_ks, rates
from autodeco.evaluation.running import TaskPasses, mean_of
from autodeco.evaluation.settings import Settings

ONE_FOR_GROUP = "best for the group on test (oracle)"

Places = dict[int, list[int]]  # the numbers of test problems, by that of their task


def groups_of(passes: Sequence[TaskPasses]) -> dict[str, dict[str, Places]]:
    """Return where the test problems of each group lie, by family: what they say themselves, or their task."""
    found: dict[str, dict[str, Places]] = {}
    for number, of_task in enumerate(passes):
        spec = of_task.task.spec
        for i, problem in enumerate(of_task.task.test):
            if group := str(problem.get("group") or spec.group):
                family = str(problem.get("family") or spec.name)
                found.setdefault(group, {}).setdefault(family, {}).setdefault(number, []).append(i)
    return found


def group_figures(passes: Sequence[TaskPasses], tasks: Sequence[dict[str, Any]], settings: Settings) -> dict[str, Any]:
    """Return ``groups``: pass@k of every method in each, with intervals over problems, by family too, and ``against``,
    what heads gain; and ``costs``, what the test answers of each method took. Nothing where no problem has a group."""
    found = groups_of(passes)
    if not found:
        return {}
    rated = Rated(passes, settings)
    titles = rated.in_all(range(len(passes)))
    return {
        "groups": {group: _of_group(rated, families, tasks) for group, families in found.items()},
        "costs": {title: _costs([of_task.test[title] for of_task in passes]) for title in titles},
    }


class Rated:
    """Pass@k of problems, of any of the tasks."""

    def __init__(self, passes: Sequence[TaskPasses], settings: Settings):
        self.passes, self.settings = passes, settings
        self._of_task = cache(lambda number, title, k: rates(passes[number].test[title], settings.test, k))

    def in_all(self, numbers: Iterable[int]) -> dict[str, Method]:
        """The methods that each of the tasks ``numbers`` has, by title."""
        first, *others = numbers
        kept = {title: answers.method for title, answers in self.passes[first].test.items()}
        return {title: m for title, m in kept.items() if all(title in self.passes[i].test for i in others)}

    def ks(self, number: int, title: str) -> list[int]:
        """The k for which there are answers enough."""
        return known_ks(self.passes[number].test[title], self.settings.test, self.settings.ks)

    def at(self, places: Places, titles: Sequence[str], k: int) -> np.ndarray:
        """Pass@k of each problem at ``places``, of the method in ``titles`` for each of its tasks."""
        pairs = zip(places.items(), titles, strict=True)
        return np.concatenate([self._of_task(number, title, k)[here] for (number, here), title in pairs])

    def interval(self, values: np.ndarray) -> dict[str, float]:
        """The 95% bootstrap interval of the mean over problems."""
        return dict(zip(("low", "high"), statistics.interval(values, self.settings.seed), strict=True))


def _of_group(rated: Rated, families: dict[str, Places], tasks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    places: Places = {}
    for of_family in families.values():
        for number, here in of_family.items():
            places.setdefault(number, []).extend(here)
    found = rated.in_all(places)
    first = next(iter(places))

    def known(method: Method) -> list[int]:
        return [1] if method.is_greedy else rated.ks(first, method.title)

    def mean(values: np.ndarray) -> float:
        return float(values.mean())

    def pass_at(title: str, k: int) -> dict[str, float]:
        values = rated.at(places, [title] * len(places), k)
        return {"value": mean(values), **rated.interval(values)}

    return {
        "problems": sum(map(len, places.values())),
        "methods": {title: {str(k): pass_at(title, k) for k in known(m)} for title, m in found.items()},
        "families": {
            family: {
                "problems": sum(map(len, of_family.values())),
                "methods": {
                    title: {str(k): mean(rated.at(of_family, [title] * len(of_family), k)) for k in known(m)}
                    for title, m in found.items()
                },
            }
            for family, of_family in families.items()
        },
        "against": {m.title: _against(rated, places, m, found, tasks) for m in guided_by(rated.passes[first].test)},
    }


def _against(
    rated: Rated, places: Places, ours: Method, found: dict[str, Method], tasks: Sequence[dict[str, Any]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """What the heads ``ours`` gain over every other method, by k: over what is made of them, by its own name, over
    the best on validation of each task, and over the static setting that is best in this group at that k."""
    first, *_ = places
    rivals = {BEST: [tasks[number][BEST] for number in places]}
    for title, method in found.items():
        if title != ours.title and (method.of in ("", ours.of) or method.name == methods.AUTODECO.name):
            rivals[method.name if method.of == ours.of else title] = [title] * len(places)
    known = {rival: set.intersection(*map(set, map(rated.ks, places, titles))) for rival, titles in rivals.items()}
    static = [title for title, answers in rated.passes[first].validation.items() if answers.method.is_static]

    def difference(titles: Sequence[str], k: int) -> dict[str, float]:
        values = rated.at(places, [ours.title] * len(places), k) - rated.at(places, titles, k)
        return {"difference": float(values.mean()), **rated.interval(values)}

    def best(k: int) -> str:
        able = [title for title in static if title in found and k in known[title]]
        return max(able, key=lambda title: rated.at(places, [title] * len(places), k).mean())

    ks = rated.ks(first, ours.title)
    gained = {
        rival: {str(k): difference(titles, k) for k in ks if k in known[rival]} for rival, titles in rivals.items()
    }
    chosen = {k: best(k) for k in ks}
    gained[ONE_FOR_GROUP] = {
        str(k): {"method": title, **difference([title] * len(places), k)} for k, title in chosen.items()
    }
    return gained


def _costs(answers: Sequence[Pass]) -> dict[str, Any]:
    """What the ``answers`` of a method to all tasks took; of heads, the mean of what they picked, too."""
    rows = [row for of_task in answers for row in of_task.rows]
    tokens, seconds = sum(row["tokens"] for row in rows), sum(of_task.seconds for of_task in answers)
    means = {}
    if "temperature" in rows[0]:
        whole = Pass(answers[0].method, rows, seconds)
        means = dict(zip(("temperature", "top_p"), mean_of(whole), strict=True))
    return {
        "answers": len(rows),
        "finished": sum(row["finish"] != "length" for row in rows) / len(rows),
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds if seconds else 0.0,
        **means,
    }
