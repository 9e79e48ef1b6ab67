"""Likelihood heads from a model's own right answers: python3 benchmarks/gpu/likelihood.py MODEL TRAINING OUT

transformers draws answers to problems of TRAINING, as problems.py writes them, at T 1. Those that last_number.py finds
right are OUT/right.jsonl, and heads learn their likelihood in OUT/heads. compare_heads.py and `autodeco eval` judge
them.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from full_run import add_drawing, answer

from autodeco.data.problems import read_problems
from autodeco.errors import InputError
from autodeco.hugging_face.model import HuggingFaceModel
from autodeco.rewards.hugging_face import HuggingFacePolicy
from autodeco.rewards.measuring import Static
from autodeco.runs.atomic import replacing
from autodeco.settings.program import reports_errors
from autodeco.training.arguments import HuggingFaceSettings, TrainingArguments
from autodeco.training.hugging_face_source import HuggingFaceSource
from autodeco.training.loop import train_from


def right_answers(policy: HuggingFacePolicy, problems: Sequence[dict], answers: int) -> list[dict]:
    """Return a record of each right answer to ``problems``, of so many drawn to each at T 1."""
    drawn, rewards = answer(policy, problems, answers, Static(1.0), seed=0)
    records = []
    for problem, group, row in zip(problems, drawn, rewards, strict=True):
        asked = problem["prompt"]
        turns = asked if isinstance(asked, list) else [{"role": "user", "content": asked}]
        right = [each.text for each, reward in zip(group, row, strict=True) if reward > 0]
        records += [{"messages": [*turns, {"role": "assistant", "content": text}]} for text in right]
    return records


@reports_errors("likelihood.py")
def main(argv: Sequence[str] | None = None) -> int:
    """Draw, keep what is right, and train; return 0."""
    shown = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=shown)
    parser.add_argument("model", type=Path, help="GGUF or Hugging Face folder")
    parser.add_argument("training", type=Path, help="training.jsonl of problems.py")
    parser.add_argument("out", type=Path, help="folder for right answers and heads")
    parser.add_argument("--problems", type=int, default=1600, help="of TRAINING, by chance")
    parser.add_argument("--answers", type=int, default=4, help="to each of them")
    parser.add_argument("--steps", type=int, default=400, help="updates of the heads")
    parser.add_argument("--batch-tokens", type=int, default=4096, help="tokens in an update")
    add_drawing(parser, max_tokens=400)
    args = parser.parse_args(argv)
    problems = read_problems(args.training)
    chosen = np.random.default_rng(0).permutation(len(problems))[: args.problems]
    model = HuggingFaceModel(args.model, args.dtype)
    policy = HuggingFacePolicy(model, args.max_tokens, args.slots, args.device, args.dtype)
    records = right_answers(policy, [problems[index] for index in chosen], args.answers)
    if not records:
        raise InputError(
            f"{args.training}: none of {len(chosen) * args.answers} answers is right; give easier problems"
        )
    args.out.mkdir(parents=True, exist_ok=True)
    with replacing(args.out / "right.jsonl") as part:
        part.write_text("".join(json.dumps(record) + "\n" for record in records))
    print(f"{args.out / 'right.jsonl'}: {len(records)} of {len(chosen) * args.answers} answers are right", flush=True)
    arguments = TrainingArguments(device=args.device, steps=args.steps, batch_tokens=args.batch_tokens)
    settings = HuggingFaceSettings(dtype=args.dtype)
    source = HuggingFaceSource(model, args.out / "right.jsonl", arguments, settings)
    train_from(source, args.out / "heads", arguments)
    print(f"{args.out / 'heads'}: likelihood heads")
    return 0


if __name__ == "__main__":
    sys.exit(main())
