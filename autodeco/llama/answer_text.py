"""The text of an answer while its tokens come, in time that does not depend on how much there is already."""

import codecs
from collections.abc import Iterable, Sequence

import llama_cpp

from autodeco.base.token_bytes import TokenBytes, WholeTokenizer
from autodeco.reports.token_texts import LETTER, UNKNOWN

SEEN = 16  # tokens before, which a tokenizer of the user's own may look at


class AnswerText:
    """Whole letters, and nothing of the stop string that begins first.

    A letter that is not finished when the answer ends is dropped; bytes that are no UTF-8 become U+FFFD. The end of the
    text that may be the beginning of a stop string is held back until that is certain.
    """

    def __init__(self, stops: Iterable[str]):
        self._stops = tuple(stops)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._certain: list[str] = []
        self._held = ""
        self.last = ""  # what the last token added, be it held back or cut off
        self.stopped = False

    def add(self, piece: bytes) -> str:
        """Take the bytes of a token; return what is certain now, and was not before. The text may have ``stopped``."""
        self.last = self._decoder.decode(piece)
        if not self._stops:
            return self._release(self.last, "")
        text = self._held + self.last
        cuts = [text.find(stop) for stop in self._stops]
        if cuts := [cut for cut in cuts if cut >= 0]:
            self.stopped = True
            return self._release(text[: min(cuts)], "")
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        return self._release(text[: len(text) - held], text[len(text) - held :])

    def finish(self) -> str:
        """End the answer; return what was held back."""
        return self._release(self._held, "")

    def _release(self, text: str, held: str) -> str:
        self._held = held
        if text:
            self._certain.append(text)
        return text

    def __str__(self) -> str:
        return "".join(self._certain) + self._held


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of ``text`` that ``stop`` begins with."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


class TokenTexts:
    """The bytes of a model's tokens, behind those of a prompt, as its tokenizer gives them."""

    def __init__(self, llm: llama_cpp.Llama, prompt: Sequence[int]):
        self._llm = llm
        own = type(llm.tokenizer_) is WholeTokenizer
        self._pieces = TokenBytes(llm.model, special=False) if own else None
        self._before, self._held = list(prompt[-SEEN:]), []

    def of(self, token: int) -> bytes:
        """The bytes that ``token`` adds, the next of the answer."""
        if self._pieces is not None:
            return self._pieces[token]
        self._held.append(token)  # the tokenizer may know letters only, which may be spread over several tokens
        piece = self._llm.detokenize(self._held, prev_tokens=self._before)
        if piece.endswith(UNKNOWN.encode()) and len(self._held) < LETTER:
            return b""
        self._before, self._held = [*self._before, *self._held][-SEEN:], []
        return piece
