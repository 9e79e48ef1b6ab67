"""Whether commands are followed in answers that the model draws itself: prompts read, a control head learned, measured.

Prompts and wordings of the measurement are in no training. transformers draws the answers; MODEL is a folder, a name on
the hub or a GGUF. HEADS are steered, and written beside the figures with the control head.

python benchmarks/control.py MODEL HEADS -o FOLDER --device cuda --dtype bfloat16 --slots 1536
python benchmarks/control.py --table benchmarks/results/control.json         # the figures as Markdown, no more
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from autodeco.runs.atomic import replacing
from autodeco.steering.arguments import MeasuringArguments, SteeringArguments
from autodeco.steering.table import tables

PROBLEM_TOKENS = 400


def run(policy, heads, options: argparse.Namespace) -> dict:
    """Return all figures of ``heads`` that learn with a loaded ``policy``; write them and the heads to options.output.

    ``options`` are those of ``parse``.
    """
    from autodeco.steering.steering import steer

    steering, measured = settings(options)

    def say(figures: dict) -> None:
        print(json.dumps(figures)[:1500], flush=True)

    trained, measuring, figures = steer(policy, heads, steering, measured, say)
    trained.save_pretrained(options.output)
    if options.problems:
        figures["measured"]["problems"] = measuring.problems(options.problems, options.checker, options.samples)
        say({"problems": figures["measured"]["problems"]})
    with replacing(options.output / "control.json") as part:
        part.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return figures


def settings(options: argparse.Namespace) -> tuple[SteeringArguments, MeasuringArguments]:
    """Return the settings that --set gives as NAME=VALUE, and the defaults of the others."""
    found = SteeringArguments(), MeasuringArguments()
    for given in options.set:
        name, _, value = given.partition("=")
        if not any(hasattr(each, name) for each in found):
            sys.exit(f"--set {given}: there is no such setting")
        found = tuple(replace(each, **{name: json.loads(value)}) if hasattr(each, name) else each for each in found)
    return found


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Return the options in ``words``, or of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("heads", nargs="?", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("control"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--problems", help="JSON lines: pass@1 of both heads, to see that gains stay")
    parser.add_argument("--checker", default="number")
    parser.add_argument("--samples", type=int, default=4, help="answers to each of --problems")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="of learning and measuring")
    parser.add_argument("--table", type=Path, metavar="JSON", help="print the table of a result")
    return parser.parse_args(words)


def main() -> None:
    options = parse()
    if options.table:
        print("\n".join(tables(json.loads(options.table.read_text()))))
        return
    from autodeco.heads import Heads
    from autodeco.hugging_face.model import HuggingFaceModel
    from autodeco.rewards.hugging_face import HuggingFacePolicy

    steering, _ = settings(options)
    most = max(steering.max_tokens, PROBLEM_TOKENS if options.problems else 0)
    model = HuggingFaceModel(options.model, options.dtype)
    policy = HuggingFacePolicy(model, most, options.slots, options.device, options.dtype)
    run(policy, Heads.from_pretrained(options.heads), options)


if __name__ == "__main__":
    main()
