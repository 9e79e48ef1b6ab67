"""Write training.jsonl and test.jsonl, which share no question: python benchmarks/gpu/problems.py FOLDER [SET]

SET is smollm2, the families of examples/smollm2 with short answers, or reasoning, families whose answers a model
reasons about for some 200 tokens: twelve to train on, and four more in the test that no training sees. anchors.jsonl
gets prompts of all other families.
"""

import argparse
import json
from pathlib import Path

import reasoning_gym
from reasoning_gym.factory import DATASETS

from autodeco.evaluation.tasks import Task, parse_specs, write_training

HERE = Path(__file__).parent
SMOLLM2 = HERE.parents[1] / "examples" / "smollm2" / "trained.yaml"
# trained families, unseen ones, and how many problems of a family to train and to test on
SETS = {"smollm2": (SMOLLM2, None, 700, 300), "reasoning": (HERE / "reasoning.yaml", HERE / "unseen.yaml", 400, 200)}


ANCHORS_EACH, LONGEST = 24, 1200  # prompts of a family, characters


def anchors(without: set[str]) -> list[dict]:
    """Return prompts of all families but those in ``without``."""
    rows = []
    for family in sorted(DATASETS.keys() - without - {"composite"}):
        entries = reasoning_gym.create_dataset(family, size=60, seed=1234)
        questions = (entries[index]["question"].strip() for index in range(60))
        short = [question for question in questions if len(question) < LONGEST]
        rows += [{"prompt": [{"role": "user", "content": question}]} for question in short[:ANCHORS_EACH]]
    return rows


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
    held = anchors({task.spec.source for task in tasks})
    (args.folder / "anchors.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held))
    rows = [problem | {"family": task.spec.name} for task in tasks for problem in task.test]
    (args.folder / "test.jsonl").write_text("".join(json.dumps(row, default=str) + "\n" for row in rows))


if __name__ == "__main__":
    main()
