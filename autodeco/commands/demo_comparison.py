"""What ``autodeco demo`` shows of an evaluation: heads beside their rivals, and the first answers."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from autodeco.evaluation.head_figures import FIRST, ORACLE
from autodeco.evaluation.methods import AUTODECO, GREEDY, MEAN_SHIFT
from autodeco.evaluation.results import ONE_FOR_ALL
from autodeco.reports.colors import SCALES, colored
from autodeco.terminal import one_line


def compare(console, figures: dict[str, Any]) -> None:
    """Print the share of right answers of the heads and their rivals, and answers to the first test problems of each
    task, each token of the heads coloured by its temperature."""
    problems, samples, tokens = (figures["settings"][name] for name in ("test", "samples", "max_tokens"))
    console.print(
        f"right answers in %, of {samples} to each of {problems} problems of a kind that no training saw; "
        f"at most {tokens} tokens each"
    )
    console.print(_shares(figures))
    console.print(
        f"\nThe first {FIRST} test problems of each kind, and the first answer of each method; tokens of AutoDeco have "
        "the colour of their temperature:"
    )
    for task in figures["tasks"]:
        _show_first(console, task)


def _shares(figures: dict[str, Any]) -> Table:
    tasks, whole = figures["tasks"], figures["together"]
    table = Table()
    table.add_column("method")
    for task in tasks:
        table.add_column(task["task"], justify="right")
    table.add_column("all", justify="right")
    table.add_column("AutoDeco is better by", justify="right")
    best = whole["against"][ONE_FOR_ALL]["methods"][0]
    rows = (
        ("AutoDeco, for every token", None),
        ("greedy", GREEDY.name),
        (f"best static setting here: {best}", ONE_FOR_ALL),
        ("best static setting of each kind", ORACLE),
        ("fixed at the heads' mean", MEAN_SHIFT),
    )
    for name, rival in rows:
        names = whole["against"][rival]["methods"] if rival else [AUTODECO.name] * len(tasks)
        shares = [task["methods"][of]["pass_at"]["1"]["value"] for task, of in zip(tasks, names, strict=True)]
        cells = [f"{100 * share:.1f}" for share in (*shares, sum(shares) / len(shares))]
        table.add_row(name, *cells, _points(whole["against"][rival]) if rival else "")
    return table


def _points(d: dict[str, float]) -> str:
    return f"{100 * d['difference']:+.1f} points ({100 * d['low']:+.1f} to {100 * d['high']:+.1f})"


def _show_first(console, task: dict[str, Any]) -> None:
    questions = [first["question"] for first in task["first"]]
    console.print(Text(f"\n{task['task']}: {one_line(questions[0])}", style="dim"))
    names = {AUTODECO.name: "AutoDeco", GREEDY.name: "greedy", task[ORACLE]: "best static"}
    for first, part in zip(task["first"], differing(questions), strict=True):
        console.print(Text(f"  {one_line(part)}  ({one_line(first['answer'])} is right)", style="bold"))
        for name, answer in reversed(first["answers"].items()):
            show_answer(console, names[name], answer)


def show_answer(console, name: str, answer: dict[str, Any]) -> None:
    """Print one answer and whether it is right; each token of one of heads coloured by its temperature."""
    line = Text(f"    {name:<12} {'right' if answer['right'] else 'wrong'}  ")
    if "temperature" not in answer:
        cut = " ..." if answer["finish"] == "length" else ""
        console.print(line.append(one_line(answer["text"]) + cut))
        return
    for text, temperature in zip(answer["token_texts"], answer["temperature"], strict=True):
        line.append_text(colored(one_line(text), temperature, SCALES["temperature"]))
        line.append(f" {temperature:.2f}  ", style="dim")
    console.print(line)


def differing(texts: Sequence[str]) -> list[str]:
    """Return of each of ``texts`` the lines that not all of them have, or its last where there is none."""
    lines = [[line.strip() for line in text.splitlines() if line.strip()] for text in texts]
    common = set.intersection(*map(set, lines))
    return [" ... ".join([line for line in row if line not in common] or row[-1:]) for row in lines]
