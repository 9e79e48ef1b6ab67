"""What a run on rewards is going to do, in answers, and how long that takes on this machine."""

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autodeco.errors import InputError
from autodeco.heads import Heads
from autodeco.rewards.arguments import FIRST_HEADS, SIZES, RewardArguments
from autodeco.rewards.decisions import decisions
from autodeco.rewards.measuring import FINALISTS, GRID, Static, halving_answers, halving_draws, halving_samples, moves
from autodeco.rewards.objective import add_gradient
from autodeco.rewards.policy import Policy, Sampled
from autodeco.rewards.problems import Problems
from autodeco.rewards.targets import Target, parse_target
from autodeco.settings.durations import duration, parse_duration
from autodeco.training.state import unfinished_arguments

SCREENING_SAMPLES = 4
# The pace is measured on about so many answers, of which none has more tokens. Where lengths matter, some more answers
# to each prompt are drawn to their end.
PILOT_ANSWERS, PILOT_TOKENS = 64, 16
PILOT_PROMPTS, WHOLE_PROMPTS, WHOLE_ANSWERS = 16, 8, 2

# What ``fitted`` chooses: the least and the most of each size, and shares of the time.
LEAST = (10, 16, 8, 4)  # held-out problems, screened ones, problems in a round, rounds
MOST_HELD_OUT, MOST_IN_A_ROUND, MOST_ROUNDS = 200, 160, 100
ROUNDS = 24  # before a round grows
VERDICT_SHARE, MEASURING_SHARE, SCREENING_SHARE = 0.3, 0.15, 0.15  # the second: of a run without a verdict
MEASUREMENTS = 4  # after the first
RESERVE = 0.9  # of the time is given out: answers become longer and shorter while heads learn


@dataclass(frozen=True)
class Pace:
    """Seconds that this machine takes for a prompt and what its answers have in common, and for each answer of
    ``tokens``: to draw the rest of it, and to learn from it in a round."""

    tokens: float  # the longest an answer may be, as far as no end was seen
    drawing: float
    learning: float
    prompt: float = 0.0
    at_most: bool = False  # some answers were not drawn to their end
    measuring: float = 0.0  # how long it took to find out


@dataclass(frozen=True)
class Plan:
    """How many answers each part of a run draws, and behind how many prompts."""

    training: int  # problems
    held_out: int
    anchors: int
    screening: int
    rounds: int
    in_a_round: int
    measurements: int
    in_a_measurement: int
    judging: int
    prompts_of_screening: int
    prompts_of_a_round: int
    prompts_of_judging: int

    def left(self, screened: bool = False, rounds: int = 0, measurements: int = 0) -> tuple[int, int]:
        """Return how many answers are still to be drawn, and learned from, when so much is done."""
        learned = (self.rounds - rounds) * self.in_a_round
        measured = (self.measurements - measurements) * self.in_a_measurement
        before = (0 if screened else self.screening) + (self.anchors if rounds < self.rounds else 0)
        return before + learned + measured + self.judging, learned

    def prompts_left(self, screened: bool = False, rounds: int = 0, measurements: int = 0) -> int:
        """Return behind how many prompts the answers are that are still to be drawn."""
        before = (0 if screened else self.prompts_of_screening) + (self.anchors if rounds < self.rounds else 0)
        measured = (self.measurements - measurements) * self.held_out
        return before + (self.rounds - rounds) * self.prompts_of_a_round + measured + self.prompts_of_judging

    def seconds(self, pace: Pace, **done) -> float:
        """Return how long what is left takes."""
        drawn, learned = self.left(**done)
        return self.prompts_left(**done) * pace.prompt + drawn * pace.drawing + learned * pace.learning

    def lines(self, pace: Pace, arguments: RewardArguments, **done) -> list[str]:
        """Return the plan in words."""
        drawn, _ = self.left(**done)
        problems = min(arguments.batch_problems, self.training)
        how_long = f"{'at most' if pace.at_most else 'about'} {duration(self.seconds(pace, **done))}"
        lines = [
            f"{self.training + self.held_out} problems: {self.training} to learn from, {self.held_out} held out",
            f"screening: {self.screening} answers, to find the problems that are right sometimes",
            f"{self.rounds} rounds: each {problems} problems x {arguments.samples} answers, "
            f"then {arguments.updates_in_a_round} updates of the heads",
            f"measuring: {self.in_a_measurement} answers to held-out problems, {self.measurements} times",
        ]
        if arguments.verdict:
            lines.append(
                f"verdict: {self.judging} answers of the best heads, of static settings and of greedy decoding"
            )
        if self.anchors:
            setting = f"at {Static(arguments.anchor_temperature, arguments.anchor_top_p)}"
            how = "with the first heads" if arguments.anchor_to == FIRST_HEADS else setting
            lines.insert(1, f"anchors: {self.anchors} answers to prompts that nobody scores, {how}")
        if done.get("screened"):
            lines.append(f"done before: {done['rounds']} of {self.rounds} rounds")
        lines.append(
            f"{drawn} answers of {'up to ' if pace.at_most else ''}{pace.tokens:.0f} tokens to draw, behind "
            f"{self.prompts_left(**done)} prompts: {how_long} at the {1000 * pace.prompt:.0f} ms a prompt and "
            f"{1000 * pace.drawing:.1f} ms an answer measured here"
        )
        return lines


