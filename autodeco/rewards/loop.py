"""Training heads on rewards: the heads are the policy, the base stays as it is, a checker scores the answers.

Answers are drawn by the heads as they are, and kept, those that are right with the states behind them. What is then
raised is what answers are expected to be worth (``answer_trees``), under the hard top-p that decoding cuts with
(``hard_top_p``), without a draw or a run of the model between updates. ``rounds`` draws again by the heads as they have
become.
"""

import copy
import math
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from autodeco.data.checkers import check, checker
from autodeco.data.problems import read_problems
from autodeco.errors import InputError
from autodeco.heads import TEMPERATURE_SCALE, Heads, prob_stats
from autodeco.losses.exact import CHUNK_TOKENS_CPU
from autodeco.losses.hard_top_p import log_probability
from autodeco.rewards.answer_trees import AnswerTrees, Edges, Values, part_of, read_part, values, write_part
from autodeco.rewards.arguments import RewardArguments
from autodeco.rewards.policy import Policy, Sampled
from autodeco.runs.interrupts import noted_interrupt
from autodeco.runs.provenance import file_hash
from autodeco.training.report import write_report
from autodeco.training.results import TrainingResult
from autodeco.training.state import TrainingState

ANSWERS = "answers"  # folder of the right answers, there while a run is unfinished
PART_PROBLEMS = 32  # answered between two writes; an interruption loses at most these
CHUNK_BYTES = 256 * 2**20  # of logits on a GPU, of which some arrays are alive
LOW_TEMPERATURE = 0.1
GREEDY_BIAS = -40.0  # of a temperature head: sigmoid gives 4e-18


