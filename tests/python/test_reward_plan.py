"""A run on rewards says what it is going to do and how long that takes, and fits into a given time."""

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from autodeco.data.scoring import Scorer  # noqa: E402
from autodeco.errors import InputError  # noqa: E402
from autodeco.rewards import plan  # noqa: E402
from autodeco.rewards.arguments import SIZES, RewardArguments  # noqa: E402
from autodeco.rewards.llama import LlamaPolicy  # noqa: E402
from autodeco.rewards.loop import train_on_rewards  # noqa: E402
from autodeco.rewards.measuring import halving, halving_answers, halving_draws  # noqa: E402
from autodeco.rewards.plan import Pace, fitted, measure_pace, paced, plan_of  # noqa: E402
from autodeco.rewards.problems import Problems  # noqa: E402
from autodeco.rewards.targets import parse_target  # noqa: E402
from autodeco.settings.durations import duration, parse_duration  # noqa: E402
from builders import reward_world as world  # noqa: E402
from builders.word_models import write_llama  # noqa: E402

SHORT = RewardArguments(
    checker="python:builders.reward_score:score",
    rounds=3,
    batch_problems=4,
    samples=4,
    validation_problems=6,
    validation_samples=2,
    evaluate_every=2,
)


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    path = tmp_path_factory.mktemp("world") / "problems.jsonl"
    path.write_text("".join(json.dumps({"prompt": str(i), "number": i}) + "\n" for i in range(60)))
    return path


class Clock:
    """The time, which only drawing takes."""

    now = 0.0

    def __call__(self):
        return self.now


class SlowPolicy(world.WorldPolicy):
    """Takes a second for a prompt and 0.1 s for each state behind the first one, and counts answers.

    Answers to a prompt have their first ``shared`` states in common.
    """

    def __init__(self, clock, speed=1.0, shared=1):
        super().__init__()
        self._clock, self._speed, self.drawn, self.prompts, self._shared = clock, speed, 0, 0, shared

    def sample(self, prompts, n, heads, seed, keep_states=True, ended=None, numbers=None, max_tokens=None, blur=0.0):
        self.drawn += len(prompts) * n
        self.prompts += len(prompts)
        length = min(max_tokens or world.LENGTH, world.LENGTH)
        shared = min(self._shared, length)
        states = shared - 1 + n * (length - shared)
        self._clock.now += len(prompts) * (1 + 0.1 * states) / self._speed
        answers = super().sample(prompts, n, heads, seed, keep_states, ended, numbers)
        return [[self._cut(i, answer, length) for i, answer in enumerate(group)] for group in answers]

    def _cut(self, sample, answer, length):
        """The first tokens of an answer, with states of its own behind those that all answers have."""
        own = np.where(np.arange(len(answer.states)) < self._shared, 0, sample * len(self._hidden))
        answer = replace(answer, states=answer.states + own)
        if length == world.LENGTH:
            return answer
        columns = {name: getattr(answer, name)[:length] for name in COLUMNS}
        return replace(answer, finished=False, **columns)

    def states(self, rows):
        return super().states(rows % len(self._hidden))


COLUMNS = ("tokens", "temperature", "top_p", "top_probability", "states")


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(plan.time, "perf_counter", clock)
    return clock


CHANGES = [{}, {"target": "pass@4", "validation_samples": 4}, {"screening_problems": 10}, {"verdict": False}]


@pytest.mark.parametrize("changes", CHANGES)
def test_the_plan_counts_every_answer_of_the_run_and_every_prompt(problems, tmp_path, changes):
    arguments, policy = replace(SHORT, **changes), SlowPolicy(Clock())
    train_on_rewards(policy, problems, tmp_path / "heads", arguments, progress=False)
    whole = plan_of(arguments, 54, 6)
    assert (whole.left()[0], whole.prompts_left()) == (policy.drawn, policy.prompts)


def test_what_is_done_is_left_out():
    whole = plan_of(SHORT, 54, 6)
    assert whole.left(screened=True, rounds=2, measurements=2) == (16 + 12 + whole.judging, 16)
    pace = Pace(50.0, 2.0, 0.5)
    assert whole.seconds(pace, screened=True, rounds=2, measurements=2) == 2.0 * (28 + whole.judging) + 0.5 * 16
    prompts = 4 + 6 + whole.prompts_of_judging
    assert whole.prompts_left(screened=True, rounds=2, measurements=2) == prompts
    dearer = replace(pace, prompt=3.0)
    more = whole.seconds(dearer, screened=True, rounds=2, measurements=2) - whole.seconds(
        pace, screened=True, rounds=2, measurements=2
    )
    assert more == 3.0 * prompts


