"""The settings of training: of the heads and their optimiser, of the loop on likelihood, and of a Hugging Face model as
its source of tokens."""

from dataclasses import dataclass

from autodeco.errors import InputError
from autodeco.settings.options import Options, option

MOST_SEED = 2**63 - 1  # torch takes no larger one


@dataclass(frozen=True)
class OptimizerArguments(Options):
    """Which heads are trained, how they are updated and where; likelihood and rewards have defaults of their own.

    Raises InputError for a value that makes no sense.
    """

    learning_rate: float = option(5e-4, "at its highest", 1e-9, 1.0)
    warmup_steps: int = option(20, "updates in which the learning rate rises, before it follows the schedule", least=0)
    schedule: str = option(
        "cosine", "how the learning rate falls to 0, or constant", choices=("cosine", "linear", "constant"), flag=False
    )
    weight_decay: float = option(0.0, "of AdamW", least=0.0, flag=False)
    gradient_clip: float = option(1.0, "largest norm of the gradient; 0 for none", least=0.0)
    ema: float = option(
        0.0, "decay of an exponential average of the heads, which is then measured and kept; 0 for none", 0.0, 0.99999
    )
    evaluate_every: int = option(50, "updates between measurements on what is held out", least=1)
    prob_stats: bool = option(True, "give the top-p head the four statistics of the distribution", flag=False)
    temperature: bool = option(True, "train a temperature head")
    top_p: bool = option(True, "train a top-p head")
    seed: int = option(0, "of everything that is random", least=0, most=MOST_SEED)
    device: str = option("cpu", "where to train: cpu, cuda, cuda:1, ...")
    tracker: str = option("none", "where to send every update's figures", choices=("none", "tensorboard", "wandb"))

    def __post_init__(self):
        super().__post_init__()
        kind, _, index = self.device.partition(":")
        if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
            raise InputError(f"device {self.device}: must be cpu, cuda or cuda:N")
        if not self.temperature and not self.top_p:
            raise InputError("no-temperature and no-top-p leave nothing to train; drop one of the two")

    @property
    def updates(self) -> int:
        """How many updates the whole run makes."""
        raise NotImplementedError


@dataclass(frozen=True)
class TrainingArguments(OptimizerArguments):
    """How heads are trained; the defaults are for minutes on a CPU. docs/training.md compares them with the paper's."""

    steps: int = option(400, "updates of the heads", least=1)
    batch_tokens: int = option(128, "tokens in an update", least=1)
    learning_rate: float = option(
        5e-4, "at its highest; the paper uses 5e-6, with far more tokens an update", 1e-9, 1.0
    )
    easy_token_drop: float = option(
        0.6, "share of tokens left out of the temperature loss where the model is already right", least=0.0, most=1.0
    )
    fine_tuning_weight: bool = option(True, "weigh each token with the probability that the model gives it", flag=False)
    validation_share: float = option(
        0.1, "share of the prompts held out, with all records that have them", least=0.0, most=0.9
    )
    validation_tokens: int = option(1024, "at most this many held-out tokens are measured", least=1)
    evaluate_every: int = option(50, "updates between measurements on the held-out records", least=1)
    control: bool = option(
        False, "also learn to follow commands: T and P rise from 'be certain' over none to 'be diverse'"
    )
    control_weight: float = option(0.5, "of the ranking loss beside the likelihood", least=0.0)
    control_prompts: int = option(4, "prompts in an update that are ranked", least=1)
    control_tokens: int = option(16, "tokens of an answer whose means are ranked; others differ each time", least=1)
    control_temperature_margin: float = option(0.1, "by which the mean temperature should rise", 1e-3, 1.0)
    control_top_p_margin: float = option(0.02, "by which the mean top-p should rise", 1e-3, 0.5)
    seed: int = option(
        0, "of the first weights, the split, the order of the tokens and the dropping", least=0, most=MOST_SEED
    )

    @property
    def updates(self) -> int:
        return self.steps


@dataclass(frozen=True)
class HuggingFaceSettings(Options):
    """How the model is run."""

    pack_tokens: int = option(2048, "tokens in a row of packed sequences, whose logits are in memory at once", least=2)
    dtype: str = option("bfloat16", "of the frozen model", choices=("bfloat16", "float16", "float32"))
    control_commands: str = option("", "JSON file of the commands of --control; empty for a set of our own")
