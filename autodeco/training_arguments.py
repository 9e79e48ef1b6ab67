"""The settings of training, each declared once: its default, its help and the values that make sense."""

import argparse
from dataclasses import Field, dataclass, field, fields
from typing import Any

from autodeco.errors import InputError


def _option(default, help: str, least=None, most=None, choices=None) -> Field:
    return field(default=default, metadata={"help": help, "least": least, "most": most, "choices": choices})


def check_options(options) -> None:
    """Raise InputError for a field of the dataclass ``options`` whose value has the wrong type or makes no sense."""
    for item in fields(options):
        value, metadata = getattr(options, item.name), item.metadata
        name, kind = item.name.replace("_", "-"), type(item.default)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not kind:
            raise InputError(f"{name} {value!r}: must be {_KINDS[kind]}")
        if metadata["choices"] and value not in metadata["choices"]:
            raise InputError(f"{name} {value}: must be one of {', '.join(metadata['choices'])}")
        least, most = metadata["least"], metadata["most"]
        # `not >=` and `not <=`, so that NaN is refused too
        if (least is not None and not value >= least) or (most is not None and not value <= most):
            limits = f"at least {least}" if most is None else f"between {least} and {most}"
            raise InputError(f"{name} {value}: must be {limits}")


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True)
class TrainingArguments:
    """How heads are trained; the defaults are for minutes on a CPU; docs/training.md sets them beside the paper's."""

    steps: int = _option(400, "updates of the heads", least=1)
    batch_tokens: int = _option(128, "tokens in an update", least=1)
    learning_rate: float = _option(
        5e-4, "at its highest; the paper uses 5e-6, with far more tokens an update", least=0.0
    )
    warmup_steps: int = _option(20, "updates in which the learning rate rises, before it follows the schedule", least=0)
    schedule: str = _option(
        "cosine", "how the learning rate falls to 0, or constant", choices=("cosine", "linear", "constant")
    )
    weight_decay: float = _option(0.0, "of AdamW", least=0.0)
    gradient_clip: float = _option(1.0, "largest norm of the gradient; 0 for none", least=0.0)
    ema: float = _option(
        0.0, "decay of an exponential average of the heads, which is then measured and kept; 0 for none", 0.0, 0.99999
    )
    easy_token_drop: float = _option(
        0.6, "share of tokens left out of the temperature loss where the model is already right", least=0.0, most=1.0
    )
    fine_tuning_weight: bool = _option(True, "weigh each token with the probability that the model gives it")
    validation_share: float = _option(0.1, "share of the records held out", least=0.0, most=0.9)
    validation_tokens: int = _option(1024, "at most this many held-out tokens are measured", least=1)
    evaluate_every: int = _option(50, "updates between measurements on the held-out records", least=1)
    prob_stats: bool = _option(True, "give the top-p head the four statistics of the distribution")
    temperature: bool = _option(True, "train a temperature head")
    top_p: bool = _option(True, "train a top-p head")
    seed: int = _option(0, "of the first weights, the split, the order of the tokens and the dropping", least=0)
    device: str = _option("cpu", "where to train: cpu, cuda, cuda:1, ...")
    tracker: str = _option("none", "where to send every update's figures", choices=("none", "tensorboard", "wandb"))

    def __post_init__(self):
        check_options(self)
        kind, _, index = self.device.partition(":")
        if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
            raise InputError(f"device {self.device}: must be cpu, cuda or cuda:N")
        if not self.temperature and not self.top_p:
            raise InputError("no-temperature and no-top-p leave nothing to train; drop one of the two")


def add_options(parser: argparse.ArgumentParser, options: type) -> None:
    """Add a flag for each field of the dataclass ``options``, with its help; what is not given is not in the result."""
    for item in fields(options):
        flag, default = f"--{item.name.replace('_', '-')}", item.default
        help = f"{item.metadata['help']} (default: {default})"
        if isinstance(default, bool):
            shown = "yes" if default else "no"
            help = f"{item.metadata['help']} (default: {shown})"
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=help)
        else:
            metavar = "N" if type(default) in (int, float) else item.name.upper().replace("_", "-")
            parser.add_argument(
                flag,
                type=type(default),
                default=argparse.SUPPRESS,
                help=help,
                **({"choices": item.metadata["choices"]} if item.metadata["choices"] else {"metavar": metavar}),
            )


def chosen_options(options: type, values: dict[str, Any]) -> Any:
    """Return the dataclass ``options`` with those of its fields that ``values`` holds."""
    return options(**{item.name: values[item.name] for item in fields(options) if item.name in values})
