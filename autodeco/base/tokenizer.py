"""Records and prompts as token ids of a GGUF model."""

import llama_cpp

from autodeco.base.chat_template import Renderer
from autodeco.base.token_bytes import TokenBytes
from autodeco.data.messages import Messages, Tools
from autodeco.data.tokenizing import RecordTokenizer


class Tokenizer(RecordTokenizer):
    """The vocabulary and chat template of a GGUF model, as llama_cpp uses them for generating."""

    def __init__(self, llm: llama_cpp.Llama, append_end: bool = True):
        self._llm = llm
        self._vocab = llama_cpp.llama_model_get_vocab(llm.model)
        self._token_bytes = TokenBytes(llm.model, special=True)
        self.append_end = append_end
        source = llm.metadata.get("tokenizer.chat_template")
        self._renderer = Renderer(source, self._text(llm.token_bos()), self._text(llm.token_eos()))

    def _ids(self, text: str, add_bos: bool) -> list[int]:
        ids = self._llm.tokenize(text.encode("utf-8", "surrogatepass"), add_bos=False, special=True) if text else []
        bos = self._llm.token_bos()
        wants_bos = add_bos and bos != -1 and llama_cpp.llama_vocab_get_add_bos(self._vocab)
        return [bos, *ids] if wants_bos else ids

    def _spelled(self, ids: list[int]) -> str | None:
        if any(token >= self._llm.n_vocab() for token in ids):
            return None
        return b"".join(self._token_bytes[token] for token in ids).decode("utf-8", "replace")

    def _is_end(self, token: int) -> bool:
        return token < self._llm.n_vocab() and llama_cpp.llama_vocab_is_eog(self._vocab, token)

    def _eos(self) -> int | None:
        eos = self._llm.token_eos()
        return None if eos == -1 else eos

    def _render(self, messages: Messages, add_generation_prompt: bool, tools: Tools | None = None) -> str:
        return self._renderer(messages, add_generation_prompt, tools)

    def _text(self, token: int) -> str:
        return "" if token == -1 else llama_cpp.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace")