@pytest.mark.parametrize("shared", [1, 9])
def test_the_pace_is_that_of_the_machine(clock, shared):
    """A second a prompt, which its answers share as they do their first states, and 0.1 s for a state of their own."""
    prompts = [[i] for i in range(8)]
    whole = measure_pace(SlowPolicy(clock, shared=shared), prompts, replace(SHORT, max_tokens=50), whole=True)
    assert (whole.tokens, whole.at_most) == (50, False)
    cut = measure_pace(SlowPolicy(clock, shared=shared), prompts, replace(SHORT, max_tokens=200), whole=False)
    assert (cut.tokens, cut.at_most) == (200, True)
    for pace, tokens in ((whole, 50), (cut, 200)):
        assert pace.prompt == pytest.approx(1 + 0.1 * (shared - 1))
        assert pace.drawing == pytest.approx(0.1 * (tokens - shared))


def test_prompts_that_begin_alike_are_timed_together(clock):
    """The first of them takes a second longer than each of the others, which a round has many of."""

    class Alike(SlowPolicy):
        def sample(self, prompts, *settings):
            clock.now += 1.0
            return super().sample(prompts, *settings)

    prompts = [[i] for i in range(16)]
    pace = measure_pace(Alike(clock), prompts, replace(SHORT, samples=16, max_tokens=50), whole=False)
    assert pace.prompt == pytest.approx(17 / 16)
    assert pace.drawing == pytest.approx(0.1 * 49)


class CountingPolicy(LlamaPolicy):
    """llama.cpp, with the tokens of prompts and the states that it computes as the time; all answers end."""

    def __init__(self, clock, *settings):
        super().__init__(*settings)
        self._clock = clock

    def sample(self, prompts, n, heads, seed, keep_states=True, ended=None, numbers=None, max_tokens=None, blur=0.0):
        def told(prompt, sample, answer):
            ended(prompt, sample, self._ended(answer))

        settings = prompts, n, heads, seed, True, ended and told, numbers, max_tokens, blur
        answers = [[self._ended(answer) for answer in group] for group in super().sample(*settings)]
        self._clock.now += sum(map(len, prompts)) - len(prompts) + len(self._states)
        return answers

    def _ended(self, answer):
        return replace(answer, finished=len(answer.tokens) == self._max_tokens)


@pytest.mark.parametrize(("max_tokens", "time"), [(2, ""), (24, ""), (24, "5h")])
def test_a_run_whose_answers_begin_alike_takes_about_as_long_as_was_said(tmp_path, clock, max_tokens, time):
    problems, words = tmp_path / "problems.jsonl", ["one", "two", "three", "four", "five", "six"]
    problems.write_text("".join(json.dumps({"prompt": f"{a} {b}"}) + "\n" for a in words for b in words))
    arguments = replace(SHORT, samples=16, max_tokens=max_tokens, verdict=False, time=time)
    arguments = replace(arguments, checker="python:test_reward_plan:any_score", first_temperature=0.8)
    policy = CountingPolicy(clock, write_llama(tmp_path / "model.gguf"), max_tokens, 32, "cpu", 1)
    with Scorer("python:test_reward_plan:any_score", 1) as scorer:
        found = Problems(problems, policy, arguments, scorer)
        pace, arguments = paced(policy, found, arguments, tmp_path, False)
    said = plan_of(arguments, len(found.training), len(found.validation)).seconds(pace)
    began = clock.now
    train_on_rewards(policy, problems, tmp_path / "heads", replace(arguments, time=""), progress=False)
    assert 1 / 1.5 < said / (clock.now - began) < 1.5


def any_score(problem, text):  # named by a checker
    return len(text) % 2


