"""Whatever the grammar of a schema accepts, the schema does; what no grammar can keep to is refused."""

import json
import random

import llama_cpp
import pytest

from autodeco.base.opening import open_vocabulary
from autodeco.base.token_bytes import TokenBytes
from autodeco.errors import InputError
from autodeco.llama.json_schema import schema_grammar
from autodeco.llama.json_schema.numbers import Bounds, integers, numbers

END = 2


@pytest.fixture(scope="module")
def accepts(smollm2):
    """accepts(grammar, text): whether llama.cpp's own reader of grammars takes all of ``text``, and then an end."""
    vocabulary = open_vocabulary(smollm2)
    pieces = TokenBytes(vocabulary.model, special=False)
    single = {pieces[token]: token for token in range(vocabulary.n_vocab()) if len(pieces[token]) == 1}

    def accepts(grammar: str, text: str) -> bool:
        sampler = llama_cpp.llama_sampler_init_grammar(vocabulary._model.vocab, grammar.encode(), b"root")
        assert sampler, grammar
        try:
            for token in [*(single[bytes([byte])] for byte in text.encode()), END]:
                candidates = (llama_cpp.llama_token_data * 1)(llama_cpp.llama_token_data(token, 0.0, 0.0))
                array = llama_cpp.llama_token_data_array(candidates, 1, -1, False)
                llama_cpp.llama_sampler_apply(sampler, array)
                if candidates[0].logit != 0.0:
                    return False
                if token != END:
                    llama_cpp.llama_sampler_accept(sampler, token)
            return True
        finally:
            llama_cpp.llama_sampler_free(sampler)

    yield accepts
    vocabulary.close()


POINT = {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}, "required": ["x"]}
TREE = {"type": "object", "properties": {"v": {"type": "null"}, "l": {"$ref": "#"}}, "required": ["v"]}
NAMED = {
    "$defs": {"string": {"enum": ["a", "b"]}, "a/b": {"type": "boolean"}},
    "type": "object",
    "properties": {"one": {"$ref": "#/$defs/string"}, "two": {"$ref": "#/$defs/a~1b"}},
    "required": ["one", "two"],
}
OTHERS = {**POINT, "additionalProperties": {"type": "boolean"}}
ALL = {"allOf": [POINT, {"properties": {"z": {"type": "null"}}, "required": ["z"]}]}
PYDANTIC = {"$defs": {"Color": {"enum": ["red"]}}, "properties": {"c": {"allOf": [{"$ref": "#/$defs/Color"}]}}}
BESIDE = {"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"], "anyOf": [
    {"properties": {"b": {"type": "integer"}}, "required": ["b"]},
    {"properties": {"c": {"type": "boolean"}}, "required": ["c"]},
]}  # fmt: skip

