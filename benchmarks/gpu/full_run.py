"""From nothing to reward-trained heads on one GPU: python3 benchmarks/gpu/full_run.py MODEL TRAINING TEST OUT

MODEL is a GGUF or a Hugging Face folder; TRAINING and TEST are files of problems. The model answers at a fixed
temperature, its right answers train OUT/likelihood, rewards train OUT/reward, and both are measured on TEST beside
static settings and their own means. OUT/full_run.json has figures and times.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from autodeco.data.checkers import NUMBER
from autodeco.data.problems import read_problems
from autodeco.heads import Heads
from autodeco.hugging_face.model import HuggingFaceModel
from autodeco.rewards.arguments import RewardArguments
from autodeco.rewards.hugging_face import HuggingFacePolicy
from autodeco.rewards.loop import train_on_rewards
from autodeco.training import TrainingArguments, train_from
from autodeco.training.arguments import HuggingFaceSettings
from autodeco.training.hugging_face_source import HuggingFaceSource


def right(problem: dict, text: str) -> float:
    """Return 1 for an answer whose last number is the problem's, or that is the problem's if this is no number."""
    expected = str(problem["answer"]).strip()
    if NUMBER.fullmatch(expected):
        found = NUMBER.findall(text)
        return float(bool(found) and float(found[-1]) == float(expected))
    return float(text.strip() == expected)


def fixed(temperature: float, top_p: float):
    """Return a static setting in the place of heads."""

    def predict(hidden, logits):
        return (torch.full((len(hidden),), value, device=hidden.device) for value in (temperature, top_p))

    return predict


def answer(policy: HuggingFacePolicy, problems: list[dict], n: int, heads, seed: int) -> tuple[list, np.ndarray]:
    """Return ``n`` answers to each problem and their rewards."""
    answers = policy.sample([policy.prompt_ids(problem["prompt"]) for problem in problems], n, heads, seed)
    rewards = [
        [right(problem, each.text) if each.finished else 0.0 for each in group]
        for problem, group in zip(problems, answers, strict=True)
    ]
    return answers, np.array(rewards)


def write_right_answers(policy: HuggingFacePolicy, problems: list[dict], n: int, path: Path) -> int:
    """Write the right ones of ``n`` answers to each problem as training data; return how many."""
    answers, rewards = answer(policy, problems, n, fixed(0.6, 1.0), seed=0)
    rows = [
        {"prompt": problem["prompt"], "completion": [{"role": "assistant", "content": each.text}]}
        for problem, group, row in zip(problems, answers, rewards, strict=True)
        for each, reward in zip(group, row, strict=True)
        if reward == 1
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return len(rows)


def measured(policy: HuggingFacePolicy, problems: list[dict], n: int, heads) -> dict:
    """Return pass@1 with its standard error over problems, by family too, and the mean T and P."""
    answers, rewards = answer(policy, problems, n, heads, seed=1)
    rates = rewards.mean(1)
    temperature, top_p = (
        np.concatenate([getattr(each, name) for group in answers for each in group]).mean()
        for name in ("temperature", "top_p")
    )
    by_family: dict[str, list] = {}
    for problem, rate in zip(problems, rates, strict=True):
        by_family.setdefault(problem.get("family", problem.get("task", "")), []).append(rate)
    return {
        "pass_at_1": float(rates.mean()),
        "standard_error": float(rates.std() / len(rates) ** 0.5),
        "families": {name: float(np.mean(values)) for name, values in by_family.items()},
        "temperature": float(temperature),
        "top_p": float(top_p),
    }


def main() -> None:
    """Run all stages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("model", "training", "test", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--max-tokens", type=int, default=24)
    parser.add_argument("--slots", type=int, default=1536)
    parser.add_argument("--answers", type=int, default=8, help="to a problem, to train on and to measure")
    parser.add_argument("--likelihood-steps", type=int, default=150)
    parser.add_argument("--reward-steps", type=int, default=600)
    parser.add_argument("--batch-problems", type=int, default=256)
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="other heads to measure")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    report = {"device": torch.cuda.get_device_name() if args.device == "cuda" else "CPU", "seconds": {}, "test": {}}
    report |= {"torch": torch.__version__, "settings": {key: str(value) for key, value in vars(args).items()}}
    began = time.perf_counter()

    def done(stage: str) -> None:
        nonlocal began
        report["seconds"][stage] = round(time.perf_counter() - began, 1)
        (args.out / "full_run.json").write_text(json.dumps(report, indent=2) + "\n")
        print(f"{stage}: {report['seconds'][stage]} s", flush=True)
        began = time.perf_counter()

    training, test = read_problems(args.training), read_problems(args.test)
    model = HuggingFaceModel(args.model, args.dtype)
    policy = HuggingFacePolicy(model, args.max_tokens, args.slots, args.device, args.dtype)
    done("load")

    data = args.out / "right-answers.jsonl"
    report["right_answers"] = write_right_answers(policy, training, args.answers, data)
    done("answers")

    likelihood = TrainingArguments(
        steps=args.likelihood_steps, batch_tokens=2048, learning_rate=1e-3, device=args.device, evaluate_every=100
    )
    source = HuggingFaceSource(model, data, likelihood, HuggingFaceSettings(1024, args.dtype))
    train_from(source, args.out / "likelihood", likelihood)
    done("likelihood")

    reward = RewardArguments(
        checker="python:full_run:right",
        rollouts="hugging-face",
        dtype=args.dtype,
        steps=args.reward_steps,
        batch_problems=args.batch_problems,
        samples=args.samples,
        max_tokens=args.max_tokens,
        learning_rate=args.learning_rate,
        validation_problems=300,
        slots=args.slots,
        device=args.device,
    )
    result = train_on_rewards(policy, args.training, args.out / "reward", reward, init=args.out / "likelihood")
    report["reward"] = {"steps": result.steps, "best_step": result.best_step, "history": result.history}
    report["peak_bytes"] = torch.cuda.max_memory_allocated() if args.device == "cuda" else None
    done("reward")

    methods = {"greedy": fixed(0.0, 1.0)} | {f"T {t}": fixed(t, 1.0) for t in (0.1, 0.3, 0.6, 1.0)}
    for name, predict in methods.items():
        report["test"][name] = measured(policy, test, 1 if name == "greedy" else args.answers, predict)
    for folder in (args.out / "likelihood", args.out / "reward", *(each for each in args.also if each.exists())):
        heads = Heads.from_pretrained(folder).to(args.device)
        report["test"][folder.name] = found = measured(policy, test, args.answers, heads)
        mean = fixed(found["temperature"], found["top_p"])
        report["test"][f"{folder.name}, fixed at the mean"] = measured(policy, test, args.answers, mean)
    done("test")
    print(json.dumps(report["test"], indent=1))


if __name__ == "__main__":
    main()