@dataclass(frozen=True)
class RewardEvaluation:
    """Of the held-out problems: the reward to expect by the answers that are known, and what is predicted where these
    part, means as often as decoding comes there."""

    loss: float  # 1 - reward
    reward: float
    temperature: float
    temperature_deviation: float
    top_p: float
    top_p_deviation: float
    low_temperature: float  # share of tokens with a temperature below 0.1


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

    Start from heads trained on likelihood (``init``), which answer in more ways than one. An interrupt keeps the best
    heads so far and the answers drawn; ``resume`` goes on with the same problems. Raises InputError for bad input and
    if no answer is right.
    """
    problems = _Problems(problems_path, policy, arguments, Path(output_dir) / ANSWERS)
    policy.made_of, policy.details = {"problems": problems.hash}, {"data": problems.described}
    run = TrainingState(Path(output_dir), policy, arguments, RewardEvaluation, init, resume)
    if not resume:
        shutil.rmtree(problems.folder, ignore_errors=True)
        run.extra = {"updates": [], "rounds": []}
        run.save_resume()
    first = run.first_heads if arguments.keep_close else None
    said = "stopping after this step; the same command with --resume goes on"
    seconds, edges = 0.0, 0
    with (
        noted_interrupt(said) as interrupts,
        tqdm(
            total=arguments.steps, initial=run.step, unit="step", desc="train", disable=None if progress else True
        ) as bar,
    ):
        for number in range(min(run.step, arguments.steps - 1) * arguments.rounds // arguments.steps):
            problems.draw(number, run, interrupts, progress)  # what an interrupted run has drawn before
        while run.step < arguments.steps and not interrupts:
            number = run.step * arguments.rounds // arguments.steps
            problems.draw(number, run, interrupts, progress)
            if interrupts:
                break
            if not run.history:
                run.evaluated(problems.evaluate(run.heads))
            began = time.perf_counter()
            update = _update(run, problems, first)
            seconds += time.perf_counter() - began
            edges += update["tokens"]
            if run.step % arguments.evaluate_every == 0 or run.step == arguments.steps:
                run.evaluated(problems.evaluate(run.averaged_heads()))
            bar.update()
            shown = {"tokens/s": f"{edges / seconds:.0f}", "reward": f"{update['reward']:.3f}"}
            shown |= {"held out": f"{run.history[-1]['reward']:.3f}"}
            shown |= {"T": f"{update['temperature']:.2f}±{update['temperature_deviation']:.2f}"}
            shown |= {"P": f"{update['top_p']:.2f}±{update['top_p_deviation']:.2f}"}
            bar.set_postfix(shown, refresh=False)
    interrupted = run.step < arguments.steps
    if interrupted:
        run.save_resume()
        if not run.history:
            raise KeyboardInterrupt
    else:
        answers, reward = problems.measured(run.best_heads())
        run.extra["sampled_reward"] = {"before": run.extra["rounds"][0]["held_out_reward"], "after": reward}
    sizes = len(problems.learnable), len(problems.validation)
    result = run.finish(*sizes, "problems", seconds, edges / seconds if seconds else 0.0, interrupted)
    if not interrupted:
        shutil.rmtree(problems.folder, ignore_errors=True)
        write_report(run, policy, _predictions(answers))
    return result


class _Problems:
    """The problems of a run, split into those to train and to validate on, and their known right answers."""

    def __init__(self, path: str | os.PathLike, policy: Policy, arguments: RewardArguments, folder: Path):
        self._problems, self._policy, self._arguments, self.folder = read_problems(path), policy, arguments, folder
        self._score, self.hash = checker(arguments.checker), file_hash(path)
        self.described = {"file": Path(path).name, "sha256": self.hash, "problems": len(self._problems)}
        if len(self._problems) < 2:
            raise InputError(f"{path}: holds one problem; give at least two, one of them to validate on")
        self._prompts = [policy.prompt_ids(problem["prompt"]) for problem in self._problems]
        self._order = np.random.default_rng([arguments.seed, 0]).permutation(len(self._problems)).tolist()
        held_out = min(arguments.validation_problems, len(self._order) // 2)
        self.validation, self._training = sorted(self._order[:held_out]), self._order[held_out:]
        self.trees = AnswerTrees(policy.model.hidden_size)
        self.learnable: list[int] = []
        self._rounds = 0  # that the trees hold

    def draw(self, number: int, run: TrainingState, interrupts: list, progress: bool) -> None:
        """Have the answers of round ``number``: read those that are there, draw the others by the heads as they are.

        The first round has a greedy answer to each problem too, which heads can always choose to give.
        """
        if number < self._rounds:
            return
        order, rewards = self._order, {}
        size = max(PART_PROBLEMS, self._arguments.slots // self._arguments.samples)
        parts = [order[begin : begin + size] for begin in range(0, len(order), size)]
        ways = [(run.averaged_heads(), self._arguments.samples)]
        if number == 0:
            ways.append((_greedy(run.heads), 1))
        with tqdm(
            total=len(order), unit="problem", desc="draw", disable=None if progress else True, leave=False
        ) as bar:
            for place, some in enumerate(parts):
                path = self.folder / f"{number:03d}-{place:05d}.safetensors"
                if not path.exists():
                    self._draw_part(path, some, ways, _seed(self._arguments.seed, 4, number, place))
                part = read_part(path, self._policy.model.hidden_size)
                self.trees.add(part)
                rewards |= dict(zip(some, part["mean_reward"].tolist(), strict=True))
                bar.update(len(some))
                bar.set_postfix(right=f"{np.mean(list(rewards.values())):.1%}", refresh=False)
                if interrupts:
                    return
        self._rounds = number + 1
        self.learnable = [index for index in self._training if self.trees.right(index)]
        if not self.learnable or not any(self.trees.right(index) for index in self.validation):
            what = "training" if not self.learnable else "held-out"
            raise InputError(
                f"no answer to any {what} problem is right: there is nothing to learn from; give easier problems, more "
                "--samples or --validation-problems, or better first heads with --init"
            )
        if len(run.extra["rounds"]) == number:
            mean = {name: float(np.mean([rewards[i] for i in which])) for name, which in self._splits()}
            known = sum(self.trees.right(index) for index in order)
            run.extra["rounds"].append(
                {
                    "step": run.step,
                    "reward": mean["training"],
                    "held_out_reward": mean["held out"],
                    "known_answers": known,
                }
            )

    def _splits(self):
        return ("training", self._training), ("held out", self.validation)

    def _draw_part(self, path: Path, some: list[int], ways: list, seed: int) -> None:
        """Draw answers to the problems ``some`` and write them, with the mean reward that the first way has."""
        drawn = {index: {} for index in some}
        known, states, hidden, mean = {index: set() for index in some}, [], [], None
        for way, (heads, n) in enumerate(ways):
            answers, scores = self._answers(some, n, heads, seed + way)
            mean = scores.mean(1) if mean is None else mean
            for index, group, row in zip(some, answers, scores, strict=True):
                drawn[index] |= {answer.tokens: float(score) for answer, score in zip(group, row, strict=True)}
            wanted = []
            for index, group in zip(some, answers, strict=True):
                new = {answer.tokens: drawn[index][answer.tokens] for answer in group}
                edges = [edge for edge in self.trees.missing(index, new) if edge[:-1] not in known[index]]
                known[index] |= {edge[:-1] for edge in edges}
                if edges:
                    wanted.append((index, edges))
            for rows, which in self._policy.states([(self._prompts[index], edges) for index, edges in wanted]):
                hidden.append(rows.float().cpu().numpy())
                states += [(wanted[place][0], edge) for place, edge in which]
        answers = [(index, tokens, score) for index, each in drawn.items() for tokens, score in each.items()]
        size = self._policy.model.hidden_size
        part = part_of(answers, states, np.concatenate(hidden) if hidden else np.zeros((0, size)))
        write_part(path, part | {"mean_reward": np.array(mean, np.float32)})

    def _answers(self, indices: list[int], n: int, heads: Heads, seed: int) -> tuple[list[list[Sampled]], np.ndarray]:
        """Return answers to the problems at ``indices`` and their rewards [len(indices), n]."""
        answers = self._policy.sample([self._prompts[index] for index in indices], n, heads, seed)
        scores = np.array(
            [
                [check(self._score, self._problems[index], a.text) if a.finished else 0.0 for a in group]
                for index, group in zip(indices, answers, strict=True)
            ]
        )
        return answers, np.where(scores >= self._arguments.least_score, scores, 0.0)

    def measured(self, heads: Heads) -> tuple[dict[int, Sampled], float]:
        """Return an answer to each held-out problem and the mean reward of ``samples`` of each, by ``heads``."""
        answers, rewards = self._answers(
            self.validation, self._arguments.samples, heads, _seed(self._arguments.seed, 2, 0)
        )
        return {index: group[0] for index, group in zip(self.validation, answers, strict=True)}, float(rewards.mean())

    def batch(self, step: int) -> list[int]:
        """Return the problems of update ``step``: every one that has an answer once before any again."""
        size = min(self._arguments.batch_problems, len(self.learnable))
        places = range(step * size, (step + 1) * size)
        rounds = {place // len(self.learnable) for place in places}
        orders = {r: np.random.default_rng([self._arguments.seed, 3, r]).permutation(self.learnable) for r in rounds}
        return [int(orders[place // len(self.learnable)][place % len(self.learnable)]) for place in places]

    @torch.no_grad()
    def evaluate(self, heads: Heads) -> RewardEvaluation:
        """Measure ``heads`` on the held-out problems, with nothing added to their temperatures."""
        edges = self.trees.edges(self.validation, self._policy.device)
        log_p, temperature, top_p, _ = score(heads, edges, self._policy, 0.0, self._arguments.blur)
        found = values(log_p, edges, len(self.validation))
        reward = found.expected.mean().item()
        return RewardEvaluation(loss=1 - reward, reward=reward, **_spread(temperature, top_p, found, edges))


def score(
    heads: Heads, edges: Edges, policy: Policy, explore: float, blur: float, first: Heads | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (log-probability, temperature, top-p, distance to what ``first`` predicts), each [n], of ``edges``.

    All are 0 where heads have no choice. ``explore`` is added to the temperatures that are drawn with, not to those
    that the top-p head reads. All carry gradients to ``heads``.
    """
    on_cpu = edges.token.device.type == "cpu"
    size = CHUNK_TOKENS_CPU if on_cpu else max(64, CHUNK_BYTES // (4 * policy.model.vocab_size))
    parted, columns = edges.parted(), []
    for places in parted.split(size):
        states, state = edges.state[places].unique(return_inverse=True)  # neighbours have them in common
        hidden = edges.hidden[states].float()
        with torch.no_grad():
            logits = policy.logits(hidden)
        temperature, stats = heads.temperature(hidden), None
        if heads.prob_stats and heads.top_p_head is not None:
            with torch.no_grad():
                stats = prob_stats(logits, temperature)
        top_p = heads.top_p(hidden, temperature, stats)
        distance = torch.zeros_like(temperature)
        if first is not None:
            with torch.no_grad():
                start = first.temperature(hidden), first.top_p(hidden, temperature, stats)
            distance = _distance((temperature, top_p), start)
        temperature, top_p, distance = temperature[state], top_p[state], distance[state]
        log_p = log_probability(logits[state], temperature + explore, top_p, edges.token[places], blur)
        columns.append(torch.stack((log_p, temperature, top_p, distance)))
    zeros = torch.zeros(4, len(edges.token), device=edges.token.device)
    return tuple(zeros.index_copy(1, parted, torch.cat(columns, 1)) if columns else zeros)


def _update(run: TrainingState, problems: _Problems, first: Heads | None) -> dict[str, float]:
    """Make one step of the optimiser; return its figures."""
    arguments, chosen = run.arguments, problems.batch(run.step)
    edges = problems.trees.edges(chosen, run.source.device)
    explore = arguments.explore * (1 - run.step / arguments.steps)
    log_p, temperature, top_p, distance = score(run.heads, edges, run.source, explore, arguments.blur, first)
    found = values(log_p.detach(), edges, len(chosen))
    losses = -found.weights * log_p
    if first is not None:
        losses = losses + arguments.keep_close * distance * len(chosen) / len(distance)
    if not losses.isfinite().all():
        place = int((~losses.isfinite()).nonzero()[0])
        raise InputError(
            f"{run.directory}: the loss of step {run.step} is {losses[place].item()} (problem "
            f"{chosen[int(edges.problem[place])] + 1}, token {edges.depth[place] + 1} of an answer); the best heads so "
            "far are kept; try a lower --learning-rate"
        )
    run.optimizer.zero_grad(set_to_none=True)
    (losses.sum() / len(chosen)).backward()
    run.update(_learning_rate(run.step, arguments))
    figures = {"step": run.step, "reward": found.expected.mean().item(), "tokens": len(edges.token)}
    figures |= _spread(temperature.detach(), top_p.detach(), found, edges)
    run.extra["updates"].append(figures)
    run.track({name: value for name, value in figures.items() if name != "step"})
    return figures


def _learning_rate(step: int, arguments: RewardArguments) -> float:
    warm = min(1.0, (step + 1) / max(1, arguments.warmup_steps))
    return arguments.learning_rate * warm * (1 + math.cos(math.pi * step / arguments.steps)) / 2


def _greedy(heads: Heads) -> Heads:
    """Return heads of the same kind that take the likeliest token everywhere."""
    heads = copy.deepcopy(heads)
    with torch.no_grad():
        last = (heads.temp_head or heads.top_p_head).mlp[2]
        last.weight.zero_()
        last.bias.fill_(GREEDY_BIAS)
    return heads


def _distance(now: tuple[Tensor, Tensor], first: tuple[Tensor, Tensor]) -> Tensor:
    """Return the squared distance [n] of (temperature, top-p) to the ``first`` ones before their sigmoids."""
    scales = (TEMPERATURE_SCALE, 1.0)
    return sum(
        (torch.logit(a / scale, eps=1e-6) - torch.logit(b / scale, eps=1e-6)) ** 2
        for a, b, scale in zip(now, first, scales, strict=True)
    )


def _spread(temperature: Tensor, top_p: Tensor, found: Values, edges: Edges) -> dict[str, float]:
    """Return means and deviations where heads have a choice, each beginning as often as decoding comes to it."""
    behind = torch.bincount(edges.state)[edges.state]
    share = torch.where(behind > 1, found.reach / behind, 0.0)
    share = share / share.sum().clamp(min=1e-30)
    figures = {}
    for name, each in (("temperature", temperature), ("top_p", top_p)):
        mean = (each * share).sum()
        figures |= {name: mean.item(), f"{name}_deviation": ((each - mean) ** 2 * share).sum().sqrt().item()}
    return figures | {"low_temperature": ((temperature < LOW_TEMPERATURE) * share).sum().item()}


def _predictions(answers: dict[int, Sampled]) -> dict[str, list]:
    """Return the tokens of an answer to each held-out problem, and what was predicted for them."""
    return {
        "token": [token for answer in answers.values() for token in answer.tokens],
        "temperature": [float(value) for answer in answers.values() for value in answer.temperature],
        "top_p": [float(value) for answer in answers.values() for value in answer.top_p],
        "record": [index for index, answer in answers.items() for _ in answer.tokens],
    }


def _seed(seed: int, *key: int) -> int:
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1)[0])