CASES = [
    # schema, texts that are accepted, texts that are not
    ({}, ["1", '"a"', "[]", '{"a": [1, null]}', "true"], ["", "a", "{", "01", '"\n"', "'a'"]),
    (True, ["1"], ["x"]),
    ({"description": "anything"}, ["{}"], ["x"]),
    ({"type": "string"}, ['""', '"é🦙"', r'"\u00e9\n\""'], ["1", '"\\ud83e"', '"a', '"\t"']),
    ({"type": "number"}, ["0", "-1.50", "1e5", "12"], ["01", "1.", ".5", '"1"', "+1"]),
    ({"type": "integer"}, ["0", "-7", "123"], ["1.0", "1e3", "00"]),
    ({"type": ["string", "null"]}, ['"a"', "null"], ["1"]),
    ({"type": ["string", "integer"], "maxLength": 2}, ['"ab"', "5"], ['"abc"']),
    ({"type": ["object", "null"], "properties": {"a": {"type": "null"}}}, ["null", '{"a": null}', "{}"], ['{"b": 1}']),
    ({"const": 'a"b\\c'}, [r'"a\"b\\c"'], ['"a"']),
    ({"enum": ["é🦙", 1, None, {"a": [True]}]}, ['"é🦙"', "1", "null", '{"a": [true]}'], ["2", '"e"', "true"]),
    ({"type": "string", "enum": ["a", 1]}, ['"a"'], ["1"]),
    (POINT, ['{"x": 1}', '{"x":1,"y":2}'], ["{}", '{"y": 2}', '{"x": 1, "z": 3}', '{"x": "1"}', '{"x": 1,}']),
    ({"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}}},
     ["{}", '{"b": null}', '{"a": null, "c": null}'], ['{"c": null, "a": null}', '{, "b": null}']),
    ({"type": "object"}, ["{}", '{"a": 1, "b": {}}'], ["[]"]),
    ({"type": "object", "required": ["a"]}, ['{"a": [1]}', '{"a": 1, "b": 2}'], ["{}", '{"b": 1}']),
    (OTHERS, ['{"x": 1, "z": true}', '{"x": 1, "yy": true, "": false}', '{"x": 1, "y": 2, "xa": true}'],
     ['{"x": 1, "z": 1}', '{"x": 1, "y": true}', '{"x": 1, "x": true}', '{"x": 1, "\\u0078": true}']),
    ({"additionalProperties": {"type": "null"}}, ["{}", '{"a": null}'], ['{"a": 1}']),
    ({"type": "object", "properties": {'q"\\': {"type": "null"}}, "required": ['q"\\'], "additionalProperties": True},
     [r'{"q\"\\": null, "a": 1}'], ["{}"]),
    (ALL, ['{"x": 1, "z": null}', '{"x": 1, "y": 2, "z": null}'], ['{"x": 1}', '{"z": null}']),
    (PYDANTIC, ['{"c": "red"}'], ['{"c": "blue"}', '{"c": {}}']),
    (BESIDE, ['{"a": null, "b": 1}', '{"a": null, "c": true}'], ['{"a": null}', '{"b": 1}']),
    (TREE, ['{"v": null}', '{"v": null, "l": {"v": null, "l": {"v": null}}}'], ['{"v": null, "l": {}}']),
    (NAMED, ['{"one": "a", "two": true}'], ['{"one": "c", "two": true}', '{"one": "a", "two": 1}']),
    ({"oneOf": [{"type": "integer"}, {"type": "null"}]}, ["3", "null"], ['"a"']),
    ({"type": "array", "items": {"type": "integer"}}, ["[]", "[1, 2]"], ['["a"]', "[1,]", "[,1]"]),
    ({"items": {"type": "integer"}, "minItems": 2, "maxItems": 3}, ["[1,2]", "[1, 2, 3]"], ["[1]", "[1,2,3,4]", "[]"]),
    ({"type": "array", "minItems": 1}, ["[1]", '["a", {}]'], ["[]"]),
    ({"type": "array", "maxItems": 0}, ["[]"], ["[1]"]),
    ({"prefixItems": [{"type": "integer"}, {"type": "null"}]}, ["[1, null]"], ["[1]", "[1, null, 2]"]),
    ({"prefixItems": [{"type": "integer"}], "items": {"type": "null"}, "minItems": 2},
     ["[1, null]"], ["[1]", "[1, 2]"]),
    ({"items": [{"type": "integer"}, {"type": "null"}]}, ["[1, null]"], ["[null, 1]"]),
    ({"type": "string", "minLength": 2, "maxLength": 3}, ['"ab"', '"🦙é字"'], ['"a"', '"abcd"']),
    ({"type": "string", "pattern": "^[A-Z]{2}-\\d+$"}, ['"AB-1"', '"ZZ-123"'], ['"AB-"', '"aB-1"', '"AB-1x"']),
    ({"type": "string", "pattern": "b"}, ['"b"', '"abc"'], ['"a"']),
    ({"pattern": '^(a|"|\\\\)?.[^x]$'}, [r'"a\"y"', r'"\\ab"', r'"\"ab"', '"ab"'], ['"ax"', '"a"b"']),
    ({"type": "string", "format": "date"}, ['"2024-02-29"'], ['"2024-13-01"', '"today"']),
    ({"type": "string", "format": "date-time"}, ['"2024-02-29T10:00:00Z"'], ['"2024-02-29"']),
    ({"type": "string", "format": "uuid"}, ['"123e4567-e89b-12d3-a456-426614174000"'], ['"123"']),
    ({"type": "string", "format": "email"}, ['"anything"'], ["1"]),
    ({"type": "integer", "minimum": 18, "exclusiveMaximum": 121}, ["18", "99", "120"], ["17", "121", "-20", "018"]),
    ({"type": "integer", "exclusiveMinimum": 0.5}, ["1", "1000"], ["0", "-1"]),
    ({"type": "number", "minimum": 0, "maximum": 1}, ["0", "0.25", "1", "1.0", "0.0"], ["-0.1", "1.1", "2", "1.01"]),
    ({"type": "number", "exclusiveMinimum": 0}, ["0.001", "1", "12.5"], ["0", "0.0", "-1"]),
    ({"type": "number", "minimum": -2, "exclusiveMaximum": 0}, ["-2", "-0.5", "-2.0"], ["0", "-0", "-2.1", "1"]),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "good", "bad"), CASES, ids=lambda value: None)
