"""The end of a run: measured heads, static settings and greedy decoding, compared by answers to held-out problems."""

import numpy as np

from autodeco.heads import Heads
from autodeco.rewards.arguments import RewardArguments
from autodeco.rewards.measuring import (
    FINALISTS,
    GREEDY,
    GRID,
    Predictor,
    Static,
    Verdict,
    halving,
    halving_samples,
    moves,
    verdict,
)
from autodeco.rewards.policy import Sampled
from autodeco.rewards.problems import Problems
from autodeco.rewards.targets import Target
from autodeco.runs.seeds import Stream, seed_of
from autodeco.training.state import TrainingState

CANDIDATES = "candidates"  # folder of the heads measured so far, there while a run is unfinished
LOW_TEMPERATURE = 0.1
AGAIN = 50  # number of the answers by which moves are compared


def held_out_answers(
    problems: Problems, arguments: RewardArguments, predictor: Heads | Predictor, n: int, number: int
) -> tuple[list[list[Sampled]], np.ndarray]:
    """Return ``n`` answers to each held-out problem and their rewards; another ``number``, other answers."""
    n = 1 if predictor is GREEDY else n
    seed = seed_of(arguments.seed, Stream.HELD_OUT_ANSWERS, number)
    return problems.answers(problems.validation, n, predictor, seed)


def judge(run: TrainingState, problems: Problems, target: Target) -> tuple[Verdict, list[list[Sampled]]]:
    """Choose the best of the measured heads, of what they become when moved as a whole, and of the static settings, and
    compare them by fresh answers.

    Return the verdict and the heads' answers. What was judged before an interrupt is not drawn again.
    """
    arguments = run.arguments
    last = sorted(run.history, key=lambda row: row["loss"])[:FINALISTS]
    finalists = {str(row["step"]): candidate(run, row["step"]) for row in last}
    moved: dict[str, Heads] = {}
    settings: dict[str, Static] = {str(each): each for each in GRID}
    judged = run.extra.setdefault("judged", {})

    def rewards_of(name: str, n: int, number: int) -> np.ndarray:
        key = f"{name} {number}"
        if key not in judged:
            predictor = (finalists | moved | settings)[name]
            judged[key] = held_out_answers(problems, arguments, predictor, n, 1 + number)[1].tolist()
            run.save_resume()
        return np.array(judged[key])

    samples = halving_samples(target)
    kept = halving(list(finalists), rewards_of, target, samples)
    ways = {f"{kept} moved by {by}": by for by in moves(arguments.temperature, arguments.top_p)}
    moved |= {name: finalists[kept].moved(*by) for name, by in ways.items()}
    # by other answers than those that chose the kept ones, which flatter them
    best = halving(list(moved), lambda name, n, number: rewards_of(name, n, AGAIN + number), target, samples)
    run.extra["moved"] = dict(zip(("temperature", "top_p"), ways[best], strict=True))
    setting = settings[halving(list(settings), rewards_of, target, samples)]
    run.keep(int(kept), moved[best])
    n = 2 * arguments.validation_samples
    answers, ours = held_out_answers(problems, arguments, moved[best], n, 100)
    _, greedy = held_out_answers(problems, arguments, GREEDY, 1, 100)
    _, theirs = held_out_answers(problems, arguments, setting, n, 101)
    del run.extra["judged"]  # only who continues a run asks for it
    return verdict(target, ours, greedy, theirs, setting, arguments.seed), answers


def kept_answers(run: TrainingState, problems: Problems) -> list[list[Sampled]]:
    """Return an answer to each held-out problem of the best measured heads, which are kept without a verdict."""
    return held_out_answers(problems, run.arguments, run.best_heads(), 1, 100)[0]


def spread(answers: list[Sampled]) -> dict[str, float]:
    """Return means and deviations of what was predicted for the tokens of ``answers``."""
    figures = {}
    for name in ("temperature", "top_p"):
        values = np.concatenate([getattr(answer, name) for answer in answers])
        figures |= {name: float(values.mean()), f"{name}_deviation": float(values.std())}
        if name == "temperature":
            low = float((values < LOW_TEMPERATURE).mean())
    return figures | {"low_temperature": low}


def predictions(answers: list[list[Sampled]]) -> dict[str, list]:
    """Return the tokens of an answer to each held-out problem, and what was predicted for them."""
    first = [group[0] for group in answers]
    return {
        "token": [int(token) for answer in first for token in answer.tokens],
        "temperature": [float(value) for answer in first for value in answer.temperature],
        "top_p": [float(value) for answer in first for value in answer.top_p],
        "record": [index for index, answer in enumerate(first) for _ in answer.tokens],
    }


def candidate(run: TrainingState, step: int) -> Heads:
    folder = run.directory / CANDIDATES / f"{step // run.arguments.updates_in_a_round:05d}"
    return Heads.from_pretrained(folder).to(run.model.device)
