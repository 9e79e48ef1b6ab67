"""What ``autodeco eval`` shows in the terminal: tables of the methods, and of all tasks together."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from autodeco.evaluation.head_figures import sets_of
from autodeco.terminal import one_line


def show(figures: dict[str, Any]) -> None:
    """Print the ``figures`` of an evaluation: pass@1 of each task's methods, and what heads gain over them."""
    console = Console(highlight=False)
    for task in figures["tasks"]:
        console.print(_of_task(task))
    if figures["together"]:
        for title, whole in sets_of(figures["together"]).items():
            console.print(_of_all(title, whole))
    for group, of_group in figures.get("groups", {}).items():
        console.print(_of_group(group, of_group, sorted(figures["settings"]["ks"])))


def _of_task(task: dict[str, Any]) -> Table:
    sets = sets_of(task)
    columns = ("method", "pass@1", "95%", *(f"{title} is" for title in sets or ("AutoDeco",)))
    table = _table(f"{task['task']}, pass@1 in %", columns)
    against = [{rival["method"]: rival for rival in of_set["against"].values()} for of_set in sets.values()]
    for name, method in task["methods"].items():
        at = method["pass_at"]["1"]
        differences = [f"{100 * found[name]['difference']:+.1f}" if name in found else "" for found in against]
        table.add_row(name, f"{100 * at['value']:.1f}", _range(at), *differences)
    return table


def _of_all(title: str, whole: dict[str, Any]) -> Table:
    at = whole["pass_at_1"]
    text = f"all tasks together: {title} {100 * at['value']:.1f} ({_range(at)}), in points"
    table = _table(text, ("against", f"{title} is", "95%", "p"))
    for rival, d in whole["against"].items():
        range_ = f"{100 * d['low']:+.1f} to {100 * d['high']:+.1f}"
        table.add_row(rival, f"{100 * d['difference']:+.1f}", range_, f"{d['p']:.4f}")
    return table


def _of_group(group: str, of_group: dict[str, Any], ks: list[int]) -> Table:
    """Pass@1 and pass@k, for the largest k, of the methods, and what heads gain over them."""
    sets, shown = of_group["against"], [str(k) for k in dict.fromkeys((ks[0], ks[-1]))]
    columns = ["method"]
    for k in shown:
        columns += [f"pass@{k}", "95%", *(f"{title} is" for title in sets)]
    table = _table(f"{group}, {of_group['problems']} problems, in %", tuple(columns))
    for name, method in of_group["methods"].items():
        cells = []
        for k in shown:
            at = method.get(k)
            cells += [f"{100 * at['value']:.1f}", _range(at)] if at else ["", ""]
            for title, against in sets.items():
                rival = against.get(name.removeprefix(f"{title}: "), {})
                cells.append(f"{100 * rival[k]['difference']:+.1f}" if k in rival else "")
        table.add_row(name, *cells)
    return table


def _table(title: str, columns: tuple[str, ...]) -> Table:
    # text, not markup: a task's name is a file's
    table = Table(title=Text(one_line(title)), title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    return table


def _range(at: dict[str, float]) -> str:
    return f"{100 * at['low']:.1f} to {100 * at['high']:.1f}"
