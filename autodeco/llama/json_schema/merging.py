"""Schemas that are put together from parts, as one; and what of a schema a grammar can keep to."""

from collections.abc import Callable
from typing import Any

from autodeco.llama.json_schema.words import OF_TYPES, REFUSED, TYPES, WORDS, check_words, refusal

Target = Callable[[Any, str], Any]  # what a reference at a place refers to


def merged(schema: dict, place: str, target: Target, within: tuple[str, ...] = ()) -> dict:
    """Return ``schema`` with its references beside other words, and its allOf, put into one; raises InputError."""
    check_words(schema, place)
    parts = [{key: value for key, value in schema.items() if key in WORDS and key not in ("allOf", "$ref", *REFUSED)}]
    if "$ref" in schema:
        pointer = schema["$ref"]
        if pointer in within:
            raise refusal(place, f"refers to {pointer} within itself")
        found = target(pointer, place)
        parts.append(merged(found, pointer, target, (*within, pointer)) if isinstance(found, dict) else found)
    for index, part in enumerate(schema.get("allOf", ())):
        where = f"{place}/allOf/{index}"
        parts.append(merged(part, where, target, within) if isinstance(part, dict) else part)
    whole: dict = {}
    for part in parts:
        if part is True:
            continue
        if not isinstance(part, dict):
            raise refusal(place, "has a part that nothing satisfies")
        whole = _both(whole, part, place)
    return whole


def _both(one: dict, other: dict, place: str) -> dict:
    """A schema that is satisfied by what satisfies both."""
    whole = dict(one)
    closed = [part for part in (one, other) if part.get("additionalProperties", True) is not True]
    names = [set(part.get("properties", ())) for part in (one, other)]
    if closed and one and other and any(set.union(*names) - set(part.get("properties", ())) for part in closed):
        raise refusal(place, "puts together objects of which one allows no other properties; make them one")
    for word, value in other.items():
        if word not in whole or whole[word] == value:
            whole[word] = value
        elif word == "properties":
            twice = set(whole[word]) & set(value)
            both = {name: {"allOf": [whole[word][name], value[name]]} for name in twice}
            whole[word] = {**whole[word], **value, **both}
        elif word == "required":
            whole[word] = list(dict.fromkeys([*whole[word], *value]))
        elif word == "type":
            whole[word] = _common_types(whole[word], value, place)
        elif word in ("minimum", "minLength", "minItems"):
            whole[word] = max(whole[word], value)
        elif word in ("maximum", "maxLength", "maxItems"):
            whole[word] = min(whole[word], value)
        elif word == "enum":
            whole[word] = [one for one in whole[word] if one in value]
        else:
            raise refusal(place, f"has {word} twice, in parts that a grammar cannot keep to together; make them one")
    return whole


def _common_types(one: Any, other: Any, place: str) -> list[str]:
    one, other = ([names] if isinstance(names, str) else list(names) for names in (one, other))
    common = [name for name in one if name in other or (name == "integer" and "number" in other)]
    common += [name for name in other if name == "integer" and "number" in one and name not in common]
    if not common:
        raise refusal(place, "puts together types that no value has both of")
    return common


def types_of(schema: dict, place: str) -> list[str]:
    """The types that a value of ``schema`` may have; raises InputError for one that JSON does not have."""
    if "type" in schema:
        names = schema["type"]
        names = [names] if isinstance(names, str) else names
        if not isinstance(names, list) or not names or not all(name in TYPES for name in names):
            raise refusal(place, f"type {schema['type']!r} must be one of {', '.join(TYPES)}, or a list of them")
        return list(dict.fromkeys(name for name in names if not (name == "integer" and "number" in names)))
    # a word of one type says nothing of values of others, but means that type
    meant = [name for name, words in OF_TYPES.items() if name != "integer" and set(words) & set(schema)]
    return meant or [name for name in TYPES if name != "integer"]


def of_type(schema: dict, name: str) -> dict:
    """What ``schema`` says of values of type ``name``."""
    return {word: value for word, value in schema.items() if word in OF_TYPES.get(name, ())}
