"""Training on rewards without a model: from drawn answers to decisions, and updates of the heads from these.

    python benchmarks/rewards.py [-o benchmarks/results/rewards.json]

A toy policy with 64 numbers in a state and a vocabulary of 512 stands for the model. What is timed is ours: baselines,
compressed distributions, and the objective with its gradient and the optimiser. Answers are 16 to a problem and part
at random tokens; 30% of the tokens are uncertain. Seconds are of the processor, on one thread, the fastest of two.

``ratios`` compare each size with 1,000 answers of 200 tokens. A cost that is linear in the tokens has ``tokens_ratio``.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from autodeco.base.identity import ModelIdentity
from autodeco.commands.bench import machine
from autodeco.heads import Heads
from autodeco.rewards.arguments import RewardArguments
from autodeco.rewards.baselines import prefix_baselines
from autodeco.rewards.decisions import decisions
from autodeco.rewards.objective import add_gradient
from autodeco.rewards.policy import Sampled
from autodeco.rewards.targets import parse_target
from autodeco.runs.provenance import provenance

HIDDEN, VOCABULARY, STATES = 64, 512, 4096
SAMPLES = 16
UNCERTAIN = 0.3
ROUNDS = 2
FIRST = (1000, 200)
SIZES = (FIRST, (2000, 200), (4000, 200), (1000, 50), (1000, 800))


@dataclass(frozen=True)
class Toy:
    """A frozen model that is a table of states and a matrix."""

    table: torch.Tensor
    matrix: torch.Tensor
    device: str = "cpu"
    rank: int = 0
    identity = ModelIdentity("toy", "toy", "toy", "toy", HIDDEN, VOCABULARY)

    def states(self, rows: np.ndarray) -> torch.Tensor:
        return self.table[rows % STATES]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden @ self.matrix.t()


def toy() -> Toy:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(STATES, HIDDEN, generator=generator)
    return Toy(table, 0.5 * torch.randn(VOCABULARY, HIDDEN, generator=generator))


def drawn(answers: int, tokens: int) -> tuple[list[list[Sampled]], np.ndarray]:
    """Answers to problems, and rewards [problems, SAMPLES] of 0 and 1."""
    random = np.random.default_rng(0)
    groups = []
    for _ in range(-(-answers // SAMPLES)):
        grid = random.integers(0, VOCABULARY, (SAMPLES, tokens), dtype=np.int32)
        for row, shared in zip(grid, random.integers(0, tokens, SAMPLES), strict=True):
            row[:shared] = grid[0, :shared]
        groups.append([_sampled(row, random) for row in grid])
    return groups, random.integers(0, 2, (len(groups), SAMPLES)).astype(float)


def _sampled(tokens: np.ndarray, random: np.random.Generator) -> Sampled:
    n = len(tokens)
    likeliest = np.where(random.random(n) < UNCERTAIN, 0.6, 0.99).astype(np.float32)
    temperature, top_p = np.full(n, 0.5, np.float32), np.full(n, 0.95, np.float32)
    return Sampled(tokens, "", True, temperature, top_p, likeliest, random.integers(0, STATES, n))


def seconds(function) -> float:
    """Processor seconds of the fastest of ROUNDS calls."""
    taken = []
    for _ in range(ROUNDS):
        start = time.process_time()
        function()
        taken.append(time.process_time() - start)
    return min(taken)


def measure(policy: Toy, answers: int, tokens: int) -> dict:
    """Seconds of the baselines alone, of the decisions with them, and of an update."""
    groups, rewards = drawn(answers, tokens)
    target, arguments = parse_target("pass@1"), RewardArguments()
    generators = [np.random.default_rng(index) for index in range(len(groups))]
    kept = []

    def all_decisions() -> None:
        kept[:] = [decisions(policy, groups, rewards, target, generators)]

    def all_baselines() -> None:
        for group, row in zip(groups, rewards, strict=True):
            prefix_baselines([answer.tokens for answer in group], row)

    of_baselines, of_decisions = seconds(all_baselines), seconds(all_decisions)
    part = kept[0][torch.arange(len(kept[0]) // arguments.minibatches)]
    torch.manual_seed(0)
    heads = Heads(HIDDEN)
    optimizer = torch.optim.AdamW(heads.parameters(), lr=1e-3)

    def update() -> None:
        optimizer.zero_grad(set_to_none=True)
        add_gradient(heads, part, arguments.leak_price, 1 / rewards.size, arguments.clip)
        optimizer.step()

    of_update = seconds(update)
    return {
        "answers": rewards.size,
        "tokens": tokens,
        "decisions": len(kept[0]),
        "baselines_seconds": round(of_baselines, 4),
        "decisions_seconds": round(of_decisions, 3),
        "update_seconds": round(of_update, 4),
        "updates_a_second": round(1 / of_update, 2),
    }


def ratios(rows: list[dict]) -> list[dict]:
    """Each row's growth over the first: of the tokens, and of the three times."""
    first, found = rows[0], []
    for row in rows:
        of_tokens = row["answers"] * row["tokens"] / (first["answers"] * first["tokens"])
        times = {
            name: round(row[f"{name}_seconds"] / first[f"{name}_seconds"], 2)
            for name in ("baselines", "decisions", "update")
        }
        found.append({"answers": row["answers"], "tokens": row["tokens"], "tokens_ratio": round(of_tokens, 2), **times})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    policy, rows = toy(), []
    for size in SIZES:
        rows.append(measure(policy, *size))
        print(rows[-1], flush=True)
    found = {"machine": machine() | {"threads": 1}, **provenance(), "rows": rows, "ratios": ratios(rows)}
    for row in found["ratios"]:
        print(row)
    if args.output:
        args.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
