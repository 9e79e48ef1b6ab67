"""Who decides about temperature and top-p, and what becomes of a request's other settings.

autodeco-server does the same: docs/serve.md.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from autodeco.serve.options import IGNORE, MULTIPLY, OVERRIDE

# what cuts the distribution besides top-p, which is the heads' work; what steers the temperature by a rule of its own
CUTS = ("top_k", "min_p", "typical_p", "top_n_sigma", "xtc_probability")
NEVER = ("mirostat_mode",)


@dataclass(frozen=True)
class Wishes:
    """What the field ``autodeco`` of a request asks for."""

    heads: str = "both"
    temperature_scale: float = 1.0
    top_p_scale: float = 1.0
    values: bool = False


@dataclass(frozen=True)
class Decision:
    """What a request is answered with.

    ``temperature`` and ``top_p`` are as ``autodeco.Llama`` takes them: they multiply what ``heads`` picks, or are
    ordinary settings. ``ignored`` names the settings of the request that are not applied.
    """

    heads: str
    temperature: float
    top_p: float
    ignored: tuple[str, ...]

    def report(self) -> dict[str, Any]:
        """What was made of the request, as the answer says it."""
        by_temperature, by_top_p = self.heads in ("both", "temperature"), self.heads in ("both", "top_p")
        return {
            "heads": self.heads,
            "greedy": self.temperature == 0.0,
            "temperature_scale": self.temperature if by_temperature else 1.0,
            "top_p_scale": self.top_p if by_top_p else 1.0,
            "fixed_temperature": None if by_temperature else self.temperature,
            "fixed_top_p": None if by_top_p else self.top_p,
            "ignored": list(self.ignored),
        }


def decide(policy: str, heads: Collection[str], wishes: Wishes, settings: dict[str, Any]) -> Decision:
    """Return what a request with ``settings``, those that it names, is answered with by a model that has ``heads``."""
    chosen = {"temperature": 1.0, "top_p": 1.0}
    ignored = []
    deciding = []
    scales = {"temperature": wishes.temperature_scale, "top_p": wishes.top_p_scale}
    for name in chosen:
        given = settings.get(name)
        decides = wishes.heads in ("both", name) and name in heads
        if not decides:
            chosen[name] = 1.0 if given is None else given
        elif name == "temperature" and given == 0.0:  # greedy is a wish of its own, under any policy
            chosen[name] = 0.0
        elif given is None or policy == IGNORE:
            chosen[name] = scales[name]
            ignored += [] if given is None else [name]
        elif policy == MULTIPLY:
            chosen[name] = scales[name] * given
        else:
            assert policy == OVERRIDE
            chosen[name], decides = given, False
        deciding += [name] if decides else []
    if wishes.heads != "none" and heads:
        ignored += [name for name in CUTS if policy == IGNORE and name in settings]
        ignored += [name for name in NEVER if name in settings]
    which = "both" if len(deciding) == 2 else deciding[0] if deciding else "none"
    return Decision(which, chosen["temperature"], chosen["top_p"], tuple(ignored))
