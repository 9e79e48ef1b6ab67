"""The settings of training on rewards."""

from dataclasses import dataclass

from autodeco.data.checkers import forms
from autodeco.errors import InputError
from autodeco.rewards.targets import parse_target
from autodeco.settings.durations import parse_duration
from autodeco.settings.options import option
from autodeco.training.arguments import MOST_SEED, OptimizerArguments

MOST_SAMPLES = 4096
ANCHOR_TO = SETTING, FIRST_HEADS = "setting", "first-heads"
# What ``time`` chooses.
SIZES = ("rounds", "batch_problems", "validation_problems", "screening_problems", "evaluate_every")


@dataclass(frozen=True)
class RewardArguments(OptimizerArguments):
    """How heads are trained on rewards; the defaults are for a small model on a CPU."""

    target: str = option("pass@1", "what to raise: pass@1, pass@K, or a sum such as pass@1+0.5*pass@8")
    checker: str = option("exact", forms())
    least_score: float = option(0.0, "what a score must reach to count; 1: only what is wholly right", 0.0, 1.0)
    answers_from: str = option(
        "llama.cpp",
        "what answers: llama.cpp, the quantized file itself, or transformers, on --device",
        choices=("llama.cpp", "hugging-face"),
    )
    dtype: str = option("bfloat16", "of the frozen model in transformers", choices=("bfloat16", "float16", "float32"))
    time: str = option("", "how long the run may take, as 30m or 2h: rounds and sizes are chosen to fit", metavar="30m")
    rounds: int = option(
        40, "times that answers are drawn, by the heads as they are then, and learned from", 1, 100_000
    )
    batch_problems: int = option(64, "problems answered in a round", 1, 1_000_000)
    samples: int = option(16, "answers to each of them", 2, MOST_SAMPLES)
    max_tokens: int = option(256, "in an answer; one that does not end within them gets no reward", 1, 1_000_000)
    passes: int = option(3, "times that a round's answers are gone through", 1, 1000, flag=False)
    minibatches: int = option(4, "updates in each of these", 1, 1000, flag=False)
    clip: float = option(
        0.2, "change of a token's probability beyond which an update counts no more", 0.01, 1.0, flag=False
    )
    leak_price: float = option(
        1.0, "cost of probability for tokens that were hardly ever drawn", 0.0, 1000.0, flag=False
    )
    anchor_price: float = option(0.05, "cost of leaving the anchors' setting, for each nat", 0.0, 1000.0, flag=False)
    anchor_to: str = option(
        "setting",
        "what heads are held to at the prompts of --anchors: a setting, or what the first heads predict there",
        choices=ANCHOR_TO,
    )
    anchor_temperature: float = option(0.1, "at the prompts of --anchors", 0.01, 1.99)
    anchor_top_p: float = option(1.0, "at the prompts of --anchors", 0.01, 1.0)
    free_temperature: float | None = option(
        None,
        "of the setting whose probabilities leak nothing (default: that of the anchors, if they have one)",
        0.01,
        1.99,
        flag=False,
    )
    free_top_p: float = option(0.95, "of that setting, if its temperature is given", 0.01, 1.0, flag=False)
    top_p_price: float = option(
        0.0, "cost of a top-p that leaves the one below, where rewards do not ask for it", 0.0, 1000.0, flag=False
    )
    rest_top_p: float = option(0.97, "top-p at which heads rest, if leaving it has a price", 0.01, 0.999, flag=False)
    first_temperature: float = option(0.35, "of heads that start from nothing", 0.01, 1.99)
    first_top_p: float = option(0.95, "of heads that start from nothing", 0.01, 0.999, flag=False)
    learning_rate: float = option(2e-3, "at its highest", 1e-9, 1.0)
    warmup_steps: int = option(
        24, "updates in which the learning rate rises, before it follows the schedule", least=0, flag=False
    )
    gradient_clip: float = option(0.5, "largest norm of the gradient; 0 for none", least=0.0, flag=False)
    ema: float = option(
        0.98, "decay of an exponential average of the heads, which is measured and kept", 0.0, 0.99999, flag=False
    )
    validation_problems: int = option(100, "held out, and answered to measure", least=2)
    validation_samples: int = option(8, "answers to each of these", 1, MOST_SAMPLES)
    verdict: bool = option(
        True, "judge the heads beside static settings at the end; without it the best measured ones are kept"
    )
    screening_problems: int | None = option(
        None, "answered before the first round, to find those that teach something (default: all)", least=1
    )
    evaluate_every: int = option(10, "rounds between measurements", least=1)
    slots: int = option(128, "answers computed at a time", 1, 65_536)
    seed: int = option(0, "of the first weights, the split, the problems chosen and the answers", 0, MOST_SEED)

    def __post_init__(self):
        super().__post_init__()
        if self.time:
            parse_duration("time", self.time)
        target = parse_target(self.target)
        for name in ("samples", "validation_samples"):
            if target.pass_at_k and target.k > getattr(self, name):
                raise InputError(
                    f"target {self.target}: pass@{target.k} wants {name.replace('_', '-')} of at least {target.k}"
                )

    @property
    def updates(self) -> int:
        return self.rounds * self.updates_in_a_round

    @property
    def updates_in_a_round(self) -> int:
        return self.passes * self.minibatches
