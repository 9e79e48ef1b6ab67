"""A setting for thinking and one for the answer, for models whose template knows thinking."""

from dataclasses import dataclass

import numpy as np

from autodeco.base.token_bytes import TokenBytes
from autodeco.batch.rules import Choice, Chooser, Row, Rule
from autodeco.evaluation.methods import Method, by_rule

NAME = "a setting a phase"
OPEN, CLOSE = b"<think>", b"</think>"
GRID = ((1.0, 0.3), (1.0, 0.6), (0.6, 0.3), (0.6, 0.0))  # temperatures of thinking and answer
TOP_P = 0.95


@dataclass(frozen=True)
class PhaseRule(Rule):
    """``thinking`` between the tags, ``answer`` elsewhere; both are temperature and top-p."""

    thinking: tuple[float, float]
    answer: tuple[float, float]

    def begin(self, prompt: tuple[int, ...], seed: int, token_bytes: TokenBytes) -> Chooser:
        return _Phase(self, prompt, token_bytes)


class _Phase(Chooser):
    """The phase of one answer, whose prompt may have opened the thinking."""

    def __init__(self, rule: PhaseRule, prompt: tuple[int, ...], token_bytes: TokenBytes):
        self._rule, self._token_bytes = rule, token_bytes
        text = b"".join(token_bytes[token] for token in prompt)
        self._thinks, self._end = text.rfind(OPEN) > text.rfind(CLOSE), text[1 - len(CLOSE) :]

    def choose(self, row: Row, random: np.random.Generator) -> Choice:
        return self._rule.thinking if self._thinks else self._rule.answer

    def accept(self, token: int) -> None:
        text = self._end + self._token_bytes[token]
        opened, closed = text.rfind(OPEN), text.rfind(CLOSE)
        if opened != closed:  # either is there
            self._thinks = opened > closed
        self._end = text[1 - len(CLOSE) :]


def methods(template: str) -> list[Method]:
    """A method for each point of the grid; none if the chat ``template`` has no thinking."""
    if CLOSE.decode() not in template:
        return []
    return [
        by_rule(f"thinking T {t:g} answer T {a:g} P {TOP_P:g}", PhaseRule((t, TOP_P), (a, TOP_P)), NAME)
        for t, a in GRID
    ]
