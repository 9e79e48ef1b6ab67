"""Sets of heads, moved or not, beside static settings: compare_heads.py MODEL OUT WAY ... --on FILE ...

A WAY is NAME=HEADS, NAME=HEADS:T,P (heads whose temperature and top-p are moved as a whole), NAME=T,P (a static
setting) or greedy. transformers draws answers to the problems of every FILE, as problems.py writes them, and
last_number.py checks them. Of each way a line has pass@1 and pass@n by the problems' groups, and the mean T and P.
OUT.json keeps these figures and OUT.npz the reward of every answer. A call that is cut off loses the last way alone.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from full_run import add_drawing, measured

from autodeco.data.problems import read_problems
from autodeco.errors import InputError
from autodeco.heads import Heads
from autodeco.hugging_face.model import HuggingFaceModel
from autodeco.rewards.hugging_face import HuggingFacePolicy
from autodeco.rewards.measuring import GREEDY, Static
from autodeco.runs.atomic import replacing
from autodeco.settings.program import reports_errors

TAKEN = "groups", "file"  # in OUT.npz, and by what writes it
EXPECTED = "expected greedy, NAME=HEADS, NAME=HEADS:T,P or NAME=T,P"


def way_of(text: str) -> tuple[str, Heads | Static]:
    """Return the name and the heads or setting of a WAY; raises InputError for anything else."""
    name, _, what = text.partition("=")
    if text == "greedy":
        return text, GREEDY
    path, _, moved = what.rpartition(":") if ":" in what else (what, "", "")
    if not name or not what:
        raise InputError(f"{text}: {EXPECTED}")
    try:
        if moved:
            return name, Heads.from_pretrained(path).moved(*_two_numbers(moved))
        if "," in what:
            return name, Static(*_two_numbers(what))
    except ValueError:
        raise InputError(f"{text}: {EXPECTED}") from None
    return name, Heads.from_pretrained(what)


def ways_of(texts: Sequence[str]) -> dict[str, Heads | Static]:
    """Return the heads or setting of each WAY by its name, which no other may have."""
    found = {}
    for text in texts:
        name, way = way_of(text)
        if name in found or name in TAKEN:
            raise InputError(f"{text}: another way or array has this name; give it one of its own")
        found[name] = way
    return found


def _two_numbers(text: str) -> tuple[float, float]:
    first, second = text.split(",")
    return float(first), float(second)


def by_group(rewards: np.ndarray, groups: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return pass@1 and pass@n in percent of the problems of each group, from rewards [problems, n]."""
    found = {}
    for group in sorted(set(groups)):
        mine = rewards[np.array([each == group for each in groups])]
        found[group] = (100 * float(mine.mean()), 100 * float((mine.max(1) > 0).mean()))
    return found


@reports_errors("compare_heads.py")
def main(argv: Sequence[str] | None = None) -> int:
    """Compare all ways; return 0."""
    shown = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=shown)
    parser.add_argument("model", type=Path, help="GGUF or Hugging Face folder")
    parser.add_argument("out", type=Path, help="what OUT.json and OUT.npz begin with")
    parser.add_argument("ways", nargs="+", metavar="WAY", help=EXPECTED)
    parser.add_argument("--on", nargs="+", type=Path, required=True, metavar="FILE", help="files of problems")
    parser.add_argument("--answers", type=int, default=8, help="to a problem")
    add_drawing(parser, max_tokens=400)
    args = parser.parse_args(argv)
    ways = ways_of(args.ways)
    problems = [problem for file in args.on for problem in read_problems(file)]
    groups = [str(problem.get("group") or problem.get("family") or "all") for problem in problems]
    model = HuggingFaceModel(args.model, args.dtype)
    policy = HuggingFacePolicy(model, args.max_tokens, args.slots, args.device, args.dtype)
    figures, rewards = {}, {}
    for name, way in ways.items():
        if isinstance(way, Heads) and way.hidden_size != policy.identity.hidden_size:
            raise InputError(
                f"{name}: for hidden states of {way.hidden_size} numbers, {args.model} has "
                f"{policy.identity.hidden_size}; give heads of this model"
            )
    for name, way in ways.items():
        began = time.perf_counter()
        heads = way.to(args.device) if isinstance(way, Heads) else way
        figures[name], rewards[name], _ = measured(policy, problems, 1 if way is GREEDY else args.answers, heads)
        figures[name] |= {"groups": by_group(rewards[name], groups), "seconds": round(time.perf_counter() - began, 1)}
        with replacing(args.out.with_suffix(".json")) as part:
            part.write_text(json.dumps(figures, indent=1) + "\n")
        with replacing(args.out.with_suffix(".npz")) as part, part.open("wb") as file:
            np.savez_compressed(file, groups=np.array(groups), **rewards)
        shown = ", ".join(f"{group} {one:.1f} / {any_:.1f}" for group, (one, any_) in figures[name]["groups"].items())
        means = f"T {figures[name]['temperature']:.3f}, P {figures[name]['top_p']:.3f}"
        print(f"{name}: {shown}; {means}; {figures[name]['seconds']} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