def test_grammars_accept_what_their_schemas_do(accepts, schema, good, bad):
    grammar = schema_grammar(schema)
    for text in good:
        json.loads(text)
        assert accepts(grammar, text), (text, grammar)
    for text in bad:
        assert not accepts(grammar, text), (text, grammar)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (False, "at #: is nothing that a text could satisfy"),
        ({"not": {}}, "has not, which a grammar cannot keep to"),
        ({"properties": {"a": {"items": {"uniqueItems": True}}}}, "at #/properties/a/items: has uniqueItems"),
        ({"type": "strnig"}, "type 'strnig' must be one of object, array"),
        ({"$ref": "https://example.org/x"}, "only references within the schema"),
        ({"$ref": "#/$defs/none"}, "refers to #/\\$defs/none, which is not there"),
        ({"$ref": "#"}, "refers to #, which it is a part of, without end"),
        ({"anyOf": [{"$ref": "#"}, {"type": "null"}]}, "without end"),
        ({"anyOf": [{"$ref": "#"}, {"type": "null"}], "type": "null"}, "nested too deeply|within itself"),
        ({"enum": []}, "allows no value"),
        ({"type": "string", "enum": [1]}, "allows no value"),
        ({"type": "integer", "multipleOf": 3}, "has multipleOf"),
        ({"type": "number", "minimum": 0.5}, "has a bound with a fraction"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "has bounds that no number lies within"),
        ({"type": "string", "maxLength": 5000}, "counts to 5000; llama.cpp's grammars count to 2000"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "minLength is above maxLength"),
        ({"type": "string", "pattern": "(?=a)b"}, "cannot be kept to"),
        ({"type": "string", "pattern": "("}, "cannot be kept to"),
        ({"type": "string", "pattern": "a", "minLength": 3}, "more than one of pattern, format and lengths"),
        ({"anyOf": []}, "must be a list of schemas"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "puts together types"),
        ({"enum": ["\ud800"]}, "has a value that is no JSON"),
        ({"properties": {"\ud800": {}}}, "holds half a surrogate pair"),
        ({"allOf": 5}, "at #/allOf: must be a list of schemas"),
        ({"type": [{}]}, "at #/type: must be one of object, array"),
        ({"required": [[]]}, "at #/required: must be a list of names"),
        ({"required": [5]}, "at #/required: must be a list of names"),
        ({"properties": []}, "at #/properties: must be an object"),
        ({"prefixItems": 5}, "at #/prefixItems: must be a list of schemas"),
        ({"enum": 5}, "at #/enum: must be a list"),
        ({"pattern": 5}, "at #/pattern: must be a text"),
        ({"minItems": "x"}, "at #/minItems: must be a whole number"),
        ({"maxLength": float("inf")}, "at #/maxLength: must be a whole number"),
        ({"minimum": "x"}, "at #/minimum: must be a number"),
        ({"allOf": [{"minimum": []}, {"minimum": 3}]}, "at #/allOf/0/minimum: must be a number"),
        ({"allOf": [{"enum": 5}, {"enum": [5]}]}, "at #/allOf/0/enum: must be a list"),
        ({"allOf": [{"type": 5}, {"type": "string"}]}, "at #/allOf/0/type: must be one of object"),
        ("text", "at #: must be an object"),
    ],
)
def test_what_no_grammar_can_keep_to_is_refused(schema, message):
    with pytest.raises(InputError, match=message):
        schema_grammar(schema)


def nested(depth: int) -> dict:
    """Arrays of arrays, to ``depth``."""
    schema = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def test_a_grammar_grows_with_its_schema_and_not_faster(accepts):
    lengths = [len(schema_grammar(nested(depth))) for depth in (10, 20, 40)]
    assert lengths[2] - lengths[1] < 2.5 * (lengths[1] - lengths[0])
    grammar = schema_grammar(nested(40))
    assert accepts(grammar, "[" * 40 + "1, 2" + "]" * 40)
    assert not accepts(grammar, "[" * 39 + "1" + "]" * 39)


@pytest.mark.parametrize(
    "of",
    [
        lambda name: {"type": "object", "anyOf": [{"$ref": name}, {"$ref": name, "required": ["a"]}]},
        lambda name: {"allOf": [{"$ref": name}, {"$ref": name}]},
    ],
    ids=["anyOf", "allOf"],
)
def test_references_that_double_at_each_level_are_refused(of):
    """Each of 40 definitions names the next one twice: written out they would be 2^40."""
    definitions = {f"d{level}": of(f"#/$defs/d{level + 1}") for level in range(40)} | {"d40": {"type": "object"}}
    with pytest.raises(InputError, match="makes too large a grammar"):
        schema_grammar({"$defs": definitions, **of("#/$defs/d0")})


def as_root(expression: str) -> str:
    return f"root ::= {expression}\n"


def test_ranges_of_numbers_hold_exactly_what_lies_within(accepts):
    rng = random.Random(3)
    for _ in range(60):
        low, high = sorted(rng.choices([-1000, -101, -100, -99, -9, -1, 0, 1, 7, 10, 99, 100, 345, 1000], k=2))
        bounds = Bounds(low, high, rng.random() < 0.3, rng.random() < 0.3)
        inside = [n for n in range(-1200, 1201) if low + bounds.above_low <= n <= high - bounds.below_high]
        whole, decimal = integers(bounds), numbers(bounds)
        assert (whole is None) == (not inside)
        tried = {low - 1, low, low + 1, high - 1, high, high + 1, *rng.choices(range(-1200, 1201), k=6)}
        for n in tried:
            assert (whole is not None and accepts(as_root(whole), str(n))) == (n in inside), (n, bounds)
            for fraction in ("", ".0", ".5"):
                text = f"{n}{fraction}"
                value = float(text)
                within = (low < value or (low == value and not bounds.above_low)) and (
                    value < high or (value == high and not bounds.below_high)
                )
                found = decimal is not None and accepts(as_root(decimal), text)
                assert found == within, (text, bounds, decimal)
