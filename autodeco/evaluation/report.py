"""The report of an evaluation: Markdown, JSON, and one HTML page that needs nothing beside it."""

import json
from pathlib import Path
from typing import Any

from autodeco.evaluation import plots
from autodeco.evaluation.head_figures import BEST, ORACLE, sets_of
from autodeco.evaluation.methods import GREEDY, MEAN_SHIFT
from autodeco.evaluation.results import ONE_FOR_ALL
from autodeco.evaluation.verdict import verdicts
from autodeco.reports.colors import SCALES, color_of
from autodeco.reports.pages import templates
from autodeco.runs.atomic import replacing

FILES = ("report.json", "report.md", "report.html")


def write(figures: dict[str, Any], folder: Path) -> list[Path]:
    """Write the three files of ``FILES`` into ``folder``; return their paths."""
    environment = templates()
    environment.filters |= {
        "percent": _percent,
        "points": _points,
        "setting": _setting,
        "cell": _cell,
        "verdict": _verdict,
        "files": _files,
    }
    environment.globals |= {"BEST": BEST, "ORACLE": ORACLE, "ONE_FOR_ALL": ONE_FOR_ALL}
    environment.globals |= {"sets_of": sets_of, "verdicts": verdicts(figures)}
    environment.globals["several"] = len(sets_of(figures["tasks"][0])) > 1
    environment.globals["summary"] = (MEAN_SHIFT, BEST, ORACLE, GREEDY.name)
    environment.globals["voted"] = [str(k) for k in sorted(figures["settings"]["ks"])[1:]]
    charts = {
        task["task"]: {
            "accuracy": plots.accuracy(task),
            "frontier": plots.frontier(task),
            "grid": plots.grid(task),
            "positions": {title: plots.positions(of_set) for title, of_set in sets_of(task).items()},
        }
        for task in figures["tasks"]
    }
    shown = {"groups": {}, "costs": {}, "unfinished": [], **figures}
    texts = {
        "report.json": json.dumps(figures, indent=1) + "\n",
        "report.md": environment.get_template("evaluation.md.j2").render(shown),
        "report.html": environment.get_template("evaluation.html.j2").render(shown, plots=charts, color=_color),
    }
    for name, text in texts.items():
        with replacing(folder / name) as part:
            part.write_text(text, encoding="utf-8")
    return [folder / name for name in FILES]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _files(heads: str | dict[str, str]) -> str:
    """The file of heads, or those of several sets with their names."""
    return heads if isinstance(heads, str) else ", ".join(f"{name} ({file})" for name, file in heads.items())


def _verdict(difference: dict[str, float]) -> str:
    """Whether the interval is clear of zero, and on which side."""
    return "better" if difference["low"] > 0 else "worse" if difference["high"] < 0 else ""


def _setting(method: dict[str, Any]) -> str:
    """A method's setting in words."""
    words = {"both": "T and P per token", "temperature": "T per token, P 1", "top_p": "T 1, P per token"}
    if method["heads"] != "none":
        return words[method["heads"]]
    if method["rule"]:
        return method["rule"]
    if method["temperature"] == 0:
        return "T 0"
    cuts = [f"top-k {method['top_k']}"] if method["top_k"] else []
    cuts += [f"min-p {method['min_p']:g}"] if method["min_p"] else []
    return ", ".join([f"T {method['temperature']:.3g}", f"P {method['top_p']:.3g}", *cuts])


def _cell(text: str) -> str:
    """Text inside a Markdown table or line: nothing in it is taken as markup."""
    text = " ".join(str(text).split())
    for sign in "\\`*_{}[]<>#|":
        text = text.replace(sign, f"\\{sign}")
    return text


def _color(name: str, value: float) -> str:
    return color_of(value, SCALES[name]).get_truecolor().hex
