"""The settings that decide an evaluation's outcome."""

from dataclasses import dataclass

from autodeco.errors import InputError
from autodeco.evaluation.tasks import TaskSpec
from autodeco.settings.options import check_options, option

# methods that a comparison can do without, by the name that a user says them by
OPTIONAL = {
    "default": "default, T 1 P 1",
    "vendor": "vendor",
    "temperature-head": "temperature head alone",
    "top-p-head": "top-p head alone",
}
ALL_RIVALS = "rivals"
# rules of autodeco.evaluation.rivals
RIVALS = (
    "stock-defaults",
    "dynatemp",
    "min-p",
    "top-n-sigma",
    "adaptive-p",
    "edt",
    "greedy-threshold",
    "phases",
    "inverse-mean",
    "shuffle",
    "binned-shuffle",
)
RULES = tuple(name for name in RIVALS if name != "inverse-mean")  # which draw from logits; that one is a setting
DIAGNOSTICS = "diagnostics"  # of given answers, which the model reads twice for them
WITHOUT = (*OPTIONAL, *RIVALS, ALL_RIVALS, DIAGNOSTICS)
USUAL_KS = (1, 4, 16)


@dataclass(frozen=True)
class Settings:
    """Everything that decides the outcome, beside the versions of the programs."""

    tasks: tuple[TaskSpec, ...]
    validation: int = option(100, "problems a task that choose the best setting and the heads' mean", least=1)
    test: int = option(300, "problems a task that everything is measured on", least=1)
    samples: int = option(16, "answers to each problem, a method", least=1)
    derived_samples: int | None = option(
        None, "answers to each problem of what is made of heads: means and shuffles (default: --samples)", least=1
    )
    max_tokens: int = option(256, "tokens of an answer", least=1)
    temperatures: tuple[float, ...] = option((0.2, 0.4, 0.6, 0.8, 1.0), "of the grid of static settings", least=0.0)
    top_ps: tuple[float, ...] = option((0.8, 0.9, 0.95, 1.0), "of the grid of static settings", least=0.0, most=1.0)
    ks: tuple[int, ...] = option((), "of pass@k (default: 1, 4 and 16, up to --samples)", least=1)
    seed: int = option(0, "of problems, answers and resampling", least=0)
    slots: int = option(16, "answers generated at a time", least=1)
    stop: tuple[str, ...] = option((), "texts that end an answer", metavar="TEXT")
    without: tuple[str, ...] = option(
        (),
        f"leave out for a first look: {', '.join(WITHOUT)} (all rules)",
        choices=WITHOUT,
        metavar="METHOD",
    )

    def __post_init__(self):
        check_options(self)
        for name in ("temperatures", "top_ps", "ks", "without"):
            object.__setattr__(self, name, tuple(dict.fromkeys(getattr(self, name))))
        if not self.ks:
            object.__setattr__(self, "ks", tuple(k for k in USUAL_KS if k <= self.samples))
        if not self.tasks:
            raise InputError("no task is given; name a reasoning-gym family, a JSON lines or a YAML file")
        if wrong := [k for k in self.ks if k > self.samples]:
            raise InputError(f"pass@{wrong[0]} needs k from 1 to the {self.samples} samples of each problem")
        if self.derived > self.samples:
            raise InputError(f"derived-samples {self.derived}: must be at most the {self.samples} samples of others")
        if 1 not in self.ks:
            raise InputError("pass@1 is what methods are compared by: keep 1 among the k")
        if not self.temperatures or not self.top_ps:
            raise InputError("the grid needs at least one temperature and one top-p")
        if 0 in self.temperatures:
            raise InputError("temperature 0 of the grid is greedy, which is always compared: leave it out")
        if 0 in self.top_ps:
            raise InputError("top-p 0 of the grid keeps no token: give values above 0")

    @property
    def derived(self) -> int:
        """How many answers to a problem those methods give that are made of what heads predicted."""
        return self.samples if self.derived_samples is None else self.derived_samples
