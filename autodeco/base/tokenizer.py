"""Records and prompts as token ids of a GGUF model."""

import llama_cpp
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from autodeco.data.tokenizing import RecordTokenizer
from autodeco.errors import InputError


class Tokenizer(RecordTokenizer):
    """The vocabulary and chat template of a GGUF model, as llama_cpp uses them for generating."""

    def __init__(self, llm: llama_cpp.Llama, append_end: bool = True):
        self._llm = llm
        self._vocab = llama_cpp.llama_model_get_vocab(llm.model)
        self.append_end = append_end
        self._template = llm.metadata.get("tokenizer.chat_template")
        self._formatters: dict[bool, Jinja2ChatFormatter] = {}

    def _ids(self, text: str, add_bos: bool) -> list[int]:
        ids = self._llm.tokenize(text.encode("utf-8", "surrogatepass"), add_bos=False, special=True) if text else []
        bos = self._llm.token_bos()
        wants_bos = add_bos and bos != -1 and llama_cpp.llama_vocab_get_add_bos(self._vocab)
        return [bos, *ids] if wants_bos else ids

    def _is_end(self, token: int) -> bool:
        return llama_cpp.llama_vocab_is_eog(self._vocab, token)

    def _eos(self) -> int | None:
        eos = self._llm.token_eos()
        return None if eos == -1 else eos

    def _render(self, messages: list[dict], add_generation_prompt: bool) -> str:
        if self._template is None:
            raise InputError("the model has no chat template; use prompt and completion as text instead of messages")
        try:
            if add_generation_prompt not in self._formatters:
                self._formatters[add_generation_prompt] = Jinja2ChatFormatter(
                    self._template,
                    eos_token=self._text(self._llm.token_eos()),
                    bos_token=self._text(self._llm.token_bos()),
                    add_generation_prompt=add_generation_prompt,
                )
            return self._formatters[add_generation_prompt](messages=messages).prompt
        except Exception as error:  # a template is a program: jinja2 errors, and whatever raise_exception was given
            raise InputError(f"the model's chat template refuses the messages ({error})") from None

    def _text(self, token: int) -> str:
        return "" if token == -1 else llama_cpp.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace")
