"""A frozen Hugging Face model with its tokenizer: from a folder, from a name on the hub, or out of a GGUF file."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from autodeco.base.chat_template import Renderer
from autodeco.base.identity import ModelIdentity, model_fingerprint
from autodeco.data.messages import Messages, Tools
from autodeco.data.tokenizing import RecordTokenizer
from autodeco.errors import InputError
from autodeco.export.language_models import EMBEDDING
from autodeco.reports.token_texts import UNKNOWN, texts_by_decoding


class HuggingFaceTokenizer(RecordTokenizer):
    """The vocabulary and chat template of a Hugging Face tokenizer; ``ends`` are the tokens that end an answer: those
    that the model names, and the one with which its template ends a turn."""

    def __init__(self, tokenizer, ends: set[int]):
        self._tokenizer, self.ends = tokenizer, ends
        # not by transformers' own way, which drops a content that is null: the text is that of llama.cpp's users
        source = tokenizer.get_chat_template() if tokenizer.chat_template else None
        self._renderer = Renderer(source, tokenizer.bos_token or "", tokenizer.eos_token or "")
        self._adds_bos = tokenizer.bos_token_id is not None and tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
        self.ends = ends | self._turn_end()

    def text(self, tokens: list[int]) -> str:
        """Return the text of ``tokens``, special ones written out."""
        return self._tokenizer.decode(tokens, clean_up_tokenization_spaces=False)

    def answer_text(self, tokens: list[int]) -> str:
        """Return the text of an answer, without its end and a letter that it ends inside."""
        if tokens[-1] in self.ends:
            return self.text(tokens[:-1])
        text = self.text(tokens)
        return "".join(self.token_texts(tokens)) if text.endswith(UNKNOWN) else text

    def token_texts(self, tokens: Sequence[int]) -> list[str]:
        """Return the text of each of ``tokens`` that follow each other, as ``texts_by_decoding``."""
        return texts_by_decoding(tokens, self.text)

    def _turn_end(self) -> set[int]:
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        try:
            ending = self._render(turns, add_generation_prompt=False).rpartition("b")[2]
        except InputError:
            return set()
        special = set(self._tokenizer.all_special_ids)
        return set([token for token in self._ids(ending, add_bos=False) if token in special][:1])

    def _ids(self, text: str, add_bos: bool) -> list[int]:
        ids = self._tokenizer(text, add_special_tokens=False).input_ids if text else []
        return [self._tokenizer.bos_token_id, *ids] if add_bos and self._adds_bos else ids

    def _spelled(self, ids: list[int]) -> str | None:
        if any(token >= len(self._tokenizer) for token in ids):
            return None
        before = self._ids("a", add_bos=False)  # some decoders drop the space that a text begins with
        return self.text([*before, *ids]).removeprefix(self.text(before))

    def _is_end(self, token: int) -> bool:
        return token in self.ends

    def _eos(self) -> int | None:
        return self._tokenizer.eos_token_id

    def _render(self, messages: Messages, add_generation_prompt: bool, tools: Tools | None = None) -> str:
        return self._renderer(messages, add_generation_prompt, tools)


class HuggingFaceModel:
    """The model at ``path`` with weights of ``dtype``, frozen; a ``.gguf`` is dequantized by transformers.

    ``empty``: without weights, which another process has. The hidden state is by definition the input of the output
    matrix, so ``hidden`` is its last input. Raises InputError for a model that transformers cannot load.
    """

    def __init__(self, path: str | os.PathLike, dtype: str, empty: bool = False):
        from transformers import MODEL_FOR_MASKED_LM_MAPPING, AutoTokenizer

        gguf = Path(path).suffix == ".gguf"
        where = {"gguf_file": Path(path).name} if gguf else {}
        folder = str(Path(path).parent if gguf else path)
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, **where)
            model = (_empty_model if empty else _whole_model)(folder, getattr(torch, dtype), where)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise InputError(f"{path}: transformers cannot load it ({error})") from None
        if type(model.config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(model.config, "is_decoder", False):
            raise InputError(
                f"{path}: is {EMBEDDING} ({model.config.model_type}), whose states know the tokens behind them; heads "
                "need a language model that writes one token after the other"
            )
        self.network = model.eval().requires_grad_(False)
        output = model.get_output_embeddings()
        vocab, hidden = output.weight.shape
        if len(tokenizer) > vocab:
            raise InputError(f"{path}: its tokenizer has {len(tokenizer)} tokens, its output matrix {vocab} rows")
        ends = model.generation_config.eos_token_id
        ends = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id} - {None}
        self.tokenizer = HuggingFaceTokenizer(tokenizer, ends)
        first = b"" if empty else output.weight[:256].float().cpu().numpy().tobytes()
        digest = hashlib.sha256(model.config.to_json_string().encode() + first).hexdigest()
        name, fingerprint = (Path(path).stem, model_fingerprint(path)) if gguf else (Path(path).name, digest)
        self.identity = ModelIdentity(str(path), fingerprint, model.config.model_type, name, hidden, vocab)
        self.hidden: Tensor | None = None
        output.register_forward_pre_hook(self._keep)

    def _keep(self, module, inputs) -> None:
        self.hidden = inputs[0]


def _whole_model(folder: str, dtype: torch.dtype, where: dict[str, str]):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **where)


def _empty_model(folder: str, dtype: torch.dtype, where: dict[str, str]):
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    with init_empty_weights():  # not of buffers: they come with no file
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, **where), dtype=dtype)
    model.tie_weights()  # which emptying has untied
    return model
