"""Chats of ``autodeco.Llama``: the text of messages is that which heads are trained behind."""

import llama_cpp
from llama_cpp.llama_chat_format import ChatFormatterResponse, Jinja2ChatFormatter

from autodeco.base.chat_template import ChatTemplate, fitting
from autodeco.data.messages import Messages

TEMPLATE = "tokenizer.chat_template"


class OwnTemplate(Jinja2ChatFormatter):
    """A chat template as ``create_chat_completion`` applies it, for messages too that few templates are written for."""

    def __init__(self, source: str, **settings):
        super().__init__("", **settings)
        self.template = source
        self._environment = ChatTemplate(source)  # that of training, which nothing else may write otherwise

    def __call__(self, *, messages: Messages, **settings) -> ChatFormatterResponse:
        stock = super().__call__

        def text(messages: Messages) -> str:
            return stock(messages=messages, **settings).prompt

        return stock(messages=fitting(messages, text), **settings)


def use_own_templates(llm: llama_cpp.Llama, chat_format: str | None) -> None:
    """Let the templates in the model's file write chats, by ``OwnTemplate``; ``chat_format`` is what the caller chose.

    llama-cpp-python takes formats of its own for some templates that it knows, which write other text and no tools.
    """
    bos, eos = (token if token != -1 else None for token in (llm.token_bos(), llm.token_eos()))
    texts = {
        name: llm._model.token_get_text(token) if token is not None else ""
        for name, token in (("eos_token", eos), ("bos_token", bos))
    }
    for name, source in llm.metadata.items():
        if name == TEMPLATE or name.startswith(f"{TEMPLATE}."):
            known_as = "chat_template.default" if name == TEMPLATE else name.removeprefix("tokenizer.")
            template = OwnTemplate(source, **texts, stop_token_ids=[-1 if eos is None else eos])
            llm._chat_handlers[known_as] = template.to_chat_handler()
    if chat_format is None and llm.chat_handler is None and TEMPLATE in llm.metadata:
        llm.chat_format = "chat_template.default"
