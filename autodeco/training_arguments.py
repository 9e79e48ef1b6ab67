"""The settings of training, each declared once: its default, its help and the values that make sense."""

import argparse
from dataclasses import Field, dataclass, field, fields

from autodeco.errors import InputError


def _option(default, help: str, least=None, most=None) -> Field:
    return field(default=default, metadata={"help": help, "least": least, "most": most})


@dataclass(frozen=True)
class TrainingArguments:
    """How heads are trained; the defaults are for minutes on a CPU; docs/training.md sets them beside the paper's."""

    steps: int = _option(400, "updates of the heads", least=1)
    batch_tokens: int = _option(128, "tokens in an update", least=1)
    learning_rate: float = _option(
        5e-4, "at its highest; the paper uses 5e-6, with far more tokens an update", least=0.0
    )
    warmup_steps: int = _option(20, "updates in which the learning rate rises, before it falls as a cosine", least=0)
    weight_decay: float = _option(0.0, "of AdamW", least=0.0)
    gradient_clip: float = _option(1.0, "largest norm of the gradient; 0 for none", least=0.0)
    easy_token_drop: float = _option(
        0.6, "share of tokens left out of the temperature loss where the model is already right", least=0.0, most=1.0
    )
    validation_share: float = _option(0.1, "share of the records held out", least=0.0, most=0.9)
    validation_tokens: int = _option(1024, "at most this many held-out tokens are measured", least=1)
    evaluate_every: int = _option(50, "updates between measurements on the held-out records", least=1)
    prob_stats: bool = _option(True, "give the top-p head the four statistics of the distribution")
    temperature: bool = _option(True, "train a temperature head")
    top_p: bool = _option(True, "train a top-p head")
    seed: int = _option(0, "of the first weights, the split, the order of the tokens and the dropping", least=0)
    device: str = _option("cpu", "where to train: cpu, cuda, cuda:1, ...")

    def __post_init__(self):
        for item in fields(self):
            value, least, most = getattr(self, item.name), item.metadata["least"], item.metadata["most"]
            if isinstance(item.default, float) and isinstance(value, int):
                value = float(value)
            # `not >=` and `not <=`, so that NaN is refused too
            if (least is not None and not value >= least) or (most is not None and not value <= most):
                limits = f"at least {least}" if most is None else f"between {least} and {most}"
                raise InputError(f"{item.name.replace('_', '-')} {value}: must be {limits}")
        kind, _, index = self.device.partition(":")
        if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
            raise InputError(f"device {self.device}: must be cpu, cuda or cuda:N")
        if not self.temperature and not self.top_p:
            raise InputError("no-temperature and no-top-p leave nothing to train; drop one of the two")


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each field of TrainingArguments, with its help and default."""
    for item in fields(TrainingArguments):
        flag, help = f"--{item.name.replace('_', '-')}", f"{item.metadata['help']} (default: %(default)s)"
        if isinstance(item.default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=item.default, help=help)
        else:
            parser.add_argument(
                flag,
                type=type(item.default),
                default=item.default,
                metavar="DEVICE" if item.name == "device" else "N",
                help=help,
            )


def training_arguments(args: argparse.Namespace) -> TrainingArguments:
    """Return the TrainingArguments that ``args`` holds."""
    return TrainingArguments(**{item.name: getattr(args, item.name) for item in fields(TrainingArguments)})
