"""The bytes of tokens, whole whatever their length."""

import ctypes

import llama_cpp
from llama_cpp.llama_tokenizer import LlamaTokenizer

from autodeco.errors import InputError

USUAL = 32  # bytes of a token's text; llama-cpp-python has room for no more, and drops the texts that are longer


class TokenBytes:
    """The text of each token of a vocabulary, bytes; ``special``: of special tokens too, which else have none.

    Raises InputError for a token that the vocabulary does not have.
    """

    def __init__(self, model: "llama_cpp.llama_model_p", special: bool):
        self._vocab = llama_cpp.llama_model_get_vocab(model)
        self._size = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self._special = special
        self._bytes: dict[int, bytes] = {}
        self._is_end: dict[int, bool] = {}

    def __getitem__(self, token: int) -> bytes:
        found = self._bytes.get(token)
        if found is None:
            if not 0 <= token < self._size:
                raise InputError(f"token {token} is outside the vocabulary of {self._size}")
            found = self._bytes[token] = self._read(token, USUAL)
        return found

    def is_end(self, token: int) -> bool:
        """Whether ``token`` ends an answer."""
        found = self._is_end.get(token)
        if found is None:
            found = self._is_end[token] = llama_cpp.llama_vocab_is_eog(self._vocab, token)
        return found

    def _read(self, token: int, room: int) -> bytes:
        buffer = (ctypes.c_char * room)()
        length = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, room, 0, self._special)
        return bytes(buffer[:length]) if length >= 0 else self._read(token, -length)


class WholeTokenizer(LlamaTokenizer):
    """The tokenizer of ``llama_cpp.Llama``, with tokens of any length in its texts."""

    def __init__(self, llm: llama_cpp.Llama):
        super().__init__(llm)
        self._path = llm.model_path
        self._bytes: dict[bool, TokenBytes] = {}

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = True) -> list[int]:
        self._check_open()
        return super().tokenize(text, add_bos, special)

    def detokenize(self, tokens: list[int], prev_tokens: list[int] | None = None, special: bool = False) -> bytes:
        self._check_open()
        special = bool(special)
        if special not in self._bytes:
            self._bytes[special] = TokenBytes(self._model.model, special)
        pieces = self._bytes[special]
        text = b"".join(pieces[int(token)] for token in tokens)
        # as llama-cpp-python: the space that a text begins with in some vocabularies belongs to none
        begins = len(tokens) > 0 and tokens[0] == self._model.token_bos() and text[:1] == b" "
        return text[1:] if begins else text

    def _check_open(self) -> None:
        if self._model.model is None:
            raise InputError(f"{self._path}: was closed; open it again")
