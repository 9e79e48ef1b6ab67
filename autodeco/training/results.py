"""The results of a measurement of heads and of a run."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Evaluation:
    """Means over held-out tokens: losses in nats, and the values the heads predict."""

    loss: float  # what training minimises: the next two, easy tokens at the weight that dropping leaves them
    temperature_loss: float  # of all tokens, none dropped
    top_p_loss: float
    temperature: float
    temperature_deviation: float
    top_p: float
    top_p_deviation: float


@dataclass(frozen=True)
class ControlEvaluation(Evaluation):
    """Also how far commands order what is predicted for held-out prompts.

    Shares of the prompts whose mean over the answer moves the right way, away from that without a command.
    """

    ranking_loss: float  # of training wordings; part of ``loss``
    low_temperature_share: float  # after training wordings
    low_top_p_share: float
    high_temperature_share: float
    high_top_p_share: float
    low_temperature_new_wording_share: float  # after held-out ones
    low_top_p_new_wording_share: float
    high_temperature_new_wording_share: float
    high_top_p_new_wording_share: float


@dataclass
class TrainingResult:
    """What a run did. ``steps`` is how far it got; the heads in ``directory`` are those of ``best_step``."""

    directory: str
    before: Any  # what each measurement gives, an Evaluation
    after: Any  # of the heads kept
    best_step: int
    steps: int
    interrupted: int  # the signal that ended the run, 0 for none
    training_size: int
    validation_size: int
    unit: str  # of the sizes: tokens or problems
    seconds: float
    tokens_per_second: float
    history: list[dict] = field(default_factory=list)
    quiet: bool = False  # another process shows it
    verdict: str = ""  # what held-out problems say of the heads, where that was measured
    given_up: int = 0  # answers whose scoring took too long or too much memory
