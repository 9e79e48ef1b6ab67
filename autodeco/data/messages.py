"""Chat messages and the tools that a chat may call, as OpenAI's API and TRL write them."""

import json

from autodeco.errors import InputError

Messages = list[dict]
Tools = list[dict]
PARTED = "\n"  # between the texts of parts, as llama.cpp joins them for a template that reads no parts


def check_messages(where: str, name: str, messages) -> None:
    """Raise InputError unless ``messages`` is a list of chat messages; ``where`` and ``name`` say which.

    Contents are text, a list of parts that are text, or, beside calls of tools, nothing.
    """
    if not isinstance(messages, list) or not messages:
        raise InputError(f"{where}: {name} must be a list with at least one message")
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        is_call = content is None and isinstance(message, dict) and bool(message.get("tool_calls"))
        if (content is None and not is_call) or not isinstance(message.get("role"), str):
            raise InputError(f'{where}: each of {name} must be an object like {{"role": "user", "content": "text"}}')
        if isinstance(content, list):
            for part in content:
                if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                    kind = part.get("type") if isinstance(part, dict) else part
                    raise InputError(f"{where}: a part of type {kind} is in {name}; only text can be read")
        elif content is not None and not isinstance(content, str):
            raise InputError(f"{where}: a content of {name} must be text or a list of parts, not {str(content)[:60]}")


def checked_tools(where: str, tools) -> Tools | None:
    """Return ``tools`` of a record, which may be JSON in a text; None if there are none.

    Raises InputError unless they are a list of objects.
    """
    if isinstance(tools, str):
        try:
            tools = json.loads(tools) if tools.strip() else None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: tools is a text that is not valid JSON ({error})") from None
    if not tools:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise InputError(f'{where}: tools must be a list of objects like {{"type": "function", "function": {{...}}}}')
    return tools


def text_of(message: dict) -> str:
    """Return the text of a message; "" for calls of tools alone."""
    content = message.get("content")
    if isinstance(content, list):
        return PARTED.join(part["text"] for part in content)
    return content or ""
