"""The losses and their exact derivatives, a backend a file."""

from autodeco.losses.exact import token_losses
from autodeco.losses.plain import (
    EASY_TOKEN_DROP,
    IGNORED,
    MINIMUM_TEMPERATURE,
    NUCLEUS_EPSILON,
    STEEPNESS,
    easy_token_mask,
    label_weight,
    masked_mean,
    soft_top_p_loss,
    temperature_loss,
)

__all__ = [
    "EASY_TOKEN_DROP",
    "IGNORED",
    "MINIMUM_TEMPERATURE",
    "NUCLEUS_EPSILON",
    "STEEPNESS",
    "easy_token_mask",
    "label_weight",
    "masked_mean",
    "soft_top_p_loss",
    "temperature_loss",
    "token_losses",
]
