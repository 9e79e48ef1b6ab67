"""The settings that are compared: static ones, those of the vendor, heads, and heads held at their mean; ``rivals``
has the rules."""

from dataclasses import dataclass, replace

import llama_cpp

from autodeco.batch import Sampling
from autodeco.batch.rules import Rule
from autodeco.errors import InputError
from autodeco.evaluation.settings import OPTIONAL


@dataclass(frozen=True)
class Method:
    """A named setting to sample answers with; greedy answers are all the same, so there is one for each problem.

    ``rule`` names the rule that it is a setting of, if any. ``from_heads`` says that what heads predicted has decided
    it. ``of`` names the set of heads that it is of, where several are compared.
    """

    name: str
    sampling: Sampling
    rule: str = ""
    from_heads: bool = False
    of: str = ""

    @property
    def title(self) -> str:
        """What it is called among all methods of an evaluation."""
        if not self.of:
            return self.name
        return self.of if self.name == AUTODECO.name else f"{self.of}: {self.name}"

    @property
    def is_greedy(self) -> bool:
        return self.sampling.temperature == 0.0

    @property
    def is_cut(self) -> bool:
        """Whether more than temperature and top-p decides which tokens can be sampled."""
        return bool(self.sampling.top_k or self.sampling.min_p)

    @property
    def is_static(self) -> bool:
        """Whether it is one temperature and top-p for all tokens."""
        return self.sampling.heads == "none" and self.sampling.rule is None

    @property
    def needs_heads(self) -> bool:
        return self.sampling.heads != "none" or self.from_heads


AUTODECO = Method("AutoDeco", Sampling())
TEMPERATURE_HEAD = Method(OPTIONAL["temperature-head"], Sampling(heads="temperature"))
TOP_P_HEAD = Method(OPTIONAL["top-p-head"], Sampling(heads="top_p"))
GREEDY = Method("greedy", Sampling(0.0, heads="none"))
DEFAULT = Method(OPTIONAL["default"], Sampling(heads="none"))
MEAN_SHIFT = "mean shift"
VENDOR = OPTIONAL["vendor"]


def static(temperature: float, top_p: float) -> Method:
    """A point of the grid; that of T 1, P 1 is the default."""
    sampling = Sampling(temperature, top_p, heads="none")
    if sampling == DEFAULT.sampling:
        return DEFAULT
    return Method(f"T {temperature:g} P {top_p:g}", sampling)


def mean_shift(temperature: float, top_p: float) -> Method:
    """Fixed at the mean of the heads' predictions."""
    return held(MEAN_SHIFT, temperature, top_p)


def held(name: str, temperature: float, top_p: float) -> Method:
    """Fixed where the heads' predictions say, to four digits."""
    return Method(name, Sampling(round(temperature, 4), min(round(top_p, 4), 1.0), heads="none"), from_heads=True)


def by_rule(name: str, rule: Rule, of: str, from_heads: bool = False) -> Method:
    """A setting of the rule that is called ``of``."""
    return Method(name, Sampling(heads="none", rule=rule), of, from_heads)


def vendor(llm: llama_cpp.Llama) -> Method | None:
    """The setting that the model's file recommends (general.sampling.*), None if it has none."""
    keys = {"temperature": "temp", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p"}
    found = {name: llm.metadata.get(f"general.sampling.{key}") for name, key in keys.items()}
    try:
        values = {
            name: int(value) if name == "top_k" else float(value) for name, value in found.items() if value is not None
        }
        # llama.cpp takes a top_k of 0 or less as all tokens
        if "top_k" in values:
            values["top_k"] = max(values["top_k"], 0)
        return Method(VENDOR, replace(Sampling(heads="none"), **values)) if values else None
    except ValueError:
        raise InputError(
            f"{llm.model_path}: its recommended sampling settings are no numbers: {found}; use --without vendor"
        ) from None


def not_measured(llm: llama_cpp.Llama) -> list[str]:
    """The settings that the model's file recommends and ``vendor`` leaves out: penalties and other samplers."""
    off = {"penalty_repeat": 1.0, "mirostat": 0.0, "xtc_probability": 0.0}
    found = {name: llm.metadata.get(f"general.sampling.{name}") for name in off}
    return [f"{name} {value}" for name, value in found.items() if value is not None and value not in _forms(off[name])]


def _forms(value: float) -> tuple[str, ...]:
    """How a metadata value of this number may be written."""
    return f"{value:g}", f"{value:.1f}", f"{value:.6f}"
