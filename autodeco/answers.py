"""Answers of a model: a text, why it ended, and the values that its tokens were drawn with; and one as a stream.

Many answers at once come from ``autodeco.batch``.
"""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import llama_cpp

from autodeco.decoding import Decoding
from autodeco.llama import Llama


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


def stream(llm: Llama, prompt: list[int], max_tokens: int, seed: int, **settings) -> Iterator[tuple[int, str]]:
    """Yield (token id, text) while the model answers ``prompt`` (token ids); the end-of-generation token comes last,
    with empty text. A character spread over several tokens comes with the last of them. ``settings`` are those of
    ``Llama.generate``."""
    vocab = llama_cpp.llama_model_get_vocab(llm.model)
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    llm.set_seed(seed)
    generator = llm.generate(prompt, **settings)
    room = llm.n_ctx() - len(prompt)
    try:
        for _, token in zip(range(min(max_tokens, room)), generator):  # noqa: B905 - the generator has no end
            end = llama_cpp.llama_vocab_is_eog(vocab, token)
            yield token, "" if end else decoder.decode(llm.detokenize([token], special=True))
            if end:
                return
    finally:
        generator.close()
