"""What a caller asks of a completion, in the form that ``llama_cpp.Llama`` reads without failing on the way.

llama-cpp-python takes messages, tools and texts as they come. What is missing in them is a KeyError deep inside, half a
surrogate pair a UnicodeEncodeError, and a choice of tools that it does not know means nothing.
"""

import os
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import llama_cpp
import numpy as np

from autodeco.errors import InputError
from autodeco.settings.options import checked, said

WORDS = {"tool_choice": ("none", "auto", "required"), "function_call": ("none", "auto")}
LEAST = {"n_ctx": 0, "n_batch": 1, "n_ubatch": 1}
# in which llama.cpp keeps keys and values: its programs' --cache-type-k
NAMES = ("F32", "F16", "Q8_0", "Q4_0", "Q4_1", "IQ4_NL", "Q5_0", "Q5_1")
BF16 = 30  # which llama_cpp has no name for
KEPT = {BF16, *(getattr(llama_cpp, f"GGML_TYPE_{name}") for name in NAMES)}
NO_PARAMETERS = {
    "type": "object",
    "properties": {},
    "additionalProperties": False,
}  # of a function that names none, as in OpenAI's interface
TEXTS = ("prompt", "suffix", "messages", "tools", "functions", "tool_choice", "function_call", "stop")


def check_context(options: dict[str, Any]) -> None:
    """Raise InputError for sizes of a context that there cannot be, and for a LoRA file that is not there.

    A path of an adapter becomes the text that llama_cpp.Llama reads."""
    for name, least in LEAST.items():
        if options.get(name) is not None:
            checked(name, options[name], int, least, 2**31 - 1)
    check_seed(options.get("seed"))
    for name in ("type_k", "type_v"):
        if options.get(name) is not None and options[name] not in KEPT:
            raise InputError(
                f"{name} {said(options[name])}: is no type of keys and values; take llama_cpp.GGML_TYPE_Q8_0"
            )
    if options.get("lora_path"):
        options["lora_path"] = os.fspath(options["lora_path"])
        if not os.path.isfile(options["lora_path"]):
            raise InputError(f"{options['lora_path']}: no such file; give a LoRA adapter as GGUF")


def check_seed(seed: Any) -> None:
    """Raise InputError for a seed of a model that is no whole number; None is a random one."""
    if seed is not None:
        checked("seed", seed, int, -(2**63), 2**63 - 1)


def settle(settings: dict[str, Any]) -> dict[str, Any] | None:
    """Put ``settings`` of a completion or a chat into the form that ``llama_cpp.Llama`` reads; raises InputError.

    Returns the function that has to be called, if any."""
    for name in TEXTS:
        check_texts(name, settings.get(name))
    settings["stop"] = _stops(settings["stop"])
    if "messages" in settings:
        _check_messages(settings["messages"])
        return _settle_tools(settings)
    check_prompt("prompt", settings["prompt"])
    return None


def check_texts(name: str, value: Any) -> None:
    """Raise InputError if a text in ``value``, the setting ``name``, holds half a surrogate pair, as no UTF-8 does."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            try:
                one.encode()
            except UnicodeEncodeError:
                raise InputError(f"{name}: holds half a surrogate pair, which is no character; leave it out") from None
        elif isinstance(one, Mapping):
            left += [*one, *one.values()]
        elif isinstance(one, list | tuple):
            left += one


def _stops(stop: Any) -> list[str]:
    texts = [stop] if isinstance(stop, str) else [] if stop is None else stop
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) and text for text in texts):
        raise InputError(f"stop {stop!r}: must be texts that are not empty")
    return list(texts)


def check_prompt(name: str, prompt: Any) -> None:
    """Raise InputError unless ``prompt``, which ``name`` says which, is a text or a list of token ids."""
    if isinstance(prompt, str):
        return
    is_listed = isinstance(prompt, Sequence | np.ndarray) and not isinstance(prompt, bytes | bytearray)
    if not is_listed or not all(isinstance(token, Integral) for token in prompt):
        raise InputError(f"{name}: {said(prompt)} must be a text, or a list of the ids of its tokens")


def _check_messages(messages: Any) -> None:
    is_listed = isinstance(messages, Sequence) and not isinstance(messages, str | bytes)
    if not is_listed or not all(isinstance(message, Mapping) for message in messages):
        raise InputError('messages: must be a list of objects like {"role": "user", "content": "text"}')


def _settle_tools(settings: dict[str, Any]) -> dict[str, Any] | None:
    """Have a tool that must be called be one that is there, with parameters; return its function."""
    for name in ("tools", "functions"):
        given = settings[name]
        if given is not None and not (isinstance(given, list | tuple) and all(isinstance(one, dict) for one in given)):
            raise InputError(f"{name}: must be a list of objects")
    for name, words in WORDS.items():
        if not (settings[name] is None or settings[name] in words or isinstance(settings[name], dict)):
            raise InputError(f"{name} {said(settings[name])}: must be {', '.join(words)}, or an object with a name")
    if settings["tool_choice"] == "required":
        settings["tool_choice"] = {"type": "function", "function": {"name": _only(settings["tools"])}}
    kind = "function_call" if isinstance(settings["function_call"], dict) else "tool_choice"
    if isinstance(choice := settings[kind], dict):
        return _settle_choice(settings, kind, choice if kind == "function_call" else choice.get("function"))
    return None


def _only(tools: Sequence[dict] | None) -> Any:
    if not tools or len(tools) > 1:
        raise InputError('tool_choice "required": wants one tool; of several, name the one that is to be called')
    function = tools[0].get("function")
    return function.get("name") if isinstance(function, dict) else None


def _settle_choice(settings: dict[str, Any], kind: str, chosen: Any) -> dict[str, Any]:
    """Return the function that is ``chosen``, and give those that have no parameters an object without any."""
    name = chosen.get("name") if isinstance(chosen, dict) else None
    # functions win over tools, as in llama_cpp.Llama
    where = "tools" if settings["functions"] is None else "functions"
    offered = [one.get("function") if where == "tools" else one for one in settings[where] or ()]
    if not all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in offered):
        raise InputError(f"{where}: each needs a function with a name")
    if not isinstance(name, str) or name not in [one["name"] for one in offered]:
        raise InputError(f"{kind} {said(settings[kind])}: names none of the {where}")
    for one in offered:
        if not isinstance(one.get("parameters", {}) or {}, dict):
            raise InputError(f"{where}: the parameters of {one['name']} must be a JSON schema")
    filled = [one | {"parameters": one.get("parameters") or NO_PARAMETERS} for one in offered]
    called = next(one for one in filled if one["name"] == name)
    if where == "tools":
        filled = [tool | {"function": one} for tool, one in zip(settings[where], filled, strict=True)]
    settings[where] = filled
    return called
