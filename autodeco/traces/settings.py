"""The settings of collecting."""

from dataclasses import dataclass

from autodeco.settings.limits import DEFAULT_CONTEXT
from autodeco.settings.options import Options, option


@dataclass(frozen=True)
class CollectSettings(Options):
    """Everything that decides what the traces hold, beside model and data."""

    context: int = option(DEFAULT_CONTEXT, "tokens of prompt and completion; not more than the model has", least=2)
    append_end: bool = option(True, "end plain completions with the model's end-of-text token")
    shard_tokens: int = option(4096, "states in a file; an interruption loses at most one", least=2)
    control: bool = option(False, "read each answer behind commands too, for `autodeco train --control`")
    validation_share: float = option(
        0.1, "with --control: share of the prompts held out, and given held-out wordings too", least=0.0, most=0.9
    )
    seed: int = option(0, "of the choice of checked positions, wordings and held-out records", least=0)
