"""The plots of a report, as SVG text."""

from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from autodeco.evaluation.head_figures import ORACLE, sets_of
from autodeco.evaluation.methods import AUTODECO, MEAN_SHIFT
from autodeco.reports.svg import svg_of

HEADS_COLOR, STATIC_COLOR = "#e23a3a", "#3b6bd6"
SETS = "Dark2"  # the colours of several sets of heads


def accuracy(task: dict[str, Any]) -> str:
    """Pass@1 of each method with its interval, the best at the top."""
    names = sorted(task["methods"], key=lambda name: task["methods"][name]["pass_at"]["1"]["value"])
    figure = Figure(figsize=(7, 0.8 + 0.24 * len(names)))
    axes = figure.add_subplot()
    for y, name in enumerate(names):
        at = task["methods"][name]["pass_at"]["1"]
        value, low, high = (100 * at[key] for key in ("value", "low", "high"))
        color = HEADS_COLOR if task["methods"][name]["heads"] != "none" else STATIC_COLOR
        axes.errorbar(value, y, xerr=[[value - low], [high - value]], fmt="o", color=color, capsize=3, markersize=4)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("pass@1, % (95% interval over problems); red: heads")
    axes.grid(axis="x", alpha=0.3)
    return svg_of(figure)


def frontier(task: dict[str, Any]) -> str | None:
    """Pass@1 against pass@k, for the largest k, of each method with both intervals; None if all k are 1.

    A line for each top-p joins the static settings by temperature, from greedy on.
    """
    k = max(int(k) for method in task["methods"].values() for k in method["pass_at"])
    if k == 1:
        return None
    figure = Figure(figsize=(7, 5))
    axes = figure.add_subplot()
    for number, top_p in enumerate(sorted({m["top_p"] for m in task["methods"].values() if m["kind"] == "static"})):
        line = [m for m in task["methods"].values() if m["kind"] == "static" and top_p == m["top_p"]]
        greedy = [m for m in task["methods"].values() if m["kind"] == "greedy"]
        points = [_point(m, k) for m in [*greedy, *sorted(line, key=lambda m: m["temperature"])]]
        axes.plot(*zip(*points, strict=True), color=STATIC_COLOR, alpha=0.35, linewidth=1, zorder=1)
        if number == 0:
            axes.plot([], [], color=STATIC_COLOR, alpha=0.35, label="static, by temperature")
    kinds: dict[str, list[str]] = {}
    for name, method in task["methods"].items():
        if str(k) not in method["pass_at"] and method["kind"] != "greedy":
            continue  # it has fewer answers
        kind = name if method["kind"] == "single" else method["kind"]
        kinds.setdefault(name if "set" in method else method["rule"] or kind, []).append(name)
    colors, stars = colormaps["tab20"].colors, _colors(task)
    for i, (kind, names) in enumerate(kinds.items()):
        color = {"static": STATIC_COLOR, "greedy": "black", **stars}.get(kind, colors[i % 20])
        for name in names:
            at = [task["methods"][name]["pass_at"].get(str(k), task["methods"][name]["pass_at"]["1"])]
            at.insert(0, task["methods"][name]["pass_at"]["1"])
            (x, x_low, x_high), (y, y_low, y_high) = ([100 * a[key] for key in ("value", "low", "high")] for a in at)
            axes.errorbar(
                x,
                y,
                xerr=[[x - x_low], [x_high - x]],
                yerr=[[y - y_low], [y_high - y]],
                fmt="*" if kind in stars else "o",
                markersize=12 if kind in stars else 4,
                color=color,
                elinewidth=0.6,
                alpha=0.9,
                label=kind if name == names[0] else None,
                zorder=3 if kind in stars else 2,
            )
    axes.set_xlabel("pass@1, %")
    axes.set_ylabel(f"pass@{k}, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return svg_of(figure)


def _colors(task: dict[str, Any]) -> dict[str, Any]:
    """The colour of each whole set of heads."""
    if "heads" not in task:
        return {AUTODECO.name: HEADS_COLOR}
    colors = colormaps[SETS].colors
    return {title: colors[i % len(colors)] for i, title in enumerate(task["heads"])}


def _point(method: dict[str, Any], k: int) -> tuple[float, float]:
    """Pass@1 and pass@k in percent; of greedy they are the same."""
    at = method["pass_at"]
    return 100 * at["1"]["value"], 100 * at.get(str(k), at["1"])["value"]


def grid(task: dict[str, Any]) -> str:
    """Pass@1 of the static settings on test as a heat map.

    A star marks the mean of each set of heads, a frame the middle 80% of its temperatures and top-ps. Lines on the
    colour scale mark the pass@1 of the heads and of their mean.
    """
    values = task["grid"]["test"]
    temperatures, top_ps = task["grid"]["temperatures"], task["grid"]["top_ps"]
    sets, colors = sets_of(task), _colors(task)
    shifted = {title: of_set["against"][MEAN_SHIFT]["method"] for title, of_set in sets.items()}
    marks = [100 * _value(task, name) for pair in shifted.items() for name in pair]
    reached = [100 * value for row in values for value in row] + marks
    low, high = min(reached), max(*reached, min(reached) + 1)  # a scale of no length has no colours
    figure = Figure(figsize=(3.5 + 0.9 * len(top_ps), 1.5 + 0.5 * len(temperatures)))
    axes = figure.add_subplot()
    scaled = [[100 * value for value in row] for row in values]
    image = axes.imshow(scaled, cmap="viridis", aspect="auto", vmin=low, vmax=high)
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            dark = 100 * value > (low + high) / 2  # on yellow
            color = "black" if dark else "white"
            axes.text(j, i, f"{100 * value:.1f}", ha="center", va="center", color=color, fontsize=8)
    axes.set_yticks(range(len(temperatures)), [f"{t:g}" for t in temperatures])
    axes.set_xticks(range(len(top_ps)), [f"{p:g}" for p in top_ps])
    axes.set_ylabel("temperature")
    axes.set_xlabel("top-p")
    title = f"oracle {_percent(task, task[ORACLE])}"
    for name, of_set in sets.items():
        _mark_mean(axes, of_set, name if "heads" in task else None, colors[name], temperatures, top_ps)
    if "heads" in task:
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3)
        title = f"stars: means of heads, frames: their 10th to 90th percentiles\n{title}"
    elif sets:
        title = (
            "star: AutoDeco's mean, frame: its 10th to 90th percentiles\n"
            f"on the scale: AutoDeco {_percent(task, AUTODECO.name)} (red), mean shift {_percent(task, MEAN_SHIFT)} "
            f"(blue)\n{title}"
        )
    axes.set_title(title, fontsize=9)
    bar = figure.colorbar(image, label="pass@1, %")
    for name, mean in shifted.items():
        own, dashes = (STATIC_COLOR, "-") if "heads" not in task else (colors[name], (0, (1, 1)))
        for value, color, style in ((_value(task, name), colors[name], "-"), (_value(task, mean), own, dashes)):
            bar.ax.plot([0, 1], [100 * value] * 2, color="white", linewidth=4, clip_on=False)
            bar.ax.plot([0, 1], [100 * value] * 2, color=color, linewidth=2, linestyle=style, clip_on=False)
    return svg_of(figure)


