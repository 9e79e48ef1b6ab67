"""Training heads on rewards: the heads are the policy, the base stays as it is, a checker scores the answers.

Answers are drawn with the hard top-p of the runtime. The gradient goes through the log-probability of each token under
the soft top-p, whose derivatives by temperature and top-p are exact (exact_losses): loss = - advantage * log p_soft,
mean over the tokens of problems that were solved sometimes. Advantages are not divided by the group's deviation, which
would reward problems for being hard. See prefix_tree for the baseline.
"""

import math
import os
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from autodeco.checkers import check, checker
from autodeco.errors import InputError
from autodeco.exact_losses import predict_and_score
from autodeco.heads import TEMPERATURE_SCALE, Heads
from autodeco.interrupts import deferred_interrupt
from autodeco.policy import Policy, Sampled
from autodeco.prefix_tree import Tokens, advantages, edges
from autodeco.problem_files import read_problems
from autodeco.reward_arguments import RewardArguments
from autodeco.traces import file_hash
from autodeco.training_report import write_report
from autodeco.training_state import TrainingResult, TrainingState

LOW_TEMPERATURE = 0.1


@dataclass(frozen=True)
class RewardEvaluation:
    """Means over answers to held-out problems, and over their tokens."""

    loss: float  # 1 - reward
    reward: float
    temperature: float
    temperature_deviation: float
    top_p: float
    top_p_deviation: float
    low_temperature: float  # share of tokens with a temperature below 0.1
    answer_tokens: float  # in an answer


def train_on_rewards(
    policy: Policy,
    problems_path: str | os.PathLike,
    output_dir: str | os.PathLike,
    arguments: RewardArguments,
    init: str | os.PathLike | None = None,
    resume: bool = False,
    progress: bool = True,
) -> TrainingResult:
    """Train heads to have ``policy`` answer the problems right; write the best ones, by held-out reward, and a report.

    Start from heads trained on likelihood (``init``). Problems that those solve never or always teach nothing and are
    left out. An interrupt keeps the best heads so far; ``resume`` goes on with the same problems. Raises InputError for
    bad input and if there is no problem left to learn from.
    """
    problems = _Problems(problems_path, policy, arguments)
    policy.made_of, policy.details = {"problems": problems.hash}, {"data": problems.described}
    run = TrainingState(Path(output_dir), policy, arguments, RewardEvaluation, init, resume)
    start_heads = run.first_heads if arguments.keep_close else None
    start, interrupted, seconds, tokens = run.step, False, 0.0, 0
    hidden = None if progress else True
    try:
        if not run.history:
            run.extra = {"learnable": problems.learnable(run.heads, hidden), "updates": []}
            run.evaluated(problems.evaluate(run.heads))
        if _due(run):  # an interrupt came in between
            run.evaluated(problems.evaluate(run.averaged_heads()))
        with tqdm(total=arguments.steps, initial=start, unit="step", desc="train", disable=hidden) as bar:
            while run.step < arguments.steps:
                began = time.perf_counter()
                update = _update(run, problems, start_heads)
                seconds += time.perf_counter() - began
                tokens += update["tokens"]
                if _due(run):
                    run.evaluated(problems.evaluate(run.averaged_heads()))
                bar.update()
                shown = {"reward": f"{update['reward']:.3f}", "held out": f"{run.history[-1]['reward']:.3f}"}
                shown |= {"T": f"{update['temperature']:.2f}±{update['temperature_deviation']:.2f}"}
                shown |= {"P": f"{update['top_p']:.2f}±{update['top_p_deviation']:.2f}"}
                bar.set_postfix({"tokens/s": f"{tokens / seconds:.0f}"} | shown, refresh=False)
    except KeyboardInterrupt:
        interrupted = True
        if not run.history:
            raise
        run.save_resume()
    sizes = len(run.extra["learnable"]), len(problems.validation)
    result = run.finish(*sizes, "problems", seconds, tokens / seconds if seconds else 0.0, interrupted)
    if not interrupted:
        write_report(run, policy, problems.predictions(run.best_heads()))
    return result


