"""The report of heads that follow commands: one HTML file."""

from pathlib import Path

from matplotlib.figure import Figure

from autodeco.reports.colors import SCALES, color_of
from autodeco.reports.pages import templates
from autodeco.reports.svg import svg_of
from autodeco.runs.atomic import replacing
from autodeco.steering.table import measure_cells, share_cells

# low, none, high: the cold, the middle and the hot colour of the reports
COLORS = {"low": "#3b6bd6", "plain": "#26a69a", "high": "#e23a3a"}
SAID = {"low": "asked to be certain", "plain": "no command", "high": "asked to be diverse"}


def write_report(path: Path, figures: dict) -> None:
    """Write the report of ``figures``, as ``steer`` returns them, to ``path``."""
    measured = figures["measured"]
    examples = [
        {
            "prompt": example["prompt"],
            "curves": curves(example["answers"]),
            "answers": [(SAID[name], COLORS[name], _colored(example["answers"][name])) for name in COLORS],
        }
        for example in measured["followed"]["examples"]
    ]
    html = (
        templates()
        .get_template("control.html.j2")
        .render(
            name=figures["model"],
            prompts=measured["followed"]["prompts"],
            shares=share_cells(figures),
            measures=measure_cells(measured),
            scale=scale_curve(measured["scale"]) if "scale" in measured else "",
            examples=examples,
            settings={
                "arguments": figures["arguments"],
                "measured": measured["settings"],
                "seconds": figures["seconds"],
            },
        )
    )
    with replacing(path) as part:
        part.write_text(html, encoding="utf-8", errors="replace")


def curves(answers: dict) -> str:
    """Draw the temperature over the tokens of one prompt's answers, a colour for each command."""
    figure = Figure(figsize=(9, 2.4), layout="constrained")
    axis = figure.subplots()
    for name, color in COLORS.items():
        axis.plot(answers[name]["temperature"], color=color, label=SAID[name])
    axis.set(xlabel="token", ylabel="temperature", ylim=(0, None))
    axis.legend(frameon=False, ncols=len(COLORS), loc="upper right")
    return svg_of(figure)


def scale_curve(scale: dict) -> str:
    """Draw mean temperature and mean top-p by the degree of the scale that was asked for."""
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    for axis, value in zip(figure.subplots(1, 2), ("temperature", "top_p"), strict=True):
        axis.plot(scale["degrees"], scale[value]["means"], marker="o", color="0.3")
        rank = scale[value]["spearman_by_prompt"]["mean"]
        axis.set(
            xlabel="degree asked for, of 10",
            ylabel=f"mean {value.replace('_', '-')}",
            title=f"Spearman {scale[value]['spearman_of_means']:.2f}, prompt by prompt {rank:.2f}",
        )
    return svg_of(figure)


def _colored(answer: dict) -> list[tuple[str, str, str]]:
    """Return (text, colour of its temperature, what is said of it) of each token."""
    rows = zip(answer["tokens"], answer["temperature"], answer["top_p"], strict=True)
    return [(text, color_of(t, SCALES["temperature"]).name, f"T {t:.2f}, P {p:.2f}") for text, t, p in rows]