def _mark_mean(
    axes, of_set: dict[str, Any], label: str | None, color: Any, temperatures: list[float], top_ps: list[float]
) -> None:
    """Draw the star and the frame of a set of heads into the heat map."""
    x, y = _place(of_set["mean"]["top_p"], top_ps), _place(of_set["mean"]["temperature"], temperatures)
    axes.plot(x, y, "*", markersize=16, color=color, markeredgecolor="white", clip_on=False, label=label)
    (left, right), (top, bottom) = (
        [_place(value, ticks) for value in of_set["spread"][name]]
        for name, ticks in (("top_p", top_ps), ("temperature", temperatures))
    )
    frame = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=color, linewidth=1.5)
    axes.add_patch(frame).set_clip_on(False)


def _value(task: dict[str, Any], name: str) -> float:
    return task["methods"][name]["pass_at"]["1"]["value"]


def _percent(task: dict[str, Any], name: str) -> str:
    return f"{100 * _value(task, name):.1f}%"


def _place(value: float, ticks: list[float]) -> float:
    """Where ``value`` lies on an axis whose ticks 0, 1, ... stand for ``ticks``; at the edge when outside."""
    import numpy as np

    order = np.argsort(ticks)
    return float(np.interp(value, np.asarray(ticks)[order], order))


def positions(of_set: dict[str, Any]) -> str:
    """Temperature and top-p of a set of heads over the position in the answer: mean, and from the 10th to the 90th
    percentile."""
    figure = Figure(figsize=(7, 3.2))
    axes = figure.add_subplot()
    for name, color in (("temperature", HEADS_COLOR), ("top_p", STATIC_COLOR)):
        rows = of_set["positions"][name]
        x = range(1, len(rows) + 1)
        axes.plot(x, [row[0] for row in rows], color=color, label=name.replace("_", "-"))
        axes.fill_between(x, [row[1] for row in rows], [row[2] for row in rows], color=color, alpha=0.2, linewidth=0)
    axes.set_ylim(0, 2)
    axes.set_xlabel("token of the answer")
    axes.legend()
    axes.grid(alpha=0.3)
    return svg_of(figure)
