"""The report of a training run: one HTML file with its curves, the heads' predictions, and how it was made."""

import json
import os
from collections import defaultdict
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autodeco.data.control import share_names, share_rows
from autodeco.errors import InputError
from autodeco.reports.colors import SCALES, color_of
from autodeco.reports.pages import templates
from autodeco.reports.svg import svg_of
from autodeco.runs.atomic import replacing
from autodeco.training.state import PREDICTIONS_FILE, REPORT_FILE, RUN_FILE, TrainingState

SHOWN_RECORDS = 8
CURVES = {  # axis: what of a measurement belongs on it
    "loss (nats)": ("loss", "temperature_loss", "top_p_loss"),
    "ranking loss": ("ranking_loss",),
    "prompts that follow commands": tuple(share_names(held_out=False).values()),
    "share": ("reward", "low_temperature"),
    "temperature": ("temperature",),
    "top-p": ("top_p",),
}


def write_report(run: TrainingState, predictions: dict[str, list]) -> None:
    """Write ``predictions.json`` and ``report.html`` beside the heads of the finished ``run``, which is then over.

    ``predictions`` holds lists of the same length: ``token`` (ids), ``temperature``, ``top_p``, ``record``, in order.
    """
    texts = []
    for _, tokens in groupby(zip(predictions["record"], predictions["token"], strict=True), key=itemgetter(0)):
        texts += run.model.token_texts([token for _, token in tokens])
    kept = {"text": texts, **predictions}
    with replacing(run.directory / PREDICTIONS_FILE) as part:
        part.write_text(json.dumps(kept), encoding="utf-8")
    draw_report(run.directory)
    run.close()


def draw_report(directory: str | os.PathLike) -> None:
    """Write ``report.html`` from what a finished run left in ``directory``; raises InputError where that is missing."""
    directory = Path(directory)
    made, predictions = (_read(directory / name) for name in (RUN_FILE, PREDICTIONS_FILE))
    try:
        html = _html(directory.resolve().name, made, predictions)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError(
            f"{directory}: its {RUN_FILE} or {PREDICTIONS_FILE} is not of a finished run ({error})"
        ) from None
    with replacing(directory / REPORT_FILE) as part:
        part.write_text(html, encoding="utf-8", errors="replace")


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable ({error}); a finished run has it beside its heads") from None


def _html(name: str, made: dict, predictions: dict[str, list]) -> str:
    result, texts = made["result"], predictions["text"]
    return (
        templates()
        .get_template("training.html.j2")
        .render(
            name=made["model"]["name"] or made["model"]["path"],
            directory=name,
            curves=_curves(result["history"], made.get("updates", [])),
            histograms=_histograms(texts, predictions),
            records=_colored_records(texts, predictions),
            legend=[
                (f"{value:.2g}", color_of(value, SCALES["temperature"]).name) for value in (0, 0.25, 0.5, 1, 1.5, 2)
            ],
            result={key: value for key, value in result.items() if key not in ("history", "before", "after")},
            before=result["before"],
            after=result["after"],
            shares=share_rows(result["after"]) if "ranking_loss" in result["after"] else [],
            settings={key: value for key, value in made.items() if key not in ("result", "updates")},
        )
    )


def token_class(token_text: str) -> str:
    """Return what kind of token a text is: one of digit, word, piece of a word, punctuation, space, other."""
    text = token_text.strip()
    if not text:
        return "space" if token_text else "other"
    if any(character.isdigit() for character in text):
        return "digit"
    if text.startswith("<") and text.endswith(">") and len(text) > 2:
        return "other"
    if text.isalpha():
        return "word" if token_text[0].isspace() or text[0].isupper() else "piece of a word"
    return "punctuation" if not any(character.isalnum() for character in text) else "other"


def _curves(history: list[dict], updates: list[dict]) -> str:
    """Draw what was measured on what is held out, and in grey what the ``updates`` have of the same."""
    panels = {axis: [key for key in keys if key in history[0]] for axis, keys in CURVES.items()}
    panels = {axis: keys for axis, keys in panels.items() if keys}
    figure, axes = _figure(len(panels))
    steps = [row["step"] for row in history]
    for axis, (label, keys) in zip(axes, panels.items(), strict=True):
        for key in keys:
            values, name = [row[key] for row in history], key.replace("_", " ")
            if updates and key in updates[0]:
                seen = [row["step"] for row in updates], [row[key] for row in updates]
                axis.plot(*seen, color="0.75", linewidth=0.8, label=f"{name}, each update", zorder=0)
            axis.plot(steps, values, label=name)
            if f"{key}_deviation" in history[0]:
                spread = [row[f"{key}_deviation"] for row in history]
                low, high = ([v + sign * s for v, s in zip(values, spread, strict=True)] for sign in (-1, 1))
                axis.fill_between(steps, low, high, alpha=0.2)
        axis.set(xlabel="step", ylabel=label)
        axis.legend(frameon=False)
    return svg_of(figure)


def _histograms(texts: list[str], predictions: dict[str, list]) -> str:
    classes = defaultdict(list)
    for index, text in enumerate(texts):
        classes[token_class(text)].append(index)
    names = sorted(classes, key=lambda name: -len(classes[name]))
    figure, axes = _figure(2)
    for axis, key, maximum in zip(axes, ("temperature", "top_p"), (2.0, 1.0), strict=True):
        values = [[predictions[key][index] for index in classes[name]] for name in names]
        axis.hist(values, bins=20, range=(0, maximum), stacked=True, label=names)
        axis.set(xlabel=key.replace("_", "-"), ylabel="tokens")
    axes[0].legend(frameon=False)
    return svg_of(figure)


def _figure(panels: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(4 * panels, 3), layout="constrained")
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def _colored_records(texts: list[str], predictions: dict[str, list]) -> list[tuple[int, list[tuple]]]:
    records = defaultdict(list)
    for index, record in enumerate(predictions["record"]):
        temperature, top_p = predictions["temperature"][index], predictions["top_p"][index]
        color = color_of(temperature, SCALES["temperature"]).name
        records[record].append((texts[index], color, f"T {temperature:.2f}, P {top_p:.2f}"))
    return [(record + 1, records[record]) for record in sorted(records)[:SHOWN_RECORDS]]
