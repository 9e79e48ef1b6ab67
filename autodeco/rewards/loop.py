"""Training heads on rewards: the heads are the policy, the base is frozen, a checker scores the answers.

A round samples answers to some problems with the current heads, and learns from them in a few updates (``objective``).
Every few rounds the heads answer held-out problems. The heads that answered best are kept. They are measured once more
beside greedy decoding and static settings, so that a run ends with a verdict and not with a loss.
"""

import math
import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from autodeco.data.scoring import Scorer
from autodeco.errors import InputError
from autodeco.heads import TEMPERATURE_SCALE, Heads
from autodeco.rewards.anchors import Anchors, draw_anchors
from autodeco.rewards.arguments import FIRST_HEADS, SETTING, RewardArguments
from autodeco.rewards.decisions import decisions
from autodeco.rewards.distributions import BLUR
from autodeco.rewards.judging import CANDIDATES, candidate, held_out_answers, judge, kept_answers, predictions, spread
from autodeco.rewards.measuring import Static
from autodeco.rewards.objective import Decisions, Rest, add_gradient
from autodeco.rewards.plan import SCREENING_SAMPLES, Pace, paced, plan_of
from autodeco.rewards.policy import Policy
from autodeco.rewards.problems import Problems
from autodeco.rewards.progress import Progress
from autodeco.rewards.targets import parse_target
from autodeco.runs.interrupts import Terminated
from autodeco.runs.seeds import Stream, seed_of
from autodeco.runs.seeds import generator as random_numbers
from autodeco.settings.program import bar
from autodeco.training.report import write_report
from autodeco.training.results import TrainingResult
from autodeco.training.schedule import learning_rate
from autodeco.training.state import TrainingState


