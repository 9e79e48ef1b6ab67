"""Write training.jsonl and test.jsonl, which share no question: python benchmarks/gpu/problems.py FOLDER [SET]

SET is smollm2, the families of examples/smollm2 with short answers, or reasoning, families whose answers a model
reasons about for some 200 tokens: twelve to train on, and four more in the test that no training sees. anchors.jsonl
gets prompts of all other families.
"""

import argparse
import json
from pathlib import Path

from autodeco.evaluation.tasks import Task, parse_specs, write_training
from autodeco.tuning.anchors import other_prompts

HERE = Path(__file__).parent
SMOLLM2 = HERE.parents[1] / "examples" / "smollm2" / "trained.yaml"
# trained families, unseen ones, and how many problems of a family to train and to test on
SETS = {"smollm2": (SMOLLM2, None, 700, 300), "reasoning": (HERE / "reasoning.yaml", HERE / "unseen.yaml", 400, 200)}


DRAWN, ANCHORS_EACH, LONGEST = 60, 24, 1200  # problems of a family, prompts of them, characters


def main() -> None:
    """Draw the problems, a few of each family held out of both files for choosing settings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("set", nargs="?", default="smollm2", choices=SETS)
    args = parser.parse_args()
    trained, unseen, training, test = SETS[args.set]
    tasks = [Task(spec, 0, test=test, validation=100, training=training) for spec in parse_specs([str(trained)])]
    write_training(tasks, args.folder / "training.jsonl")
    if unseen:
        tasks += [Task(spec, 0, test=test, validation=0, training=0) for spec in parse_specs([str(unseen)])]
    held = other_prompts({task.spec.source for task in tasks}, 1234, DRAWN, LONGEST, ANCHORS_EACH)
    (args.folder / "anchors.jsonl").write_text("".join(json.dumps({"prompt": chat}) + "\n" for chat in held))
    rows = [problem | {"family": task.spec.name} for task in tasks for problem in task.test]
    (args.folder / "test.jsonl").write_text("".join(json.dumps(row, default=str) + "\n" for row in rows))


if __name__ == "__main__":
    main()
