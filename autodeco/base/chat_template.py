"""Chat messages as text, by the template of a model: the same for training and for use."""

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, ClassVar

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from autodeco.base.template_limits import LimitedEnvironment, limited_filter, limited_joins, limited_render
from autodeco.data.messages import Messages, Tools, text_of
from autodeco.errors import InputError
from autodeco.terminal import one_line

# how Python and JSON write what a template was not written for
LONGEST_REASON = 300  # characters
NULL_PRINTED = ("None", "null")
PARTS_PRINTED = ("'type': 'text'", '"type": "text"', '"type":"text"')


class NoChatTemplate(InputError):
    """Messages for a model that has no chat template."""


class _GenerationTags(Extension):
    """Passes over the tag with which some templates mark what a model generates."""

    tags: ClassVar[set[str]] = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        parser.stream.skip(1)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(value: Any, ensure_ascii: bool = False, indent=None, separators=None, sort_keys: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class ChatTemplate:
    """The template ``source`` as transformers and llama-cpp-python compile it, when it is first applied.

    Raises InputError, one line, for one that is broken, refuses what it is given, or goes over a limit
    (``template_limits``)."""

    def __init__(self, source: str):
        self._source = source
        self._template: jinja2.Template | None = None

    def render(self, **values) -> str:
        """Return the text that the template makes of ``values``."""
        try:
            self._template = self._template or _compiled(self._source)
            return limited_render(self._template, values)
        except RecursionError:
            reason = "it goes too deep"
        except MemoryError:
            reason = "it makes too much text"
        except Exception as error:  # a template is a program: jinja2 errors, and whatever raise_exception was given
            reason = _said(error)
        raise InputError(f"the model's chat template refuses the messages ({reason})") from None


def _said(error: Exception) -> str:
    text = one_line(error)
    text = text if len(text) <= LONGEST_REASON else text[:LONGEST_REASON] + "..."
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"line {error.lineno}: {text}"
    return text or "it gives no reason"


def _compiled(source: str) -> jinja2.Template:
    environment = LimitedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTags, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = limited_filter("tojson", _tojson)
    return limited_joins(environment.from_string(source))


class Renderer:
    """``source`` applied to messages; None: the model has no template, which is told when one is wanted."""

    def __init__(self, source: str | None, bos: str, eos: str):
        self._special = {"bos_token": bos, "eos_token": eos}
        self._template = None if source is None else ChatTemplate(source)

    def __call__(self, messages: Messages, add_generation_prompt: bool, tools: Tools | None) -> str:
        """Return the text of ``messages``; raises InputError without a template and for what it refuses."""
        if self._template is None:
            raise NoChatTemplate(
                "the model has no chat template; use prompt and completion as text instead of messages"
            )

        def text(messages: Messages) -> str:
            return self._template.render(
                messages=messages,
                add_generation_prompt=add_generation_prompt,
                tools=tools,
                # as in a call of create_chat_completion
                functions=None,
                function_call=None,
                tool_choice=None,
                raise_exception=_refuse,
                strftime_now=_now,
                **self._special,
            )

        return text(fitting(messages, text))


def _refuse(message: str) -> None:
    raise ValueError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def fitting(messages: Messages, text: Callable[[Messages], str]) -> Messages:
    """Return ``messages`` in the form nearest to the given one that a template reads; ``text`` applies it.

    A content that is null, beside calls of tools, is nothing, not the text "None". Parts of a content are text, not
    what Python prints of a list. A key of a message that is null is not there. A template that reads null or parts by
    itself does so.
    """
    messages = [
        {key: value for key, value in message.items() if value is not None or key == "content"} for message in messages
    ]
    parted = [message for message in messages if _is_parted(message)]
    null = [message for message in messages if message.get("content") is None]
    if not parted and not null:
        return messages
    plain = [_with_text(message) for message in messages]
    filled = [_with_text(message) if message.get("content") is None else message for message in messages]
    if parted and not _reads(text, filled, plain, _parts(parted), PARTS_PRINTED):
        messages, filled = [_with_text(message) if _is_parted(message) else message for message in messages], plain
    if null and not _reads(text, messages, filled, [], NULL_PRINTED):
        messages = filled
    return messages


def _is_parted(message: dict) -> bool:
    content = message.get("content")
    return isinstance(content, list) and all(isinstance(p, dict) and p.get("type") == "text" for p in content)


def _with_text(message: dict) -> dict:
    is_plain = not (_is_parted(message) or message.get("content") is None)
    return message if is_plain else message | {"content": text_of(message)}


def _parts(messages: Messages) -> Iterator[str]:
    return (part["text"].strip() for message in messages for part in message["content"])


def _reads(
    text: Callable[[Messages], str], given: Messages, plain: Messages, expected: Iterable[str], printed: Iterable[str]
) -> bool:
    """Whether the template makes of ``given`` a text that holds all of ``expected``, and none of ``printed`` more often
    than what it makes of ``plain``."""
    try:
        made = text(given)
    except Exception:  # whatever a template does with a form that it was not written for
        return False
    if not all(part in made for part in expected):
        return False
    usual = text(plain)
    return all(made.count(one) <= usual.count(one) for one in printed)
