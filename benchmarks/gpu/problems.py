"""Write training.jsonl and test.jsonl, which share no question: python benchmarks/gpu/problems.py FOLDER"""

import json
import sys
from pathlib import Path

from autodeco.evaluation.tasks import Task, parse_specs, write_training

FAMILIES = Path(__file__).parents[2] / "examples" / "smollm2" / "trained.yaml"


def main() -> None:
    """Draw the problems that examples/smollm2 draws: 700 a family to train on, 300 to test on."""
    folder = Path(sys.argv[1])
    tasks = [Task(spec, 0, test=300, validation=100, training=700) for spec in parse_specs([str(FAMILIES)])]
    write_training(tasks, folder / "training.jsonl")
    test = [problem | {"family": task.spec.name} for task in tasks for problem in task.test]
    (folder / "test.jsonl").write_text("".join(json.dumps(problem) + "\n" for problem in test))


if __name__ == "__main__":
    main()
