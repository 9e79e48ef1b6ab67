"""The sentence that an evaluation of heads ends with: use them, or which setting to use instead."""

from typing import Any

from autodeco.evaluation.results import ONE_FOR_ALL, ORACLE


def verdict(figures: dict[str, Any]) -> str | None:
    """Return the verdict on the heads in ``figures`` of an evaluation; None if it had none.

    The rival is the best static setting, greedy decoding included, chosen on the test itself; of several tasks, the one
    that is best on all of them.
    """
    if whole := figures["together"]:
        rival, ours = whole["against"][ONE_FOR_ALL], whole["pass_at_1"]["value"]
        name = rival["methods"][0]
    else:
        task = figures["tasks"][0]
        if "against" not in task:
            return None
        rival, ours = task["against"][ORACLE], task["methods"]["AutoDeco"]["pass_at"]["1"]["value"]
        name = rival["method"]
    gain, low, high = (100 * rival[key] for key in ("difference", "low", "high"))
    compared = f"{gain:+.1f} points over {name}, the best static setting here ({low:+.1f} to {high:+.1f})"
    if low > 0:
        return f"use these heads: {100 * ours:.1f}% right, {compared}"
    if gain > 0:
        return f"these heads are not clearly better: {100 * ours:.1f}% right, {compared}; {name} may do as well"
    return f"use {name}: the heads gain nothing here, {100 * ours:.1f}% right, {compared}"
