"""Chats of ``autodeco.Llama``: the text of messages is that which heads are trained behind."""

import llama_cpp

from autodeco.base.chat_template import ChatTemplate

TEMPLATE = "tokenizer.chat_template"


def use_own_templates(llm: llama_cpp.Llama, chat_format: str | None) -> None:
    """Let the templates in the model's file write chats, by ``ChatTemplate``; ``chat_format`` is what the caller chose.

    llama-cpp-python takes formats of its own for some templates that it knows, which write other text and no tools.
    """
    bos, eos = (token if token != -1 else None for token in (llm.token_bos(), llm.token_eos()))
    texts = [llm._model.token_get_text(token) if token is not None else "" for token in (eos, bos)]
    for name, source in llm.metadata.items():
        if name == TEMPLATE or name.startswith(f"{TEMPLATE}."):
            known_as = "chat_template.default" if name == TEMPLATE else name.removeprefix("tokenizer.")
            template = ChatTemplate(source, *texts, stop_token_ids=[-1 if eos is None else eos])
            llm._chat_handlers[known_as] = template.to_chat_handler()
    if chat_format is None and llm.chat_handler is None and TEMPLATE in llm.metadata:
        llm.chat_format = "chat_template.default"
