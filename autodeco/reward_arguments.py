"""The settings of training on rewards."""

from dataclasses import dataclass

from autodeco.errors import InputError
from autodeco.options import check_options, option


@dataclass(frozen=True)
class RewardArguments:
    """How heads are trained on rewards; the defaults are for a small model on a CPU."""

    checker: str = option("exact", "exact, number, math, reasoning-gym, regex:PATTERN or python:MODULE:NAME")
    rollouts: str = option(
        "llama.cpp",
        "what answers: llama.cpp, the quantized file itself, or transformers, on --device",
        choices=("llama.cpp", "hugging-face"),
    )
    dtype: str = option("bfloat16", "of the frozen model in transformers", choices=("bfloat16", "float16", "float32"))
    steps: int = option(60, "updates of the heads", least=1)
    batch_problems: int = option(16, "problems in an update", least=1)
    samples: int = option(16, "answers to each of them", least=2)
    max_tokens: int = option(64, "in an answer; one that does not end within them gets no reward", least=1)
    baseline: str = option(
        "prefix",
        "what an answer's reward is compared with: that of other answers that begin alike, or of all others",
        choices=("prefix", "group"),
    )
    learning_rate: float = option(3e-4, "at its highest", least=0.0)
    warmup_steps: int = option(10, "updates in which the learning rate rises, before it stays", least=0)
    weight_decay: float = option(0.0, "of AdamW", least=0.0)
    gradient_clip: float = option(0.5, "largest norm of the gradient; 0 for none", least=0.0)
    ema: float = option(0.9, "decay of an exponential average of the heads, which is measured and kept", 0.0, 0.99999)
    keep_close: float = option(
        0.0, "weight of the squared distance to the first heads, in the logits of temperature and top-p", least=0.0
    )
    measured_samples: int = option(8, "answers to a problem where it is measured how often it is solved", least=1)
    validation_problems: int = option(32, "held out, and measured", least=1)
    evaluate_every: int = option(10, "updates between measurements on the held-out problems", least=1)
    slots: int = option(32, "answers computed at a time", least=1)
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