@dataclass(frozen=True)
class RewardEvaluation:
    """Of the heads' answers to the held-out problems."""

    loss: float  # 1 - target
    target: float
    reward: float  # mean over answers: pass@1 where rewards are 0 or 1
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
    anchors: str | os.PathLike | None = None,
) -> TrainingResult:
    """Train heads with which ``policy`` answers the problems right; write the best ones, a report and, where
    ``arguments`` want one, the verdict.

    At the prompts of ``anchors``, which nobody scores, heads are held to the setting that ``arguments`` say. Heads
    start from a static setting, or from ``init``. An interrupt keeps the best heads so far; ``resume`` goes on after
    the last whole round. Raises InputError for bad input and if no answer is right.
    """
    processes = policy.processes
    workers = max(1, (os.cpu_count() or 1) // processes.on_this_machine - 1)
    with Scorer(arguments.checker, workers) as scorer, processes.interrupted_together():
        problems, pace = Problems(problems_path, policy, arguments, scorer, anchors), None
        if progress or arguments.time:
            pace, arguments = paced(policy, problems, arguments, Path(output_dir), resume)
        details = {"data": problems.described, "processes": processes.count}
        run = TrainingState(
            Path(output_dir), policy, arguments, RewardEvaluation, problems.made_of, details, init, resume
        )
        processes.wait()  # none may take what the first one writes for another run's
        with run.locked():
            if not resume and run.model.rank == 0:
                shutil.rmtree(run.directory / CANDIDATES, ignore_errors=True)
            if not resume:
                if init is None:
                    run.start_from(_static_heads(run.heads, arguments))
                run.extra = {"updates": [], "rates": {}, "seconds": 0.0, "tokens": 0}
                run.save_resume()
            problems.rates = {int(index): rate for index, rate in run.extra["rates"].items()}
            result = _Training(run, problems, pace if progress and policy.rank == 0 else None).all()
            processes.wait()  # who starts processes ends them all when one has ended
            return result


class _Training:
    """A run on its problems."""

    def __init__(self, run: TrainingState, problems: Problems, pace: Pace | None):
        self._run, self._problems, self._processes = run, problems, run.model.processes
        self._arguments, self._policy = run.arguments, run.model
        self._plan = plan_of(run.arguments, len(problems.training), len(problems.validation), len(problems.anchors))
        self._anchors: Anchors | None = None
        self._progress = Progress(problems, self._plan, pace)
        self._target = parse_target(self._arguments.target)
        self._free = _free_setting(self._arguments, bool(problems.anchors))
        price, top_p = self._arguments.top_p_price, self._arguments.rest_top_p
        self._rest = Rest(price, top_p) if price else None

    def all(self) -> TrainingResult:
        """Go on to the verdict, or to an interrupt; return what came of it."""
        run, problems, found, answers, interrupted = self._run, self._problems, None, None, 0
        try:
            self._progress.tell_plan(run.arguments, **self._done())
            self._rounds()
            done = sum(np.size(rewards) for rewards in run.extra.get("judged", {}).values())
            with self._progress.drawing("verdict" if run.arguments.verdict else "report", self._plan.judging, done):
                if run.arguments.verdict:
                    found, answers = judge(run, problems, self._target)
                    run.extra["verdict"] = found.as_dict()
                else:
                    answers = kept_answers(run, problems)
            run.extra["answers_given_up"] = problems.given_up
        except KeyboardInterrupt as error:
            # Only drawing is cut short, and that of a whole round begins again with the same random numbers.
            if not run.history:
                if self._policy.rank == 0:
                    print(f"{run.directory}: nothing is measured yet; continue with the same command and --resume")
                raise
            interrupted = signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT
        sizes = len(problems.training), len(problems.validation)
        seconds, tokens = run.extra["seconds"], run.extra["tokens"]
        result = run.finish(*sizes, "problems", seconds, tokens / seconds if seconds else 0.0, interrupted)
        if not interrupted:
            result.verdict, result.given_up = found.sentence if found else "", problems.given_up
            if self._policy.rank == 0:
                write_report(run, predictions(answers))
                shutil.rmtree(run.directory / CANDIDATES, ignore_errors=True)
        return result

    def _rounds(self) -> None:
        """Draw and learn until the last round, and measure on the way."""
        run, arguments = self._run, self._arguments
        with bar(arguments.rounds, self._number(), "round", "reward", self._progress.shown) as shown:
            if not self._problems.rates:
                done = np.size(run.extra.get("screened", []))
                with self._progress.drawing("screening", self._plan.screening, done):
                    self._screen()
                self._progress.tell_left(**self._done())
            while True:
                number = self._number()
                due = number % arguments.evaluate_every == 0 or number == arguments.rounds
                if due and (not run.history or run.history[-1]["step"] < run.step):
                    with self._progress.drawing("measuring", self._plan.in_a_measurement):
                        self._measure(number)
                if number == arguments.rounds:
                    return
                if self._problems.anchors and self._anchors is None:
                    with self._progress.drawing("anchors", self._plan.anchors):
                        self._anchors = self._draw_anchors()
                with self._progress.drawing(f"round {number + 1}", self._plan.in_a_round):
                    figures = self._round(number)
                shown.update()
                shown.set_postfix(self._shown(figures), refresh=False)

    def _number(self) -> int:
        """Return how many rounds are done."""
        return self._run.step // self._arguments.updates_in_a_round

    def _done(self) -> dict:
        """Return what of the plan is done."""
        measured = len({row["step"] for row in self._run.history})
        return {"screened": bool(self._problems.rates), "rounds": self._number(), "measurements": measured}

    def _screen(self) -> None:
        """Answer every training problem a few times, to know which are sometimes right and sometimes wrong."""
        problems, seed = self._problems, seed_of(self._arguments.seed, Stream.PROBLEMS)
        screened = problems.training[: self._arguments.screening_problems]
        so_far = self._run.extra.setdefault("screened", [])  # rewards, which an interrupt leaves there
        while len(so_far) < len(screened):
            part = screened[len(so_far) :][: max(self._arguments.batch_problems, self._arguments.slots)]
            so_far += problems.answers(part, SCREENING_SAMPLES, self._run.heads, seed)[1].tolist()
            self._run.save_resume()
        rewards = np.array(so_far)
        if not rewards.any():
            raise InputError(
                "no answer to any training problem is right: there is nothing to learn from; give easier problems, "
                "more --max-tokens, or better first heads with --init"
            )
        problems.note(screened, rewards)
        del self._run.extra["screened"]
        self._run.extra["rates"] = {str(index): rate for index, rate in problems.rates.items()}
        self._run.save_resume()

    def _draw_anchors(self) -> Anchors:
        """Return the anchors of this process's share of their prompts."""
        arguments, prompts = self._arguments, self._problems.anchors
        if arguments.anchor_to == FIRST_HEADS:
            safe: Heads | Static = candidate(self._run, 0)
        else:
            safe = Static(arguments.anchor_temperature, arguments.anchor_top_p)
        numbers = range(len(prompts))[self._processes.share(len(prompts))]
        anchors = None
        with self._processes.left_early():
            anchors = draw_anchors(
                self._policy,
                [prompts[number] for number in numbers],
                safe,
                seed_of(arguments.seed, Stream.ANCHORS, 0),
                [random_numbers(arguments.seed, Stream.ANCHORS, 1 + number) for number in numbers],
                numbers,
                self._problems.ended,
            )
        self._processes.gather(None)
        return anchors

    def _round(self, number: int) -> dict:
        """Draw answers and learn from them; return the figures of the round."""
        arguments, problems = self._arguments, self._problems
        began = time.perf_counter()
        chosen, counts = problems.chosen(number)
        answers, rewards = problems.answers(
            chosen,
            arguments.samples,
            self._run.heads,
            seed_of(arguments.seed, Stream.ANSWERS, number),
            keep_states=True,
            blur=BLUR,
        )
        with self._processes.uninterrupted():
            return self._learn(number, chosen, counts, answers, rewards, began)

    def _learn(
        self, number: int, chosen: list[int], counts: np.ndarray, answers: list, rewards: np.ndarray, began: float
    ) -> dict:
        """Update the heads from a round's answers and keep all of it; return the figures of the round."""
        run, arguments, problems = self._run, self._arguments, self._problems
        drawn = time.perf_counter()
        problems.note(chosen, rewards)
        own = self._processes.share(len(chosen))
        generators = (random_numbers(arguments.seed, Stream.DECISIONS, number, index) for index in chosen[own])
        some = decisions(self._policy, answers[own], rewards[own], self._target, generators, counts[own])
        sizes = self._processes.gather(len(some))
        figures = self._updates(some, sizes, rewards.size, number)
        tokens = sum(len(answer.tokens) for group in answers for answer in group)
        figures |= {"reward": float(rewards.mean()), "tokens": tokens, "decisions": sum(sizes)}
        figures |= spread([answer for group in answers for answer in group])
        ended = time.perf_counter()
        self._progress.learned(rewards.size, ended - drawn)
        seconds = ended - began
        run.extra["seconds"] += seconds
        run.extra["tokens"] += tokens
        run.extra["rates"] = {str(index): rate for index, rate in problems.rates.items()}
        run.extra["updates"].append({"step": run.step, **figures})
        run.track(figures)
        run.save_resume()
        return figures | {"seconds": seconds}

    def _updates(self, some: Decisions, sizes: list[int], answers: int, number: int) -> dict[str, float]:
        """Make a round's updates; return means of their figures.

        ``some`` are this process's decisions, of ``sizes`` that each process has. All together are divided in updates.
        """
        run, arguments = self._run, self._arguments
        first = sum(sizes[: self._policy.rank])
        generator = torch.Generator().manual_seed(seed_of(arguments.seed, Stream.UPDATES, number))
        anchored = self._processes.gather(0 if self._anchors is None else len(self._anchors))
        sums = torch.zeros(4)
        for _ in range(arguments.passes):
            order = torch.randperm(sum(sizes), generator=generator)
            for part in order.tensor_split(arguments.minibatches):
                own = part[(part >= first) & (part < first + len(some))] - first
                here = some[own.to(some.atom.device)]
                run.optimizer.zero_grad(set_to_none=True)
                scale = arguments.minibatches / answers
                found = add_gradient(
                    run.heads, here, arguments.leak_price, scale, arguments.clip, self._free, self._rest
                )
                held = self._hold(anchored, len(part), generator)
                figures = torch.cat([found, here.weight.sum().reshape(1), held.to(found)])
                found = self._processes.sum_gradients(run.heads, figures)
                if not found[0].isfinite():
                    raise InputError(
                        f"{run.directory}: the loss of update {run.step} is not finite; the best heads so far are "
                        "kept; try a lower --learning-rate"
                    )
                run.update(learning_rate(run.step, arguments))
                sums[:3] += (found[1:4] / found[4].clamp(min=1)).cpu()
                sums[3] += (found[5] / found[6].clamp(min=1)).cpu()
        means = (sums / arguments.updates_in_a_round).tolist()
        shown = ("gain", "leak", "divergence", *(("anchors_left",) if self._anchors is not None else ()))
        return dict(zip(shown, means, strict=False))

    def _hold(self, sizes: list[int], n: int, generator: torch.Generator) -> torch.Tensor:
        """Add the gradient of leaving ``n`` of the anchors, of which each process has ``sizes``.

        Return the sum of their costs and that of their weights [2].
        """
        if self._anchors is None:
            return torch.zeros(2)
        total, first = sum(sizes), sum(sizes[: self._policy.rank])
        part = torch.randint(total, (n,), generator=generator)
        own = part[(part >= first) & (part < first + len(self._anchors))] - first
        here = self._anchors[own.to(self._anchors.weight.device)]
        scale = self._arguments.anchor_price * total / n / len(self._problems.anchors)
        return torch.stack([here.add_gradient(self._run.heads, scale), here.weight.sum()])

    def _measure(self, number: int) -> None:
        """Have the averaged heads answer the held-out problems; keep them as a candidate."""
        run, arguments = self._run, self._arguments
        heads = run.averaged_heads()
        if self._policy.rank == 0:
            heads.save_pretrained(run.directory / CANDIDATES / f"{number:05d}")
        answers, rewards = held_out_answers(self._problems, arguments, heads, arguments.validation_samples, 0)
        value = float(self._target.estimate(rewards).mean())
        figures = spread([answer for group in answers for answer in group])
        run.evaluated(RewardEvaluation(1 - value, value, float(rewards.mean()), **figures))

    def _shown(self, figures: dict) -> dict[str, str]:
        shown = {"tokens/s": f"{figures['tokens'] / figures['seconds']:.0f}", "reward": f"{figures['reward']:.3f}"}
        shown |= {"held out": f"{self._run.history[-1]['target']:.3f}"}
        for letter, name in (("T", "temperature"), ("P", "top_p")):
            shown[letter] = f"{figures[name]:.2f}±{figures[f'{name}_deviation']:.2f}"
        return shown | {"to the verdict": self._progress.left(**self._done())}


def _free_setting(arguments: RewardArguments, anchored: bool) -> tuple[float, float] | None:
    """Return the (temperature, top-p) whose probabilities leak nothing: by default the anchors', held to be safe."""
    if arguments.free_temperature is not None:
        return arguments.free_temperature, arguments.free_top_p
    held = anchored and arguments.anchor_to == SETTING
    return (arguments.anchor_temperature, arguments.anchor_top_p) if held else None


def _static_heads(heads: Heads, arguments: RewardArguments) -> Heads:
    """Return ``heads`` that predict the first temperature and top-p for every token."""
    with torch.no_grad():
        for head, share in (
            (heads.temp_head, arguments.first_temperature / TEMPERATURE_SCALE),
            (heads.top_p_head, arguments.first_top_p),
        ):
            if head is not None:
                head.mlp[2].bias.fill_(math.log(share / (1 - share)))
    return heads
