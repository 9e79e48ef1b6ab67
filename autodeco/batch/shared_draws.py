"""Draws of many answers from the same rows of logits, by settings, heads or rules."""

from collections.abc import Mapping

import numpy as np

from autodeco import native
from autodeco.base.token_bytes import TokenBytes
from autodeco.batch.answers import Finish, PartialAnswer
from autodeco.batch.request import Request
from autodeco.batch.rules import Row

Drawn = tuple[int, float, float, int, float]  # token, temperature, top-p, nucleus and probability


class Draws(PartialAnswer):
    """An answer in the making, with its own random numbers."""

    def __init__(self, request: Request, token_bytes: TokenBytes):
        super().__init__(request, token_bytes)
        sampling = request.sampling
        self.random = np.random.Generator(np.random.PCG64(request.seed))
        self.rule = sampling.rule and sampling.rule.begin(request.prompt, request.seed, token_bytes)
        by_temperature_head, by_top_p_head = (sampling.heads in ("both", head) for head in ("temperature", "top_p"))
        self.blur = sampling.top_p_blur
        self.setting = (sampling.temperature, sampling.top_p, by_temperature_head, by_top_p_head)
        self.level = np.nan  # of the answer, which the control head reads at its first token

    def noise(self) -> float:
        """What the logit of the next token's top-p is blurred by."""
        return self.random.logistic(scale=self.blur) if self.blur else 0.0

    def add(self, row: Drawn) -> Finish | None:
        if self.rule:
            self.rule.accept(row[0])
        return super().add(row)


def draw_rows(
    groups: list[list[Draws]], hidden: np.ndarray, logits: np.ndarray, heads: Mapping[str, native.Heads]
) -> list[Drawn]:
    """The next row of each answer of each group, in order; ``hidden`` [n, H] and ``logits`` [n, V] are the groups', and
    ``heads`` the sets that requests are of, by name.

    Groups share nothing, so that threads can draw for some of them each."""
    drawn: list[Drawn] = []
    # what is left to settings and heads, and where it stands among the drawn, by the set of heads
    asked: dict[str, tuple[list, list[tuple[int, Draws]]]] = {}
    for i, group in enumerate(groups):
        row = Row(logits[i])
        for drawing in group:
            setting = drawing.setting
            if drawing.rule:
                choice = drawing.rule.choose(row, drawing.random)
                if isinstance(choice, int):
                    drawn.append((choice, np.nan, np.nan, 0, np.nan))
                    continue
                setting = (*choice, False, False)
            rows, places = asked.setdefault(drawing.request.of, ([], []))
            rows.append((i, *setting, drawing.random.random(), drawing.noise(), drawing.level))
            places.append((len(drawn), drawing))
            drawn.append((0, 0.0, 0.0, 0, np.nan))
    for name, (rows, places) in asked.items():
        found = native.draw_from_rows(heads.get(name), hidden, logits, *zip(*rows, strict=True))
        for (place, drawing), *values, level in zip(places, *(values.tolist() for values in found), strict=True):
            drawn[place] = (*values, 0, np.nan)
            drawing.level = level
    return drawn