class _Problems:
    """The problems of a run, split into those to train and to validate on."""

    def __init__(self, path: str | os.PathLike, policy: Policy, arguments: RewardArguments):
        self._problems, self._policy, self._arguments = read_problems(path), policy, arguments
        self.score, self.hash = checker(arguments.checker), file_hash(path)
        self.described = {"file": Path(path).name, "sha256": self.hash, "problems": len(self._problems)}
        if len(self._problems) < 2:
            raise InputError(f"{path}: holds one problem; give at least two, one of them to validate on")
        self.prompts = [policy.prompt_ids(problem["prompt"]) for problem in self._problems]
        order = np.random.default_rng([arguments.seed, 0]).permutation(len(self._problems)).tolist()
        held_out = min(arguments.validation_problems, len(order) // 2)
        self.validation, self.training = sorted(order[:held_out]), order[held_out:]

    def answers(self, indices: list[int], n: int, heads: Heads, seed: int) -> tuple[list[list[Sampled]], np.ndarray]:
        """Return answers to the problems at ``indices`` and their rewards [len(indices), n]."""
        answers = self._policy.sample([self.prompts[index] for index in indices], n, heads, seed)
        rewards = [
            [check(self.score, self._problems[index], a.text) if a.finished else 0.0 for a in group]
            for index, group in zip(indices, answers, strict=True)
        ]
        return answers, np.array(rewards)

    def learnable(self, heads: Heads, hidden: bool | None) -> list[int]:
        """Return the training problems that ``heads`` solve sometimes."""
        found, size = [], max(1, self._arguments.slots // self._arguments.measured_samples)
        with tqdm(total=len(self.training), unit="problem", desc="measure", disable=hidden) as bar:
            for begin in range(0, len(self.training), size):
                some = self.training[begin : begin + size]
                seed = _seed(self._arguments.seed, 1, begin)
                _, rewards = self.answers(some, self._arguments.measured_samples, heads, seed)
                found += [i for i, row in zip(some, rewards, strict=True) if row.min() < row.max()]
                bar.update(len(some))
                bar.set_postfix(learnable=len(found), refresh=False)
        if not found:
            raise InputError(
                "no training problem is solved sometimes and not always: there is nothing to learn from; give easier "
                "or harder ones, more --measured-samples, or better first heads with --init"
            )
        return found

    def evaluate(self, heads: Heads) -> RewardEvaluation:
        """Measure ``heads`` on the held-out problems, with the same seeds every time."""
        answers, rewards = self._validated(heads)
        spread = _spread([answer for group in answers for answer in group])
        lengths = [len(answer.tokens) for group in answers for answer in group]
        reward = float(rewards.mean())
        return RewardEvaluation(loss=1 - reward, reward=reward, **spread, answer_tokens=float(np.mean(lengths)))

    def predictions(self, heads: Heads) -> dict[str, list]:
        """Return the tokens of the first answer to each held-out problem, and what was predicted for them."""
        answers, _ = self._validated(heads)
        firsts = [(index, group[0]) for index, group in zip(self.validation, answers, strict=True)]
        return {
            "token": [token for _, answer in firsts for token in answer.tokens],
            "temperature": [float(value) for _, answer in firsts for value in answer.temperature],
            "top_p": [float(value) for _, answer in firsts for value in answer.top_p],
            "record": [index for index, answer in firsts for _ in answer.tokens],
        }

    def _validated(self, heads: Heads):
        seed = _seed(self._arguments.seed, 2, 0)
        return self.answers(self.validation, self._arguments.measured_samples, heads, seed)


def _due(run: TrainingState) -> bool:
    """Whether the heads as they are should be measured, and were not."""
    at_end = run.step == run.arguments.steps
    return (at_end or run.step % run.arguments.evaluate_every == 0) and run.history[-1]["step"] != run.step


def _update(run: TrainingState, problems: _Problems, start_heads: Heads | None) -> dict[str, float]:
    """Sample, score and make one step of the optimiser; return its figures."""
    arguments, learnable = run.arguments, run.extra["learnable"]
    size = min(arguments.batch_problems, len(learnable))
    # Every problem once before any again: one endless list of shuffled rounds, of which this update has a piece.
    places = range(run.step * size, (run.step + 1) * size)
    rounds = {place // len(learnable) for place in places}
    orders = {r: np.random.default_rng([arguments.seed, 3, r]).permutation(learnable) for r in rounds}
    indices = [int(orders[place // len(learnable)][place % len(learnable)]) for place in places]
    answers, rewards = problems.answers(indices, arguments.samples, run.heads, _seed(arguments.seed, 4, run.step))

    run.optimizer.zero_grad(set_to_none=True)
    live = [row for row in range(len(indices)) if rewards[row].min() < rewards[row].max()]
    tokens = sum(len(answer.tokens) for row in live for answer in answers[row])
    wanted, squares = [], defaultdict(float)
    for row in live:
        sequences = [answer.tokens for answer in answers[row]]
        values = {name: advantages(sequences, rewards[row], name) for name in ("prefix", "group")}
        for name, rows in values.items():
            squares[name] += sum(value * value for each in rows for value in each)
        wanted.append((problems.prompts[indices[row]], edges(sequences, values[arguments.baseline])))
    _add_gradient(run, wanted, [indices[row] for row in live], tokens, start_heads)
    with deferred_interrupt():
        # Between updates the heads, the optimiser and the history agree with the number of steps.
        if live:
            run.update(arguments.learning_rate * min(1.0, (run.step + 1) / max(1, arguments.warmup_steps)))
        else:
            run.step += 1
        figures = {"step": run.step, "reward": float(rewards.mean()), "live_problems": len(live)}
        figures |= _spread([answer for group in answers for answer in group])
        figures["tokens"] = sum(len(answer.tokens) for group in answers for answer in group)
        figures["advantage_squares_prefix"] = squares["prefix"] / max(1, tokens)
        figures["advantage_squares_group"] = squares["group"] / max(1, tokens)
        run.extra["updates"].append(figures)
        run.track({name: value for name, value in figures.items() if name != "step"})
    return figures


def _add_gradient(
    run: TrainingState,
    wanted: list[tuple[list[int], dict[Tokens, float]]],
    problems: list[int],
    tokens: int,
    start_heads: Heads | None,
) -> None:
    """Add the gradient of answers to some prompts, whose advantages are ``wanted`` by edge, over ``tokens`` tokens;
    ``problems`` are the prompts' places in the file."""
    device = run.arguments.device
    for hidden, logits, which in run.source.states(wanted):
        hidden, logits = hidden.to(device), logits.to(device)
        labels = torch.tensor([edge[-1] for _, edge in which], device=device)
        weights = torch.tensor([wanted[index][1][edge] for index, edge in which], device=device)
        temperature, top_p, _, nll, _ = predict_and_score(run.heads, hidden, logits, labels, weighted=False)
        losses = weights * nll / tokens
        if start_heads is not None:
            with torch.no_grad():
                first = start_heads(hidden, logits)
            losses = losses + run.arguments.keep_close * _distance((temperature, top_p), first) / tokens
        loss = losses.sum()
        if not math.isfinite(loss.item()):
            index, edge = which[int(torch.where(losses.isfinite(), losses.abs(), torch.inf).argmax())]
            raise InputError(
                f"{run.directory}: the loss of step {run.step} is {loss.item()} (problem {problems[index] + 1}, token "
                f"{len(edge)} of an answer); the best heads so far are kept; try a lower --learning-rate"
            )
        loss.backward()


def _distance(now: tuple[Tensor, Tensor], first: tuple[Tensor, Tensor]) -> Tensor:
    """Return the squared distance [n] of (temperature, top-p) to the ``first`` ones before their sigmoids."""
    scales = (TEMPERATURE_SCALE, 1.0)
    return sum(
        (torch.logit(a / scale, eps=1e-6) - torch.logit(b / scale, eps=1e-6)) ** 2
        for a, b, scale in zip(now, first, scales, strict=True)
    )


def _spread(answers: list[Sampled]) -> dict[str, float]:
    temperature, top_p = (np.concatenate([getattr(a, name) for a in answers]) for name in ("temperature", "top_p"))
    return {
        "temperature": float(temperature.mean()),
        "temperature_deviation": float(temperature.std()),
        "top_p": float(top_p.mean()),
        "top_p_deviation": float(top_p.std()),
        "low_temperature": float((temperature < LOW_TEMPERATURE).mean()),
    }


def _seed(seed: int, *key: int) -> int:
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1)[0])
