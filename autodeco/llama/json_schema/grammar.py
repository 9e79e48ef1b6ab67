"""From a schema to the rules of a grammar."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from autodeco.errors import InputError
from autodeco.llama.json_schema.keys import other_keys
from autodeco.llama.json_schema.merging import merged, of_type, types_of
from autodeco.llama.json_schema.numbers import Bounds, integers, numbers
from autodeco.llama.json_schema.patterns import UnknownPattern, pattern_expression
from autodeco.llama.json_schema.rules import FORMATS, PRIMITIVES, literal, repeated
from autodeco.llama.json_schema.words import TYPES, WORDS, refusal

MOST = 2000  # repetitions that llama.cpp takes
LONGEST = 2_000_000  # letters that are written; references, and parts beside others, can make much of a short schema
COMMA = ' "," ws '


def schema_grammar(schema: Any) -> str:
    """Return the GBNF of JSON texts that ``schema`` accepts, perhaps not of all of them.

    The properties of an object come in the order of the schema, others only where ``additionalProperties`` says so.
    Raises InputError for a schema that no grammar can keep to, or nothing satisfies, which names the place, and for one
    whose grammar would have no end.
    """
    try:
        text = _Grammar(schema).text()
        text.encode()
    except RecursionError:
        raise InputError("the JSON schema is nested too deeply; make it flatter") from None
    except UnicodeEncodeError:
        raise InputError("the JSON schema holds half a surrogate pair, which is no character; leave it out") from None
    return text


class _Grammar:
    def __init__(self, schema: Any):
        self._schema = schema
        self._rules = dict(PRIMITIVES)
        self._of_references: dict[str, str] = {}
        self._begun: set[str] = set()  # references that nothing was written of yet
        self._written = 0
        self._rules["root"] = self._expression(schema, "#")

    def text(self) -> str:
        return "".join(f"{name} ::= {rule}\n" for name, rule in self._rules.items())

    def _rule(self, expression: str) -> str:
        """The name of a new rule for ``expression``."""
        name = f"rule{len(self._rules)}"
        self._rules[name] = expression
        return name

    def _named(self, expression: str) -> str:
        """The name of a rule for ``expression``: what is written twice at every level would double at each."""
        return expression if expression in self._rules else self._rule(expression)

    def _expression(self, schema: Any, place: str) -> str:
        expression = self._of_schema(schema, place)
        self._count(len(expression))
        return expression

    def _count(self, letters: int) -> None:
        self._written += letters + 1
        if self._written > LONGEST:
            raise InputError("the JSON schema makes too large a grammar; make it simpler")

    def _of_schema(self, schema: Any, place: str) -> str:
        if schema is True:
            schema = {}
        if not isinstance(schema, dict):
            raise refusal(place, "is nothing that a text could satisfy" if schema is False else "must be an object")
        if set(schema) & WORDS == {"$ref"}:
            return self._reference(schema["$ref"], place)
        schema = merged(schema, place, self._target)
        for word in ("anyOf", "oneOf"):
            if word in schema:
                return self._union(schema, word, place)
        if "const" in schema or "enum" in schema:
            return self._values(schema, place)
        types = types_of(schema, place)
        makers = [getattr(self, f"_{name}")(of_type(schema, name), place) for name in types]
        return makers[0] if len(makers) == 1 else "(" + " | ".join(makers) + ")"

    def _reference(self, pointer: Any, place: str) -> str:
        target = self._target(pointer, place)
        if pointer in self._begun:
            raise refusal(place, f"refers to {pointer}, which it is a part of, without end")
        if pointer not in self._of_references:
            name = self._of_references[pointer] = self._rule('""')  # it may refer to itself, further in
            self._begun.add(pointer)
            self._rules[name] = self._expression(target, pointer)
            self._begun.discard(pointer)
        return self._of_references[pointer]

    def _inner(self, schema: Any, place: str) -> str:
        """The expression of a value within another."""
        begun, self._begun = self._begun, set()
        try:
            return self._expression(schema, place)
        finally:
            self._begun = begun

    def _target(self, pointer: Any, place: str) -> Any:
        if not isinstance(pointer, str) or not (pointer == "#" or pointer.startswith("#/")):
            raise refusal(place, f"refers to {pointer!r}; only references within the schema (#/...) are possible")
        self._count(len(pointer))
        target = self._schema
        for part in pointer[2:].split("/") if len(pointer) > 1 else []:
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(target, list) and key.isdigit() and int(key) < len(target):
                target = target[int(key)]
            elif isinstance(target, dict) and key in target:
                target = target[key]
            else:
                raise refusal(place, f"refers to {pointer}, which is not there")
        return target

    def _union(self, schema: dict, word: str, place: str) -> str:
        beside = {key: value for key, value in schema.items() if key != word}
        found = []
        for index, alternative in enumerate(schema[word]):
            both = {"allOf": [beside, alternative]} if beside else alternative
            found.append(self._expression(both, f"{place}/{word}/{index}"))
        return "(" + " | ".join(dict.fromkeys(found)) + ")"

    def _values(self, schema: dict, place: str) -> str:
        values = [schema["const"]] if "const" in schema else schema["enum"]
        if beside := set(schema) - {"const", "enum", "type"}:
            raise refusal(place, f"has {min(beside)} beside its values, which a grammar cannot keep to; leave it out")
        types = types_of({"type": schema["type"]}, place) if "type" in schema else list(TYPES)
        values = [value for value in values if any(TYPES[name](value) for name in types)]
        if "const" in schema and "enum" in schema:
            values = [value for value in values if value in schema["enum"]]
        if not values:
            raise refusal(place, "allows no value")
        try:
            texts = [json.dumps(value, ensure_ascii=False, allow_nan=False) for value in values]
            "".join(texts).encode()
        except (TypeError, ValueError) as error:
            raise refusal(place, f"has a value that is no JSON ({error})") from None
        return "(" + " | ".join(map(literal, dict.fromkeys(texts))) + ")"

    def _object(self, schema: dict, place: str) -> str:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not (properties or required or "additionalProperties" in schema):
            return "object"
        properties = {**properties, **{name: True for name in required if name not in properties}}
        other = schema.get("additionalProperties", "properties" not in schema)
        tail = self._others(list(properties), other, place)
        first = f"({tail[0]})?" if tail[0] else '""'
        behind = tail[1]
        for name, value in reversed(properties.items()):
            pair = f'{literal(json.dumps(name, ensure_ascii=False))} ws ":" ws '
            pair = self._rule(f"{pair}{self._inner(value, f'{place}/properties/{name}')} ws")
            begin = f"{pair} {behind}"
            first = self._rule(begin if name in required else f"{begin} | {first}")
            behind = self._rule(f'"," ws {pair} {behind}' if name in required else f'("," ws {pair})? {behind}')
        return self._rule(f'"{{" ws {first} "}}"')

    def _others(self, names: list[str], other: Any, place: str) -> tuple[str, str]:
        """Members of other names, ``other`` their schema: some, and what may follow a member."""
        if other is False:
            return "", '""'
        value = self._inner(other, f"{place}/additionalProperties")
        member = self._rule(f'{other_keys(names)} ws ":" ws {value} ws')
        more = self._rule(f'("," ws {member})*')
        return f"{member} {more}", more

    def _array(self, schema: dict, place: str) -> str:
        if not schema:
            return "array"
        items, before = schema.get("items", True), schema.get("prefixItems", [])
        if isinstance(items, list):  # as older drafts have it
            items, before = False, items
        elif before and "items" not in schema:
            items = False
        least, most = self._counts(schema, "Items", place)
        before = [self._inner(value, f"{place}/prefixItems/{index}") for index, value in enumerate(before)]
        before = before if most is None else before[:most]
        joined = COMMA.join(f"{one} ws" for one in before)
        if items is False:
            if len(before) < least:
                raise refusal(place, f"wants {least} items and describes {len(before)}")
            return f'"[" ws {joined} "]"'
        item = f"{self._named(self._inner(items, f'{place}/items'))} ws"
        least, most = max(0, least - len(before)), None if most is None else most - len(before)
        rest = repeated(f"{COMMA} {item}", least, most) if before else repeated(item, least, most, COMMA)
        return f'"[" ws {joined} {rest} "]"'

    def _counts(self, schema: dict, what: str, place: str) -> tuple[int, int | None]:
        least, most = schema.get(f"min{what}", 0), schema.get(f"max{what}")
        for value in (least, most):
            if value is not None and value > MOST:
                raise refusal(place, f"counts to {value}; llama.cpp's grammars count to {MOST}: give less, or nothing")
        least, most = int(least), None if most is None else int(most)
        if most is not None and most < least:
            raise refusal(place, f"min{what} is above max{what}")
        return least, most

    def _string(self, schema: dict, place: str) -> str:
        lengths, kind = {"minLength", "maxLength"} & set(schema), schema.get("format")
        known = FORMATS.get("uuid" if str(kind).rstrip("12345") == "uuid" else kind) if isinstance(kind, str) else None
        if ((known or lengths) and "pattern" in schema) or (known and lengths):
            raise refusal(place, "has more than one of pattern, format and lengths; a grammar can keep to one of them")
        if known:
            return f'"\\"" {known} "\\""'
        if "pattern" in schema:
            try:
                return f'"\\"" {self._rule(pattern_expression(schema["pattern"]))} "\\""'
            except (UnknownPattern, TypeError) as error:
                raise refusal(place, f"pattern {schema['pattern']!r} cannot be kept to: {error}") from None
        if not lengths:
            return "string"
        return f'"\\"" {repeated("char", *self._counts(schema, "Length", place))} "\\""'

    def _integer(self, schema: dict, place: str) -> str:
        return self._bounded(schema, place, integers) or "integer"

    def _number(self, schema: dict, place: str) -> str:
        return self._bounded(schema, place, numbers) or "number"

    def _bounded(self, schema: dict, place: str, within: Callable[[Bounds], str | None]) -> str | None:
        if schema.get("multipleOf", 1) != 1 or ("multipleOf" in schema and within is numbers):
            raise refusal(place, "has multipleOf, which a grammar cannot keep to; leave it out, or list the values")
        low, above = _bound(schema, "inimum", max)
        high, below = _bound(schema, "aximum", min)
        if low is None and high is None:
            return None
        if within is integers:  # 0.5 and more begins with 1
            low, above = (low, above) if low is None or low == int(low) else (low // 1 + 1, False)
            high, below = (high, below) if high is None or high == int(high) else (high // 1, False)
        elif any(bound is not None and bound != int(bound) for bound in (low, high)):
            raise refusal(place, "has a bound with a fraction, which a grammar cannot keep to; give a whole number")
        bounds = (None if bound is None else int(bound) for bound in (low, high))
        if (found := within(Bounds(*bounds, above, below))) is None:
            raise refusal(place, "has bounds that no number lies within")
        return self._rule(found)

    def _boolean(self, schema: dict, place: str) -> str:
        return "boolean"

    def _null(self, schema: dict, place: str) -> str:
        return "null"


def _bound(schema: dict, word: str, tighter: Callable) -> tuple[float | None, bool]:
    """The bound of ``word``, and whether it is itself outside."""
    letter = "m"
    inclusive, exclusive = schema.get(f"{letter}{word}"), schema.get(f"exclusive{letter.upper()}{word}")
    if isinstance(exclusive, bool):  # as older drafts have it
        return inclusive, exclusive and inclusive is not None
    if exclusive is None or (inclusive is not None and tighter(inclusive, exclusive) != exclusive):
        return inclusive, False
    return exclusive, True