@pytest.mark.parametrize("problems", [40, 400, 40_000])
@pytest.mark.parametrize("minutes", [40, 300, 3000])
def test_rounds_and_sizes_fit_into_the_time(problems, minutes):
    pace = Pace(100.0, 1.0, 0.2)
    found = fitted(replace(SHORT, time=f"{minutes}m", samples=16), problems, pace, 60.0 * minutes)
    held_out = min(found.validation_problems, problems // 2)
    taken = plan_of(found, problems - held_out, held_out).seconds(pace)
    assert taken <= 0.9 * 60 * minutes
    at_its_most = found.rounds == plan.MOST_ROUNDS
    assert taken > 0.7 * 60 * minutes or at_its_most
    assert found.rounds >= 4
    assert found.samples == 16


def test_time_that_no_verdict_takes_is_for_learning():
    pace, arguments = Pace(100.0, 1.0, 0.2), replace(SHORT, time="2h", samples=16)
    judged, plain = (fitted(replace(arguments, verdict=verdict), 400, pace, 7200.0) for verdict in (True, False))
    assert plain.rounds * plain.batch_problems > 1.1 * judged.rounds * judged.batch_problems
    assert plain.validation_problems >= judged.validation_problems
    assert plan_of(plain, 400 - plain.validation_problems, plain.validation_problems).seconds(pace) <= 0.9 * 7200


def test_too_short_a_time_is_told_with_one_that_is_enough():
    pace, arguments = Pace(100.0, 1.0, 0.2), replace(SHORT, time="5m")
    with pytest.raises(InputError, match=r"time 5m: is too short; the smallest run takes (\d+) min here") as told:
        fitted(arguments, 400, pace, 300.0)
    enough = int(str(told.value).split("takes ")[1].split()[0])
    assert fitted(arguments, 400, pace, 60.0 * enough).rounds <= 6


def test_a_run_of_a_given_time_resumes_with_the_sizes_that_were_chosen(problems, tmp_path, clock):
    arguments = replace(SHORT, time="6h", max_tokens=50)

    class Pressed(SlowPolicy):
        def sample(self, *args, **kwargs):
            if self.drawn > 700:
                raise KeyboardInterrupt
            return super().sample(*args, **kwargs)

    part = train_on_rewards(Pressed(clock), problems, tmp_path / "part", arguments, progress=False)
    assert part.interrupted
    faster = SlowPolicy(clock, 2.0)
    train_on_rewards(faster, problems, tmp_path / "part", arguments, resume=True, progress=False)
    train_on_rewards(SlowPolicy(clock), problems, tmp_path / "whole", arguments, progress=False)
    made = [json.loads((tmp_path / name / "training.json").read_text()) for name in ("part", "whole")]
    sizes = [{name: each["arguments"][name] for name in SIZES} for each in made]
    assert sizes[0] == sizes[1]
    assert sizes[0]["rounds"] != SHORT.rounds
    assert made[0]["result"]["history"] == made[1]["result"]["history"]


def test_the_plan_is_printed_before_a_run_and_the_time_left_once_the_pace_is_known(problems, tmp_path, clock, capsys):
    arguments = replace(SHORT, max_tokens=60)
    train_on_rewards(SlowPolicy(clock), problems, tmp_path / "heads", arguments, progress=True)
    lines = capsys.readouterr().out.splitlines()
    whole = plan_of(arguments, 54, 6)
    assert lines[0] == "60 problems: 54 to learn from, 6 held out"
    assert "3 rounds: each 4 problems x 4 answers, then 12 updates of the heads" in lines
    longest = duration(whole.prompts_left() + whole.left()[0] * 0.1 * 59)
    drawn = f"{whole.left()[0]} answers of up to 60 tokens to draw, behind {whole.prompts_left()} prompts"
    assert lines[5].startswith(f"{drawn}: at most {longest} at the 1000 ms a prompt and 5900.0 ms an answer")
    # screening took a second for each problem's prompt and 4.9 for each answer, where 50 tokens of 5.9 / 60 each were
    # expected
    expected = 5.9 * 50 / 60
    slower = (54 + 4.9 * 216) / (54 + expected * 216)
    left = duration(slower * (whole.prompts_left(screened=True) + expected * whole.left(screened=True)[0]))
    assert lines[6].startswith("answers have 50 tokens on average, and 10 tokens/s are drawn, prompts included")
    assert lines[6].endswith(f"about {left} left")


@pytest.mark.parametrize(("text", "seconds"), [("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1h 5s", 3605)])
def test_lengths_of_time_are_read(text, seconds):
    assert parse_duration("time", text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "0m", "-5m", "1.5h", "30 minutes", "5m1h"])
def test_what_is_no_length_of_time_is_refused(text):
    with pytest.raises(InputError, match=r"time .*: is no length of time; give one as 30m, 2h or 1h30m"):
        parse_duration("time", text)


def test_lengths_of_time_are_shown_in_units_that_say_enough():
    shown = [duration(seconds) for seconds in (0.2, 44, 89.6, 600, 3599, 3600, 5400, 200_000)]
    assert shown == ["1 s", "44 s", "90 s", "10 min", "1 h", "1 h", "1 h 30 min", "2 days"]


@pytest.mark.parametrize(("samples", "added"), [(2, [2, 4, 8, 8]), (8, [8, 8, 8, 8]), (16, [16, 16, 16, 16])])
def test_halving_adds_no_more_answers_at_a_time_than_tell_settings_apart(samples, added):
    """Of 10 candidates 5, 3 and 2 go on; the answers of each are new ones, and the best of all is found."""
    asked = []

    def rewards_of(name: str, n: int, number: int) -> np.ndarray:
        asked.append((number, n))
        return np.full((3, n), int(name) / 10)

    assert halving([str(i) for i in range(10)], rewards_of, parse_target("pass@1"), samples) == "9"
    assert asked == [(number, n) for number, n in enumerate(added) for _ in range((10, 5, 3, 2)[number])]
    assert halving_answers(10, samples) == sum(n for _, n in asked)
    assert halving_draws(10, samples) == len(asked) == 20
