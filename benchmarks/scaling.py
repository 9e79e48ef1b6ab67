"""What grows with the records: packing them into rows, taking an update's batch, telling the mean score of a log.

    python benchmarks/scaling.py [-o benchmarks/results/scaling.json]

Each at two sizes, so that the growth can be read: time that follows the records grows as they do. Seconds are of the
processor, the fastest of three rounds. Rows under "before" in the results are of commit 74bbad8, which searched every
row for room, shuffled an epoch for each update, and added all scores up after each; one round on the same machine.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from autodeco.hugging_face.packing import Labelled, pack
from autodeco.rollouts import ScoredAnswers
from autodeco.runs.jsonl_log import JsonlLog
from autodeco.training.batches import ShuffledBatches

ROUNDS = 3
ROW = 2048  # tokens, as `--pack-tokens` has it
BATCH = 2048  # tokens of an update
UPDATES = 5
ANSWERS = 16  # to a problem


def seconds(function) -> float:
    """Processor seconds of the fastest of ROUNDS calls."""
    taken = []
    for _ in range(ROUNDS):
        start = time.process_time()
        function()
        taken.append(time.process_time() - start)
    return min(taken)


def packing(records: int) -> dict:
    """Records of 200 tokens in the median, packed into rows."""
    sizes = np.clip(np.random.default_rng(0).lognormal(np.log(200), 0.6, records), 8, ROW).astype(int)
    sequences = [Labelled(record, range(size), 1) for record, size in enumerate(sizes.tolist())]
    fill = float(sizes.sum()) / ROW / len(pack(sequences, ROW))
    taken = seconds(lambda: pack(sequences, ROW))
    return {"what": "pack", "records": records, "seconds": round(taken, 4), "fill": round(fill, 4)}


def batches(tokens: int) -> dict:
    """The mean of the first updates of an epoch, which bear the whole cost of its order."""
    items = np.arange(tokens)

    def updates() -> None:
        source = ShuffledBatches(items, BATCH, seed=0)
        for step in range(UPDATES):
            source.batch(step)

    source = ShuffledBatches(items, BATCH, seed=0)
    source.batch(0)
    later = seconds(lambda: [source.batch(step) for step in range(1, 101)]) / 100
    return {
        "what": "batch",
        "tokens": tokens,
        "seconds_an_update_of_the_first_5": round(seconds(updates) / UPDATES, 6),
        "seconds_an_update_after": round(later, 6),
    }


def log(problems: int) -> dict:
    """Answers to problems noted one problem after the other, with the mean score told after each."""

    def whole() -> None:
        with tempfile.TemporaryDirectory() as folder, JsonlLog(Path(folder) / "log", {}) as file:
            answers = ScoredAnswers(file)
            for problem in range(problems):
                answers.add(problem, [{"sample": sample, "score": 0.5} for sample in range(ANSWERS)])
                answers.mean_score()

    return {"what": "log", "problems": problems, "seconds": round(seconds(whole), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help='JSON; what it has under "before" stays')
    args = parser.parse_args()
    rows = []
    for measure, sizes in ((packing, (10_000, 100_000)), (batches, (10**6, 10**7)), (log, (1000, 4000))):
        for size in sizes:
            rows.append(measure(size))
            print(rows[-1], flush=True)
    if args.output:
        found = json.loads(args.output.read_text()) if args.output.exists() else {}
        args.output.write_text(json.dumps({"rows": rows, "before": found.get("before", [])}, indent=2) + "\n")


if __name__ == "__main__":
    main()
