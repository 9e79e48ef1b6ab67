"""An answer of a model: a text, why it ended, and the values that its tokens were drawn with."""

from dataclasses import dataclass
from typing import Literal

from autodeco.llama.decoding import Decoding


@dataclass(frozen=True)
class Answer:
    """A generated text, and the values that each of its tokens was drawn with.

    ``finish`` is "end" (the model ended the answer; its end-of-generation token is the last of ``decoding``), "stop" (a
    stop string came, and is cut off) or "length". ``prompt`` and ``sample`` are its indices among what was asked for.
    """

    text: str
    finish: Literal["end", "stop", "length"]
    decoding: Decoding
    prompt: int = 0
    sample: int = 0
    seed: int = 0

    @property
    def finished(self) -> bool:
        """Whether the answer came to its end within the limit of tokens."""
        return self.finish != "length"
