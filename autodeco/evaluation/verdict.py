"""The sentence that an evaluation of heads ends with: use them, or which setting to use instead."""

from typing import Any

from autodeco.evaluation.head_figures import ORACLE, sets_of
from autodeco.evaluation.results import ONE_FOR_ALL


def verdict(figures: dict[str, Any]) -> str | dict[str, str] | None:
    """Return the verdict on the heads in ``figures`` of an evaluation, of several sets on each by its title; None if it
    had none.

    The rival is the best static setting, greedy decoding included, chosen on the test itself; of several tasks, the one
    that is best on all of them.
    """
    if whole := figures["together"]:
        found = {title: _on_all(of_set) for title, of_set in sets_of(whole).items()}
    else:
        task = figures["tasks"][0]
        found = {title: _on_one(of_set, task["methods"][title]) for title, of_set in sets_of(task).items()}
    return found if len(found) > 1 else next(iter(found.values()), None)


def _on_all(whole: dict[str, Any]) -> str:
    rival = whole["against"][ONE_FOR_ALL]
    return _sentence(rival, rival["methods"][0], whole["pass_at_1"]["value"])


def _on_one(heads: dict[str, Any], method: dict[str, Any]) -> str:
    rival = heads["against"][ORACLE]
    return _sentence(rival, rival["method"], method["pass_at"]["1"]["value"])


def _sentence(rival: dict[str, Any], name: str, ours: float) -> str:
    gain, low, high = (100 * rival[key] for key in ("difference", "low", "high"))
    compared = f"{gain:+.1f} points over {name}, the best static setting here ({low:+.1f} to {high:+.1f})"
    if low > 0:
        return f"use these heads: {100 * ours:.1f}% right, {compared}"
    if gain > 0:
        return f"these heads are not clearly better: {100 * ours:.1f}% right, {compared}; {name} may do as well"
    return f"use {name}: the heads gain nothing here, {100 * ours:.1f}% right, {compared}"


def verdicts(figures: dict[str, Any]) -> list[str]:
    """Return the verdict in ``figures`` as lines: of several sets of heads one each, which begins with its title."""
    said = figures["verdict"]
    if isinstance(said, dict):
        return [f"{title}: {sentence}" for title, sentence in said.items()]
    return [said] if said else []
