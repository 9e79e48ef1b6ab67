"""The words of JSON Schema that say something of a value, and what each of them has to hold."""

import math
from collections.abc import Callable
from typing import Any

from autodeco.errors import InputError

TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}
OF_TYPES = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("pattern", "format", "minLength", "maxLength"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
OF_TYPES["integer"] = OF_TYPES["number"]
REFUSED = {
    "not",
    "if",
    "then",
    "else",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "contains",
    "minContains",
    "maxContains",
    "uniqueItems",
    "unevaluatedProperties",
    "unevaluatedItems",
    "$dynamicRef",
    "$recursiveRef",
}
# all words that say something of a value
WORDS = {word for words in OF_TYPES.values() for word in words} | REFUSED
WORDS |= {"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"}


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_count(value: Any) -> bool:
    return _is_number(value) and value >= 0 and value == int(value)


def _is_number(value: Any) -> bool:
    return TYPES["number"](value) and (isinstance(value, int) or math.isfinite(value))


def _is_bound(value: Any) -> bool:
    return isinstance(value, bool) or _is_number(value)  # older drafts say by true that the other bound is outside


NAMES = f"be one of {', '.join(TYPES)}, or a list of them"
HOLDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "type": (lambda value: isinstance(value, str) or _is_texts(value), NAMES),
    "required": (_is_texts, "be a list of names"),
    "properties": (TYPES["object"], "be an object"),
    "items": (lambda value: isinstance(value, dict | bool | list), "be an object"),
    "pattern": (TYPES["string"], "be a text"),
    "prefixItems": (TYPES["array"], "be a list of schemas"),
    "enum": (TYPES["array"], "be a list"),
    **dict.fromkeys(
        ("anyOf", "oneOf", "allOf"), (lambda value: TYPES["array"](value) and value, "be a list of schemas")
    ),
    **dict.fromkeys(("minItems", "maxItems", "minLength", "maxLength"), (_is_count, "be a whole number")),
    **dict.fromkeys(("minimum", "maximum"), (_is_number, "be a number")),
    **dict.fromkeys(("exclusiveMinimum", "exclusiveMaximum"), (_is_bound, "be a number")),
}


def check_words(schema: dict, place: str) -> None:
    """Raise InputError unless each word of ``schema`` holds what JSON Schema has there, of what a grammar keeps to."""
    for word, value in schema.items():
        if word in REFUSED and value not in (False, None):
            raise refusal(place, f"has {word}, which a grammar cannot keep to; leave it out")
        holds, what = HOLDS.get(word, (None, ""))
        if holds is not None and not holds(value):
            raise refusal(f"{place}/{word}", f"must {what}")


def refusal(place: str, what: str) -> InputError:
    """The error of a schema whose part at ``place`` cannot be kept to."""
    return InputError(f"the JSON schema, at {place}: {what}")