def plan_of(arguments: RewardArguments, training: int, held_out: int, anchors: int = 0) -> Plan:
    """Return the plan of a run on so many problems ``training`` and ``held_out``, and prompts of ``anchors``."""
    screened = min(training, arguments.screening_problems or training)
    measurements = len({*range(0, arguments.rounds, arguments.evaluate_every), arguments.rounds})
    first = halving_samples(parse_target(arguments.target))
    finalists, in_a_round = min(FINALISTS, measurements), min(arguments.batch_problems, training)
    candidates = finalists, len(moves(arguments.temperature, arguments.top_p)), len(GRID)
    finals = sum(halving_answers(count, first) for count in candidates)
    in_the_end = finals + 4 * arguments.validation_samples + 1 if arguments.verdict else 1
    # in the end the heads kept, the setting kept and greedy decoding
    draws = sum(halving_draws(count, first) for count in candidates) + 3 if arguments.verdict else 1
    return Plan(
        training,
        held_out,
        anchors,
        SCREENING_SAMPLES * screened,
        arguments.rounds,
        in_a_round * arguments.samples,
        measurements,
        held_out * arguments.validation_samples,
        held_out * in_the_end,
        screened,
        in_a_round,
        held_out * draws,
    )


def measure_pace(policy: Policy, prompts: Sequence[Sequence[int]], arguments: RewardArguments, whole: bool) -> Pace:
    """Return the pace of ``policy``, from as many answers as a round draws to a few of ``prompts``, or to all on a GPU,
    at the first temperature and top-p.

    ``whole``: some answers are drawn to their end, too, which shows how long they are.
    """
    started, n, most = time.perf_counter(), arguments.samples, arguments.max_tokens
    predictor, on_cpu = Static(arguments.first_temperature, arguments.first_top_p), policy.device == "cpu"
    few = prompts[: max(2, PILOT_ANSWERS // n)] if on_cpu else prompts

    def drawn(some: Sequence[Sequence[int]], n: int, tokens: int) -> _Drawn:
        began = time.perf_counter()
        answers = policy.sample(some, n, predictor, 0, True, None, None, min(tokens, most))
        return _Drawn(answers, time.perf_counter() - began)

    drawn(few[:1] if on_cpu else few, n, 2)  # opens and compiles what is opened and compiled once
    # of many prompts, for those of a kind begin alike and are read in less time than a few
    prompt = drawn(prompts, n, 1).seconds / len(prompts)
    some = prompts[:WHOLE_PROMPTS] if on_cpu else prompts
    ends = drawn(some, WHOLE_ANSWERS if on_cpu else n, most) if whole and most > PILOT_TOKENS else None
    of_few = drawn(few, n, 1).seconds / len(few) if len(few) < len(prompts) else prompt
    begun = drawn(few, n, PILOT_TOKENS)
    mean = ends.length if ends else float(np.mean([len(a.tokens) if a.finished else most for a in begun.flat]))
    # what answers have in common counts as their prompt's; behind the tokens of the pilot it is next to nothing
    alone, together = begun.length - 1, begun.states_behind_first / len(few)
    own = max(together - alone, 0.0) / (n - 1)
    rest, state = max(mean - begun.length, 0.0), begun.seconds_a_state(of_few)
    drawing = state * own + (ends.seconds_a_state(prompt) if ends else state) * rest
    reading, updating = _learning_seconds(policy, begun, arguments)
    learning = reading * ((alone - own) / n + own + rest) + arguments.passes * updating * mean
    at_most = not ends and rest > 0
    count = policy.processes.count
    seconds = [each / count for each in (drawing, learning, prompt + state * (alone - own))]
    pace = Pace(mean, *seconds, at_most, time.perf_counter() - started)
    return policy.processes.gather(pace)[0]


class _Drawn:
    """Answers to some prompts, and the ``seconds`` that they took; a state that several are drawn from counts once."""

    def __init__(self, answers: Sequence[Sequence[Sampled]], seconds: float):
        self.answers, self.seconds = answers, seconds
        self.flat = [answer for group in answers for answer in group]
        self.tokens = sum(len(answer.tokens) for answer in self.flat)
        self.length = self.tokens / len(self.flat)
        self.states = len(np.unique(np.concatenate([answer.states for answer in self.flat])))
        self.states_behind_first = self.states - len({int(answer.states[0]) for answer in self.flat})

    def seconds_a_state(self, prompt: float) -> float:
        """Return how long each state behind the first ones took, where a ``prompt`` took so long."""
        return max(self.seconds - len(self.answers) * prompt, 0.1 * self.seconds) / max(1, self.states_behind_first)


def _learning_seconds(policy: Policy, drawn: _Drawn, arguments: RewardArguments) -> tuple[float, float]:
    """Return how long it takes to read a state that was ``drawn`` from, and to learn once from a token."""
    heads = Heads(policy.identity.hidden_size).to(policy.device)

    def learned() -> tuple[float, float]:
        began = time.perf_counter()
        generators = [np.random.default_rng(0) for _ in drawn.answers]
        rewards = np.zeros((len(drawn.answers), len(drawn.answers[0])))
        some = decisions(policy, drawn.answers, rewards, Target(), generators)
        read = time.perf_counter()
        add_gradient(copy.deepcopy(heads), some, arguments.leak_price, 1.0, arguments.clip).tolist()
        return (read - began) / drawn.states, (time.perf_counter() - read) / drawn.tokens

    learned()  # compiles what is compiled once
    return learned()


def paced(
    policy: Policy, problems: Problems, arguments: RewardArguments, folder: Path, resume: bool
) -> tuple[Pace, RewardArguments]:
    """Return the pace of ``policy``, and ``arguments`` with the sizes that fit into their time.

    With ``resume`` the sizes are those of the unfinished run in ``folder``. Raises InputError for too short a time.
    """
    # on a GPU as many as keep it busy
    answers = PILOT_ANSWERS if policy.device == "cpu" else max(PILOT_ANSWERS, arguments.slots)
    prompts = problems.prompts(problems.training[: max(PILOT_PROMPTS, answers // arguments.samples)])
    pace = measure_pace(policy, prompts, arguments, bool(arguments.time) and not resume)
    if arguments.time:
        if resume:
            begun = unfinished_arguments(folder)
            arguments = replace(arguments, **{name: begun[name] for name in SIZES if name in begun})
        else:
            seconds = parse_duration("time", arguments.time) - pace.measuring
            arguments = fitted(arguments, len(problems), pace, seconds, len(problems.anchors))
        problems.divide(arguments)
    return pace, arguments


def fitted(arguments: RewardArguments, problems: int, pace: Pace, seconds: float, anchors: int = 0) -> RewardArguments:
    """Return ``arguments`` with rounds and sizes whose run on ``problems``, with ``anchors``, takes ``seconds``.

    Raises InputError if even the smallest run takes longer.
    """
    spent = RESERVE * seconds

    def sized(held_out: int, screened: int, batch: int, rounds: int) -> RewardArguments:
        sizes = {"validation_problems": held_out, "screening_problems": screened, "batch_problems": batch}
        return replace(arguments, **sizes, rounds=rounds, evaluate_every=math.ceil(rounds / MEASUREMENTS))

    def cost(*sizes: int) -> float:
        held_out = min(sizes[0], problems // 2)
        return plan_of(sized(*sizes), problems - held_out, held_out, anchors).seconds(pace)

    shortest = cost(*LEAST) / RESERVE
    if shortest > seconds:
        enough = duration(60 * math.ceil(shortest / 60))
        raise InputError(
            f"time {arguments.time}: is too short; the smallest run takes {enough} here; "
            "give more time, or a lower --max-tokens"
        )
    held_out, screened, batch, rounds = LEAST
    a_problem = pace.prompt + arguments.samples * (pace.drawing + pace.learning)
    of_one_held_out = (cost(3, *LEAST[1:]) - cost(2, *LEAST[1:])) if problems > 6 else spent
    wished = (
        int((VERDICT_SHARE if arguments.verdict else MEASURING_SHARE) * spent / of_one_held_out),
        int(SCREENING_SHARE * spent / (pace.prompt + SCREENING_SAMPLES * pace.drawing)),
    )
    wished = max(held_out, min(MOST_HELD_OUT, wished[0])), max(screened, wished[1])
    if cost(*wished, batch, rounds) <= spent:
        held_out, screened = wished
    rest = spent - cost(held_out, screened, batch, rounds) + rounds * min(batch, problems) * a_problem
    batch = max(batch, min(MOST_IN_A_ROUND, int(rest / a_problem / ROUNDS), problems - held_out))
    rounds = max(rounds, min(MOST_ROUNDS, int(rest / a_problem / batch)))
    return sized(held_out, screened, batch, rounds)
