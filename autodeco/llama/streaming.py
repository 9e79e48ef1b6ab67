"""An answer as a stream of tokens. Many answers at once come from ``autodeco.batch``."""

import codecs
from collections.abc import Iterator

from autodeco.base.token_bytes import TokenBytes
from autodeco.llama.llama import Llama


def stream(llm: Llama, prompt: list[int], max_tokens: int, seed: int, **settings) -> Iterator[tuple[int, str]]:
    """Yield (token id, text) while the model answers ``prompt`` (token ids).

    The end-of-generation token comes last, with empty text. A character spread over several tokens comes with the last
    of them. ``settings`` are those of ``Llama.generate``.
    """
    pieces = TokenBytes(llm.model, special=True)
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    llm.set_seed(seed)
    generator = llm.generate(prompt, **settings)
    room = llm.n_ctx() - len(prompt)
    try:
        for _, token in zip(range(min(max_tokens, room)), generator):  # noqa: B905 - the generator has no end
            end = pieces.is_end(token)
            yield token, "" if end else decoder.decode(pieces[token])
            if end:
                return
    finally:
        generator.close()
