"""Answers of a model: a text, why it ended, and the values that its tokens were sampled with."""

from dataclasses import dataclass
from typing import Literal

from autodeco.base.token_bytes import TokenBytes
from autodeco.batch.request import Request
from autodeco.llama.answer_text import AnswerText
from autodeco.llama.decoding import Decoding

Finish = Literal["end", "stop", "length"]


@dataclass(frozen=True)
class Answer:
    """A generated text, and the values that each of its tokens was sampled with.

    ``finish`` is "end" (the model ended the answer; its end-of-generation token is the last of ``decoding``), "stop" (a
    stop string came, and is cut off) or "length". ``prompt`` and ``sample`` are its indices among the prompts and the
    samples of one.
    """

    text: str
    finish: Finish
    decoding: Decoding
    prompt: int = 0
    sample: int = 0
    seed: int = 0

    @property
    def finished(self) -> bool:
        """Whether the answer came to its end within the limit of tokens."""
        return self.finish != "length"


class PartialAnswer:
    """An answer in the making."""

    def __init__(self, request: Request, token_bytes: TokenBytes):
        self.request = request
        self.last = request.prompt[-1]
        self._token_bytes = token_bytes
        self._text = AnswerText(request.stop)
        self._rows: list[tuple] = []

    def add(self, row: tuple) -> Finish | None:
        """Add a token; return why the answer is finished, None if it is not."""
        self.last = row[0]
        self._rows.append(row)
        if self._token_bytes.is_end(row[0]):
            return "end"
        self._text.add(self._token_bytes[row[0]])
        if self._text.stopped:
            return "stop"
        return "length" if len(self._rows) == self.request.max_tokens else None

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(row[0] for row in self._rows)

    def answer(self, finish: Finish) -> Answer:
        request, decoding = self.request, Decoding.from_rows(self._rows)
        return Answer(str(self._text), finish, decoding, request.index, request.sample, request.seed)
