"""From nothing to reward-trained heads on one GPU: python3 benchmarks/gpu/full_run.py MODEL TRAINING TEST OUT

MODEL is a GGUF or a Hugging Face folder; TRAINING and TEST are files of problems, as problems.py writes them. Three
runs on rewards follow each other: OUT/warm for pass@1 + pass@8 from a warm static setting, OUT/both for --target from
there, and OUT/single for pass@1 from there. With --anchors, heads are held to a setting at its prompts: a warm one in
OUT/warm, a colder one in OUT/both and a cold one in OUT/single. The heads are measured on TEST, unless it is "none",
beside greedy decoding, static settings, their own means and their own values shuffled over tokens. OUT/full_run.json
has figures and times, OUT/rewards.npz the reward of every test answer. The defaults are for short answers, as those of
problems.py FOLDER; answers that reason want --max-tokens 400. The same command continues what was interrupted.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from last_number import right

from autodeco.data.inverse_temperature import inverse_mean
from autodeco.data.problems import read_problems
from autodeco.errors import InputError
from autodeco.export.checkpoint import RESUME_FILE
from autodeco.heads import Heads
from autodeco.hugging_face.model import HuggingFaceModel
from autodeco.rewards.arguments import RewardArguments
from autodeco.rewards.hugging_face import HuggingFacePolicy
from autodeco.rewards.loop import train_on_rewards
from autodeco.rewards.measuring import GREEDY, Static
from autodeco.runs.interrupts import exit_code
from autodeco.settings.program import reports_errors


def shuffled(temperature: np.ndarray, top_p: np.ndarray, device: str):
    """Return a predictor that gives each token the pair that heads predicted for some other token."""
    pairs = torch.from_numpy(np.stack([temperature, top_p])).to(device)
    generator = torch.Generator(device).manual_seed(5)

    def predict(hidden, logits):
        places = torch.randint(pairs.shape[1], (len(hidden),), generator=generator, device=hidden.device)
        return pairs[0, places], pairs[1, places]

    return predict


def answer(policy: HuggingFacePolicy, problems: list[dict], n: int, heads, seed: int) -> tuple[list, np.ndarray]:
    """Return ``n`` answers to each problem and their rewards."""
    answers = policy.sample([policy.prompt_ids(problem["prompt"]) for problem in problems], n, heads, seed)
    rewards = [
        [right(problem, each.text) if each.finished else 0.0 for each in group]
        for problem, group in zip(problems, answers, strict=True)
    ]
    return answers, np.array(rewards)


def measured(policy: HuggingFacePolicy, problems: list[dict], n: int, heads) -> tuple[dict, np.ndarray, list]:
    """Return figures (pass@1 with its standard error over problems, pass@n, pass@1 by family, mean T and P), the
    rewards [problems, n], and all predictions of T and of P."""
    answers, rewards = answer(policy, problems, n, heads, seed=1)
    rates = rewards.mean(1)
    flat = [each for group in answers for each in group]
    predicted = [np.concatenate([getattr(each, name) for each in flat]) for name in ("temperature", "top_p")]
    by_family: dict[str, list] = {}
    for problem, rate in zip(problems, rates, strict=True):
        by_family.setdefault(problem.get("family", problem.get("task", "")), []).append(rate)
    figures = {
        "pass_at_1": float(rates.mean()),
        "standard_error": float(rates.std() / len(rates) ** 0.5),
        f"pass_at_{n}": float((rewards.max(1) > 0).mean()),
        "families": {name: float(np.mean(values)) for name, values in by_family.items()},
        "tokens": sum(len(each.tokens) for each in flat),
    }
    for name, values in zip(("temperature", "top_p"), predicted, strict=True):
        figures |= {name: float(values.mean()), f"{name}_deviation": float(values.std())}
    return figures, rewards, predicted


def stages(args: argparse.Namespace) -> dict[str, RewardArguments]:
    """Return the settings of the runs that follow each other, by name."""
    shared = RewardArguments(
        checker="python:last_number:right",
        answers_from="hugging-face",
        dtype=args.dtype,
        batch_problems=args.batch_problems,
        samples=args.samples,
        max_tokens=args.max_tokens,
        screening_problems=args.screening_problems,
        validation_problems=args.validation_problems,
        slots=args.slots,
        device=args.device,
        top_p_price=args.top_p_price,
    )
    warm, both, single = args.rounds
    return {
        "warm": replace(
            shared,
            target="pass@1+pass@8",
            rounds=warm,
            evaluate_every=warm,
            verdict=False,
            first_temperature=0.5,
            leak_price=0.5,
            anchor_price=0.15,
            anchor_temperature=0.4,
            anchor_top_p=0.95,
        ),
        "both": replace(
            shared,
            target=args.target,
            rounds=both,
            evaluate_every=max(1, both // 2),
            learning_rate=7e-4,
            passes=2,
            batch_problems=args.both_problems,
            anchor_price=0.1,
            anchor_temperature=0.2,
            anchor_top_p=0.95,
        ),
        "single": replace(
            shared,
            target="pass@1",
            rounds=single,
            evaluate_every=max(1, single // 2),
            learning_rate=1e-3,
            anchor_price=0.03,
        ),
    }


def add_drawing(parser: argparse.ArgumentParser, max_tokens: int) -> None:
    """Declare what answers are drawn with; ``max_tokens`` is the default."""
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--dtype", default="bfloat16", help="of the frozen model")
    parser.add_argument("--max-tokens", type=int, default=max_tokens, help="of an answer")
    parser.add_argument("--slots", type=int, default=1536, help="answers computed at a time: fewer take less memory")


@reports_errors("full_run.py")
def main(argv: Sequence[str] | None = None) -> int:
    """Run all stages that are not done yet; return 0, or the exit code of an interrupt."""
    shown = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=shown)
    parser.add_argument("model", type=Path, help="GGUF or Hugging Face folder")
    parser.add_argument("training", type=Path, help="training.jsonl of problems.py")
    parser.add_argument("test", type=Path, help="test.jsonl of problems.py, or none: measure nothing")
    parser.add_argument("out", type=Path, help="folder for heads and figures")
    add_drawing(parser, max_tokens=24)
    parser.add_argument("--target", default="pass@1+2*pass@8", help="of the second run")
    parser.add_argument("--answers", type=int, default=8, help="to a test problem")
    parser.add_argument("--rounds", type=int, nargs=3, default=(22, 8, 24), help="of the three runs")
    parser.add_argument("--anchors", type=Path, help="prompts that nobody scores: anchors.jsonl of problems.py")
    parser.add_argument("--batch-problems", type=int, default=160, help="in a round")
    parser.add_argument("--both-problems", type=int, default=192, help="in a round of the second run")
    parser.add_argument("--screening-problems", type=int, default=1500, help="looked at before the first round")
    parser.add_argument("--validation-problems", type=int, default=300, help="held out of TRAINING")
    parser.add_argument("--samples", type=int, default=16, help="answers to a problem in a round")
    parser.add_argument("--top-p-price", type=float, default=3e-4, help="of leaving a top-p where it changes nothing")
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="other heads to measure")
    args = parser.parse_args(argv)
    on_gpu = args.device.startswith("cuda")
    if on_gpu and not torch.cuda.is_available():
        raise InputError(f"device {args.device}: torch finds no CUDA here; give --device cpu, which takes far longer")
    test = [] if str(args.test) == "none" else read_problems(args.test)
    args.out.mkdir(parents=True, exist_ok=True)
    file, began = args.out / "full_run.json", time.perf_counter()
    report = {"device": torch.cuda.get_device_name(args.device) if on_gpu else "CPU", "seconds": {}, "test": {}}
    report |= {"torch": torch.__version__, "settings": {key: str(value) for key, value in vars(args).items()}}
    if file.exists():
        done_before = json.loads(file.read_text(encoding="utf-8"))
        if done_before["settings"] != report["settings"]:
            raise InputError(f"{args.out}: holds a run of other arguments; give the same, or another OUT")
        report = done_before

    def done(stage: str) -> None:
        nonlocal began
        seconds = time.perf_counter() - began
        report["seconds"][stage] = round(report["seconds"].get(stage, 0.0) + seconds, 1)
        file.write_text(json.dumps(report, indent=2) + "\n")
        print(f"{stage}: {seconds:.1f} s", flush=True)
        began = time.perf_counter()

    model = HuggingFaceModel(args.model, args.dtype)
    policy = HuggingFacePolicy(model, args.max_tokens, args.slots, args.device, args.dtype)
    done("load")

    first = None
    for name, arguments in stages(args).items():
        folder = args.out / name
        unfinished = (folder / RESUME_FILE).exists()
        if name not in report or unfinished:
            result = train_on_rewards(policy, args.training, folder, arguments, first, unfinished, anchors=args.anchors)
            if not result.interrupted:
                report[name] = {"verdict": result.verdict, "best_step": result.best_step, "history": result.history}
            done(name)
            if result.interrupted:
                print(f"{folder}: unfinished; the same command goes on")
                return exit_code(result.interrupted)
        first = folder
    report["peak_bytes"] = torch.cuda.max_memory_allocated() if on_gpu else None

    if not test:
        return 0
    all_rewards = {}

    def judge(name: str, predict, n: int) -> list:
        report["test"][name], all_rewards[name], predicted = measured(policy, test, n, predict)
        np.savez_compressed(args.out / "rewards.npz", **all_rewards)
        return predicted

    judge("greedy", GREEDY, 1)
    for setting in (Static(0.1), Static(0.2, 0.95), Static(0.3, 0.95), Static(0.6, 0.95)):
        judge(str(setting), setting, args.answers)
    for folder in (args.out / "both", args.out / "single", *(each for each in args.also if each.exists())):
        temperature, top_p = judge(folder.name, Heads.from_pretrained(folder).to(args.device), args.answers)
        means = {"mean": temperature.mean(), "mean of 1/T": 1 / inverse_mean(temperature)}
        for mean, value in means.items():
            judge(f"{folder.name}, fixed at the {mean}", Static(float(value), float(top_p.mean())), args.answers)
        judge(f"{folder.name}, shuffled", shuffled(temperature, top_p, args.device), args.answers)
    done("test")
    print(json.dumps(report["test"], indent=1))
    print(report["single"]["verdict"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
