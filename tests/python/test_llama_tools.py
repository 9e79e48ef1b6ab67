"""Tools and schemas in chats with heads: calls and answers keep to what was asked for."""

import json

import pytest

from autodeco.errors import InputError


@pytest.fixture(autouse=True)
def from_the_start(llm):
    llm.reset()


def test_a_json_schema_is_kept_and_values_are_recorded(llm):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    answer = llm.create_chat_completion(
        [{"role": "user", "content": "Give me a number as JSON."}],
        response_format={"type": "json_object", "schema": schema},
        max_tokens=40,
        seed=2,
    )
    assert isinstance(json.loads(answer["choices"][0]["message"]["content"])["n"], int)
    assert len(llm.decoding) > 3
    assert ((llm.decoding.top_p > 0) & (llm.decoding.top_p < 1)).all()


def test_a_tool_that_is_asked_for_is_called_with_arguments_of_its_schema(llm):
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    answer = llm.create_chat_completion(
        [{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[{"type": "function", "function": {"name": "weather", "parameters": parameters}}],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        max_tokens=60,
        seed=2,
        autodeco=True,
    )["choices"][0]
    (call,) = answer["message"]["tool_calls"]
    assert call["function"]["name"] == "weather"
    assert isinstance(json.loads(call["function"]["arguments"])["city"], str)
    assert len(answer["autodeco"]["token"]) == len(llm.decoding)


TOOLS = [{"type": "function", "function": {"name": "now"}}]
CITY = {"type": "object", "properties": {"city": {"enum": ["Oslo"]}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": CITY}}
QUESTION = [{"role": "user", "content": "What time is it?"}]


def called(llm, **settings) -> dict:
    (choice,) = llm.create_chat_completion(QUESTION, max_tokens=30, seed=1, **settings)["choices"]
    return choice["message"]["tool_calls"][0]["function"]


def test_a_tool_without_parameters_can_be_called(llm):
    given = {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "now"}}}
    assert called(llm, **given)["name"] == "now"
    assert TOOLS[0]["function"] == {"name": "now"}, "what the caller gave stays"
    found = called(llm, functions=[{"name": "now"}], function_call={"name": "now"})
    assert (found["name"], json.loads(found["arguments"])) == ("now", {})


def test_a_tool_that_is_required_is_called(llm):
    found = called(llm, tools=[WEATHER], tool_choice="required")
    assert (found["name"], json.loads(found["arguments"])) == ("weather", {"city": "Oslo"})


def test_arguments_keep_to_the_whole_schema_of_a_function(llm):
    """llama-cpp-python's own grammar has no bounds of numbers, and takes any JSON where it fails at a schema."""
    number = {"type": "integer", "minimum": 5, "maximum": 7}
    pair = {"type": "array", "items": {"$ref": "#/$defs/number"}, "minItems": 2, "maxItems": 2}
    schema = {"$defs": {"number": number}, "type": "object", "properties": {"a": pair}, "required": ["a"]}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    for seed in range(3):
        found = llm.create_chat_completion(QUESTION, tools=[tool], tool_choice="required", max_tokens=40, seed=seed)
        (call,) = found["choices"][0]["message"]["tool_calls"]
        (values,) = json.loads(call["function"]["arguments"]).values()
        assert len(values) == 2
        assert all(5 <= value <= 7 for value in values)


NAMED = {"type": "function", "function": {"name": "weather"}}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tools": TOOLS, "tool_choice": NAMED}, "names none of the tools"),
        ({"tool_choice": NAMED}, "names none of the tools"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function"}}, "names none of the tools"),
        ({"tools": [WEATHER], "tool_choice": "weather"}, "tool_choice 'weather': must be none, auto, required"),
        ({"tools": [WEATHER, *TOOLS], "tool_choice": "required"}, "wants one tool; of several, name the one"),
        ({"tool_choice": "required"}, "wants one tool"),
        ({"tools": [{}], "tool_choice": NAMED}, "tools: each needs a function with a name"),
        ({"tools": [5]}, "tools: must be a list of objects"),
        ({"tools": {"weather": CITY}}, "tools: must be a list of objects"),
        ({"functions": [{}], "function_call": {"name": "weather"}}, "functions: each needs a function with a name"),
        ({"functions": [{"name": "now"}], "function_call": {"name": "then"}}, "names none of the functions"),
        ({"functions": [{"name": "now"}], "function_call": 5}, "function_call 5: must be none, auto"),
        ({"tools": [{"type": "function", "function": {"name": "weather", "parameters": 5}}], "tool_choice": NAMED},
         "the parameters of weather must be a JSON schema"),
        ({"functions": [{"name": "f", "parameters": {"type": "objekt"}}], "function_call": {"name": "f"}},
         "the parameters of f: the JSON schema, at #: type 'objekt' must be one of"),
    ],
)  # fmt: skip
def test_tools_that_cannot_be_called_are_refused(llm, settings, message):
    with pytest.raises(InputError, match=message):
        llm.create_chat_completion(QUESTION, max_tokens=4, **settings)
