"""The training loop on likelihood, its state and report, and the sources of its tokens."""

from typing import TYPE_CHECKING

from autodeco.training.arguments import TrainingArguments

if TYPE_CHECKING:
    from autodeco.training.loop import train, train_from

__all__ = ["TrainingArguments", "train", "train_from"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module 'autodeco.training' has no attribute '{name}'")
    from autodeco.training import loop  # torch, which the arguments do without

    return getattr(loop, name)
