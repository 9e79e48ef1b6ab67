"""Settings of learning to follow commands, and of measuring whether they are followed."""

from dataclasses import dataclass

from autodeco.data.control_prompts import HELD_OUT_PROMPTS, TRAINING_PROMPTS
from autodeco.settings.options import Options, option


@dataclass(frozen=True)
class SteeringArguments(Options):
    """How heads learn to follow commands."""

    rounds: int = option(10, "times that answers are drawn and learned from", least=1)
    continued: bool = option(True, "a round goes on from the heads of the round before, and does not begin anew")
    prompts: int = option(300, "prompts of a round", least=2, most=TRAINING_PROMPTS)
    wordings: int = option(6, "of each direction, for a prompt of a round", least=1)
    degrees: int = option(5, "of the scale from 0 to 10, for a prompt of a round", least=0, most=11)
    neutral: int = option(2, "sentences that ask for nothing of the kind, for a prompt of a round", least=0)
    quoted: int = option(4, "documents that only quote a command, for a prompt of a round", least=0)
    max_tokens: int = option(64, "of an answer", least=1)
    epochs: int = option(3, "passes over the answers of a round, for each head", least=1)
    batch_prompts: int = option(8, "prompts of an update, with all their answers", least=1)
    learning_rate: float = option(
        0.001, "of AdamW, at the first update of a round; it falls to 0 as a cosine", least=0.0
    )
    weight_decay: float = option(0.0, "of AdamW", least=0.0, flag=False)
    distance: float = option(1.0, "weight of tokens' distance from the level that is asked for", least=0.0, flag=False)
    hold: float = option(1.0, "weight of answers without a command, at which heads stay as they were", least=0.0)
    ranking: float = option(3.0, "weight of answers' means: their ranking, and their hold", least=0.0)
    margin: float = option(1.5, "of one level in the ranking, in the argument of a sigmoid", least=0.01, flag=False)
    ridge: float = option(0.3, "of the regression that learning begins with", least=0.0, flag=False)
    presence: bool = option(
        False, "learning begins with whether there is a command as well, not its level alone", flag=False
    )
    units: int = option(
        0, "of a head's 256 that read commands; the others stay. 0: all learn", least=0, most=256, flag=False
    )
    temperature_gain: float = option(
        4.0, "of what is read of a command, in the argument of T's sigmoid", least=0.0, flag=False
    )
    top_p_gain: float = option(
        2.0, "of what is read of a command, in the argument of P's sigmoid", least=0.0, flag=False
    )
    calibrate: bool = option(True, "end with a bias that keeps the means of texts without a command", flag=False)
    low_factor: float = option(0.1, "times temperature, where certainty is asked for", least=0.0, most=1.0)
    low_top_p_factor: float = option(0.5, "times top-p, where certainty is asked for", least=0.0, most=1.0)
    high_temperature: float = option(1.2, "where diversity is asked for", least=0.0, most=1.9)
    high_top_p: float = option(0.998, "where diversity is asked for", least=0.0, most=0.999)
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
