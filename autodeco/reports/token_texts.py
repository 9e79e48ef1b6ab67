"""The text of each of several tokens that follow each other; a letter may be spread over them."""

import codecs
from collections.abc import Callable, Iterable, Sequence

LETTER = 4  # bytes of UTF-8, and therefore tokens, at most
UNKNOWN = "\N{REPLACEMENT CHARACTER}"


def texts_of(pieces: Iterable[bytes]) -> list[str]:
    """Return the text of each of ``pieces``, the bytes of the tokens.

    A letter that is spread over several comes with the last of them. Bytes that are no UTF-8 become U+FFFD, and the
    beginning of a letter that the last token leaves unfinished is dropped.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    return [decoder.decode(piece) for piece in pieces]


def texts_by_decoding(tokens: Sequence[int], decode: Callable[[list[int]], str]) -> list[str]:
    """Return the same of a tokenizer that gives only the text of several tokens together, ``decode``."""
    texts, before, held = [], [], []
    for token in tokens:
        held.append(int(token))
        text = decode(before + held)
        unfinished = text.endswith(UNKNOWN)  # or the tokens mean this very letter
        if unfinished and len(held) < LETTER:
            texts.append("")
            continue
        texts.append(text[len(decode(before)) if before else 0 :])
        before, held = before + held if unfinished else held, []
    return texts
