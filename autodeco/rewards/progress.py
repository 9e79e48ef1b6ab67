"""What a run on rewards shows of itself: its plan, bars while it draws, and how long the rest takes."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from autodeco.rewards.arguments import RewardArguments
from autodeco.rewards.plan import Pace, Plan
from autodeco.rewards.problems import Problems
from autodeco.settings.durations import duration
from autodeco.settings.program import bar

SEEN = 16  # answers, before their own pace counts more than the measured one


class Progress:
    """Of a run on ``problems`` by ``plan``; nothing is shown without a measured ``pace``."""

    def __init__(self, problems: Problems, plan: Plan, pace: Pace | None):
        self._problems, self._plan, self._pace = problems, plan, pace
        self._learned, self._learning = 0, 0.0  # answers, seconds

    @property
    def shown(self) -> bool:
        """Whether there is anybody to show it to."""
        return self._pace is not None

    @contextlib.contextmanager
    def drawing(self, what: str, answers: int, done: int = 0) -> Iterator[None]:
        """Show a bar of ``answers``, of which ``done`` were drawn before, while the body draws them."""
        with bar(answers, done, "answer", what, self.shown, leave=False) as counted:
            self._problems.told = counted.update
            try:
                yield
            finally:
                self._problems.told = None

    def learned(self, answers: int, seconds: float) -> None:
        """Note that a round's ``answers`` were learned from in ``seconds``."""
        self._learned += answers
        self._learning += seconds

    def left(self, **done) -> str:
        """Return how long the rest of the run takes, at the pace so far."""
        return duration(self._plan.seconds(self._pace_so_far(), **done))

    def tell_plan(self, arguments: RewardArguments, **done) -> None:
        """Print the plan."""
        if self.shown:
            if left_out := self._problems.left_out:
                print(f"{left_out} problems are left out: their prompts are those of held-out ones")
            print(*self._plan.lines(self._pace, arguments, **done), sep="\n", flush=True)

    def tell_left(self, **done) -> None:
        """Print how long the rest takes."""
        if self.shown:
            drawn, seen = self._problems.drawn, ""
            if drawn.answers:
                rate = f"{drawn.tokens / drawn.seconds:.0f} tokens/s are drawn, prompts included"
                seen = f"answers have {drawn.tokens / drawn.answers:.0f} tokens on average, and {rate}: "
            print(f"{seen}about {self.left(**done)} left", flush=True)

    def _pace_so_far(self) -> Pace:
        pace, drawn = self._pace or Pace(0.0, 0.0, 0.0), self._problems.drawn
        if drawn.answers >= SEEN:
            tokens = drawn.tokens / drawn.answers
            # learning takes as long as answers are, until a round has shown how long
            longer = tokens / pace.tokens if pace.tokens else 0.0
            drawing, learning = longer * pace.drawing, longer * pace.learning
            expected = drawn.prompts * pace.prompt + drawn.answers * drawing
            slower = drawn.seconds / expected if expected else 0.0
            pace = Pace(tokens, slower * drawing, learning, slower * pace.prompt)
        if self._learned:
            pace = replace(pace, learning=self._learning / self._learned)
        return pace
