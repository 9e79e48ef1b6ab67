"""The settings of training on rewards."""

from dataclasses import dataclass

from autodeco.data.checkers import forms
from autodeco.errors import InputError
from autodeco.settings.options import check_options, option


@dataclass(frozen=True)
class RewardArguments:
    """How heads are trained on rewards; the defaults are for a small model on a CPU."""

    checker: str = option("exact", forms())
    least_score: float = option(0.0, "what a score must reach to count; 1: only what is wholly right", 0.0, 1.0)
    rollouts: str = option(
        "llama.cpp",
        "what answers: llama.cpp, the quantized file itself, or transformers, on --device",
        choices=("llama.cpp", "hugging-face"),
    )
    dtype: str = option("bfloat16", "of the frozen model in transformers", choices=("bfloat16", "float16", "float32"))
    samples: int = option(16, "answers to each problem in a round, and a greedy one in the first", least=1)
    rounds: int = option(1, "times that answers are drawn, by the heads as they are then", least=1)
    max_tokens: int = option(64, "in an answer; one that does not end within them gets no reward", least=1)
    steps: int = option(400, "updates of the heads, divided by the rounds", least=1)
    batch_problems: int = option(64, "problems in an update, of those with a right answer", least=1)
    blur: float = option(0.3, "noise on the logit of top-p that makes the hard cut differentiable", 0.01, 10.0)
    explore: float = option(
        0.15,
        "added to temperatures while learning, less and less: at 0 no other token is ever seen to be better",
        least=0.0,
    )
    learning_rate: float = option(3e-4, "at its highest", least=0.0)
    warmup_steps: int = option(10, "updates in which the learning rate rises, before it falls as a cosine", least=0)
    weight_decay: float = option(0.0, "of AdamW", least=0.0)
    gradient_clip: float = option(0.5, "largest norm of the gradient; 0 for none", least=0.0)
    ema: float = option(0.9, "decay of an exponential average of the heads, which is measured and kept", 0.0, 0.99999)
    keep_close: float = option(
        0.0, "weight of the squared distance to the first heads, in the logits of temperature and top-p", least=0.0
    )
    validation_problems: int = option(64, "held out, and measured", least=1)
    evaluate_every: int = option(20, "updates between measurements on the held-out problems", least=1)
    slots: int = option(128, "answers computed at a time", least=1)
    prob_stats: bool = option(True, "give the top-p head the four statistics of the distribution")
    temperature: bool = option(True, "train a temperature head")
    top_p: bool = option(True, "train a top-p head")
    seed: int = option(0, "of the split, the order of the problems and the answers", least=0)
    device: str = option("cpu", "where to train: cpu, cuda, cuda:1, ...")
    tracker: str = option("none", "where to send every update's figures", choices=("none", "tensorboard", "wandb"))

    def __post_init__(self):
        check_options(self)
        if not self.temperature and not self.top_p:
            raise InputError("no-temperature and no-top-p leave nothing to train; drop one of the two")
