"""The figures of benchmarks/results as one picture: python benchmarks/plot.py [--output docs/performance.svg]."""

import argparse
import json
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from autodeco.runs.atomic import replacing

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
NAMES = {  # as the results have them
    "SmolLM2-135M-Instruct.Q4_1.gguf": "SmolLM2\n135M",
    "gemma.gguf": "Gemma 3\n270M",
    "smollm2.gguf": "SmolLM2\n135M",
    "1.5b-peaked.gguf": "1.5B F16\npeaked",
    "1.5b-flat.gguf": "1.5B F16\nflat",
    "8b-peaked.gguf": "8B Q4_0\npeaked",
}
ON_GPU = ("smollm2.gguf", "1.5b-peaked.gguf", "1.5b-flat.gguf", "8b-peaked.gguf")
matplotlib.rcParams.update({"svg.hashsalt": "autodeco", "svg.fonttype": "none"})


def bars(axes, title: str, groups: dict[str, list[float]], labels: list[str]) -> None:
    """Bars of ``groups[rival]``, one for each label; a line at 1, where both are as fast."""
    width = 0.8 / len(groups)
    for i, (rival, ratios) in enumerate(groups.items()):
        drawn = axes.bar([x + (i + 0.5) * width - 0.4 for x in range(len(labels))], ratios, width, label=rival)
        axes.bar_label(drawn, [f"{ratio:.2f}" for ratio in ratios], fontsize=7)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(range(len(labels)), labels, fontsize=8)
    axes.set_title(title, fontsize=10)
    axes.margins(y=0.3)
    axes.legend(title="speed of AutoDeco over", title_fontsize=7, fontsize=7, loc="upper right", ncols=len(groups))


def gpu_ratios(models: list[dict], sequences: int, rival: str) -> list[float]:
    """Speed over ``rival`` of each model with so many sequences in a batch."""
    runs = [next(run for run in model["runs"] if run["sequences"] == sequences) for model in models]
    return [run["autodeco_over"][rival] for run in runs]


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "performance.svg")
    args = parser.parse_args()
    cpu = json.loads((RESULTS / "decode.json").read_text())
    gpu = json.loads((RESULTS / "gpu.json").read_text())
    models = [next(model for model in gpu["decoding"] if model["model"] == name) for name in ON_GPU]

    figure = Figure(figsize=(12, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[2, 4, 4])
    rivals = {"ratio_over_static": "temp + top-p", "ratio_over_defaults": "defaults"}
    groups = {rival: [model[key] for model in cpu] for key, rival in rivals.items()}
    bars(left, "CPU, 2 threads", groups, [NAMES[model["model"]] for model in cpu])
    card = gpu["machine"].split()[1]
    for axes, sequences in ((middle, 1), (right, 32)):
        groups = {
            "sampling on the host": gpu_ratios(models, sequences, "host_static"),
            "static sampling in the graph": gpu_ratios(models, sequences, "graph_static"),
        }
        bars(axes, f"{card}, batch of {sequences}", groups, [NAMES[model["model"]] for model in models])
        axes.set_yscale("log")
        axes.set_ylim(top=2 * axes.get_ylim()[1])
    with replacing(args.output) as part:
        figure.savefig(part, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
