"""The settings of running a Hugging Face model as a source of training."""

from dataclasses import dataclass

from autodeco.settings.options import check_options, option


@dataclass(frozen=True)
class HuggingFaceSettings:
    """How the model is run."""

    pack_tokens: int = option(2048, "tokens in a row of packed sequences, whose logits are in memory at once", least=2)
    dtype: str = option("bfloat16", "of the frozen model", choices=("bfloat16", "float16", "float32"))

    control_commands: str = option("", "JSON file of the commands of --control; empty for a set of our own")

    def __post_init__(self):
        check_options(self)
