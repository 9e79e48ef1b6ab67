"""Answers of a model: one prompt in, tokens with their values out.

Everything that needs a model's answers (the demo, rollouts, evaluation) asks for them here.
"""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass

import llama_cpp

from autodeco.decoding import Decoding
from autodeco.llama import Llama


@dataclass(frozen=True)
class Answer:
    """A generated text; ``finished`` says whether the model ended it by itself within the limit of tokens."""

    text: str
    finished: bool
    decoding: Decoding


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


def answer(llm: Llama, prompt: list[int], max_tokens: int, seed: int, **settings) -> Answer:
    """Return the model's whole answer to ``prompt`` (token ids); ``settings`` are those of ``Llama.generate``."""
    vocab = llama_cpp.llama_model_get_vocab(llm.model)
    text, finished = [], False
    for token, piece in stream(llm, prompt, max_tokens, seed, **settings):
        text.append(piece)
        finished = bool(llama_cpp.llama_vocab_is_eog(vocab, token))
    return Answer("".join(text), finished, llm.decoding)
