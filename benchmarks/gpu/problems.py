"""Write problems for full_run.py: python benchmarks/gpu/problems.py FOLDER [SET]

FOLDER gets training.jsonl and test.jsonl, which share no question, and anchors.jsonl, prompts of all other families.
SET is smollm2, the families of examples/smollm2 with short answers, or reasoning, families whose answers a model
reasons about for some 200 tokens: twelve to train on, and four more that no training sees, in unseen.jsonl. Families of
short answers (short.yaml) are in the training of this one too, but in no test. Its anchors.jsonl also has prompts of
everyday.py's families, and --everyday puts problems of these into the training, too. Sixteen of them are in
held_out.jsonl alone: they choose between heads by what no run sees.
"""

import argparse
import json
from pathlib import Path

from everyday import FAMILIES, HELD_OUT
from everyday import problems as everyday_problems

from autodeco.evaluation.tasks import Task, parse_specs, write_training
from autodeco.tuning.anchors import other_prompts

HERE = Path(__file__).parent
SMOLLM2 = HERE.parents[1] / "examples" / "smollm2" / "trained.yaml"
# trained families, those that are only trained, unseen ones, and how many problems of a family to train and to test on
SETS = {
    "smollm2": (SMOLLM2, None, None, 700, 300),
    "reasoning": (HERE / "reasoning.yaml", HERE / "short.yaml", HERE / "unseen.yaml", 700, 200),
}
SHORT = 250  # problems of a family of short answers
EVERYDAY, HELD_OUT_EACH = 40, 45  # prompts of a family of everyday sums, and problems of one that is held out
DRAWN, ANCHORS_EACH, LONGEST = 60, 24, 1200  # problems of a family, prompts of them, characters


def _lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row, default=str) + "\n" for row in rows)


def main() -> None:
    """Draw the problems."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="for all files; it is made if it is missing")
    parser.add_argument("set", nargs="?", default="smollm2", choices=SETS, help="(default: smollm2)")
    parser.add_argument("--seed", type=int, default=0, help="of the problems (default: 0)")
    parser.add_argument("--everyday", type=int, default=0, help="of each such family to train on (default: 0)")
    args = parser.parse_args()
    trained, short, unseen, training, test = SETS[args.set]

    def tasks_of(file: Path | None, **sizes: int) -> list[Task]:
        return [Task(spec, args.seed, **sizes) for spec in parse_specs([str(file)])] if file else []

    tasks = tasks_of(trained, test=test, validation=0, training=training)
    only_trained = tasks_of(short, test=0, validation=0, training=SHORT)
    written = {"training": write_training(tasks + only_trained, args.folder / "training.jsonl")}
    everyday = [name for name in FAMILIES if name not in HELD_OUT] if args.set == "reasoning" else []
    if args.everyday and everyday:
        with open(args.folder / "training.jsonl", "a", encoding="utf-8") as file:
            for name in everyday:
                rows = everyday_problems(name, args.everyday, args.seed + 1)  # other ones than the anchors'
                file.write(_lines(rows))
                written["training"] += len(rows)
    never_seen = tasks_of(unseen, test=test, validation=0, training=0)
    held = other_prompts(
        {task.spec.source for task in tasks + only_trained + never_seen}, 1234, DRAWN, LONGEST, ANCHORS_EACH
    )
    groups = {
        name: [problem | {"family": task.spec.name} for task in some for problem in task.test]
        for name, some in (("test", tasks), ("unseen", never_seen))
    }
    if args.set == "reasoning":
        held += [row["prompt"] for name in everyday for row in everyday_problems(name, EVERYDAY, args.seed)]
        groups["held_out"] = [row for name in HELD_OUT for row in everyday_problems(name, HELD_OUT_EACH, args.seed)]
    (args.folder / "anchors.jsonl").write_text(_lines([{"prompt": chat} for chat in held]))
    written["anchors"] = len(held)
    for name, rows in groups.items():
        if rows:
            (args.folder / f"{name}.jsonl").write_text(_lines(rows))
            written[name] = len(rows)
    for name, count in written.items():
        print(f"{args.folder / name}.jsonl: {count} problems")


if __name__ == "__main__":
    main()
