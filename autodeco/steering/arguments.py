"""Settings of learning to follow commands, and of measuring whether they are followed."""

from dataclasses import dataclass

from autodeco.data.control_prompts import HELD_OUT_PROMPTS, TRAINING_PROMPTS
from autodeco.settings.options import Options, option


@dataclass(frozen=True)
class SteeringArguments(Options):
    """How a control head learns what prompts ask for."""

    prompts: int = option(TRAINING_PROMPTS, "to learn from", least=10, most=TRAINING_PROMPTS)
    wordings: int = option(12, "of each direction, for a prompt", least=1)
    degrees: int = option(8, "of the scale from 0 to 10, for a prompt", least=0, most=11)
    neutral: int = option(6, "sentences that ask for nothing of the kind, for a prompt", least=1)
    quoted: int = option(5, "documents that only quote a command, for a prompt", least=1)
    max_tokens: int = option(64, "of an answer that is measured", least=1)
    epochs: int = option(25, "passes over the prompts", least=1)
    batch_prompts: int = option(32, "prompts of an update, in all their readings", least=1)
    learning_rate: float = option(0.002, "of AdamW, at the first update; it falls to 0 as a cosine", least=0.0)
    weight_decay: float = option(2.0, "of AdamW", least=0.0, flag=False)
    whitening: float = option(0.3, "variance below which directions of states weigh less", least=1e-6, flag=False)
    dropout: float = option(0.2, "share of what is seen of a state that an update leaves out", least=0.0, most=0.9)
    ranking: float = option(0.3, "weight of the order of a prompt's readings", least=0.0)
    margin: float = option(1.5, "of one level in the ranking, in the argument of a sigmoid", least=0.01, flag=False)
    hold: float = option(8.0, "weight of readings without a command, whose level is to be 0", least=0.0)
    gain: float = option(2.0, "of what is read, in the argument of a sigmoid", least=0.01, flag=False)
    graded: float = option(4.0, "weight of the degrees of the scale", least=0.0, flag=False)
    moved: float = option(0.2, "share of prompts without a command that are steered at all", least=0.0, most=1.0)
    low_factor: float = option(0.1, "times temperature, where certainty is asked for", least=0.0, most=1.0)
    low_top_p_factor: float = option(0.5, "times top-p, where certainty is asked for", least=0.0, most=1.0)
    high_temperature: float = option(1.0, "where diversity is asked for", least=0.01, most=1.9)
    high_top_p: float = option(0.998, "where diversity is asked for", least=0.01, most=0.999)
    validate: bool = option(False, "train without a fifth of prompts and wordings, and measure with these alone")
    seed: int = option(0, "of prompts, wordings, answers and updates", least=0)


@dataclass(frozen=True)
class MeasuringArguments(Options):
    """How much is measured."""

    held_out_prompts: int = option(HELD_OUT_PROMPTS, "prompts that no training sees", least=2, most=HELD_OUT_PROMPTS)
    answers: int = option(4, "to each behind each command, for diversity; the first one says what is followed", least=1)
    scale: bool = option(True, "measure every degree from 0 to 10")
    sums: int = option(300, "sums, for what a command to be certain costs", least=0)
    sum_answers: int = option(4, "to each sum", least=1)
