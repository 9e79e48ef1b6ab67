"""A chat that asks for a format gets it, or an error."""

import json

import pytest

from autodeco.errors import InputError

CHAT = [{"role": "user", "content": "Describe a cat."}]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Z][a-z]{1,6}$"},
        "age": {"type": "integer", "minimum": 1, "maximum": 20},
        "kind": {"enum": ["cat", "dog"]},
    },
    "required": ["name", "age", "kind"],
}
OPENAI = {"type": "json_schema", "json_schema": {"name": "animal", "strict": True, "schema": SCHEMA}}
WILD = {"temperature": 3.0, "top_p": 2.0, "max_tokens": 60}
TOOL = {"type": "function", "function": {"name": "feed", "parameters": {"type": "object", "properties": {}}}}


def check(text):
    animal = json.loads(text)
    assert list(animal) == ["name", "age", "kind"]
    assert animal["name"][0].isupper()
    assert 2 <= len(animal["name"]) <= 7
    assert 1 <= animal["age"] <= 20
    assert animal["kind"] in ("cat", "dog")


@pytest.mark.parametrize(
    "response_format",
    [OPENAI, {"type": "json_schema", "schema": SCHEMA}, {"type": "json_object", "schema": SCHEMA}],
    ids=["openai", "json_schema", "json_object"],
)
@pytest.mark.parametrize("chat_format", ["chat_template.default", "chatml-function-calling", "llama-2"])
def test_every_answer_keeps_to_the_schema(llm, monkeypatch, chat_format, response_format):
    monkeypatch.setattr(llm, "chat_format", chat_format)
    asked = dict(response_format)
    for choice in llm.create_chat_completion(CHAT, response_format=asked, n=2, seed=5, **WILD)["choices"]:
        check(choice["message"]["content"])
    assert asked == response_format
    chunks = llm.create_chat_completion(CHAT, response_format=asked, seed=6, stream=True, **WILD)
    check("".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks))


def test_without_heads_too(llm, monkeypatch):
    heads = llm.heads
    llm.heads = None
    try:
        check(
            llm.create_chat_completion(CHAT, response_format=OPENAI, seed=5, **WILD)["choices"][0]["message"]["content"]
        )
    finally:
        llm.heads = heads


def test_json_objects_and_text(llm):
    answer = llm.create_chat_completion(CHAT, response_format={"type": "json_object"}, seed=2, max_tokens=1)
    assert answer["choices"][0]["message"]["content"].startswith("{")
    plain = llm.create_chat_completion(CHAT, response_format={"type": "text"}, seed=2, max_tokens=4)
    assert plain == plain | llm.create_chat_completion(CHAT, seed=2, max_tokens=4) | {
        name: plain[name] for name in ("id", "created")
    }


@pytest.mark.parametrize(
    ("response_format", "message"),
    [
        ({"type": "jsonschema"}, "its type must be text, json_object or json_schema"),
        ({"schema": SCHEMA}, "its type must be"),
        ("json_object", "its type must be"),
        ({"type": "json_schema"}, r"has no schema; give it as json_schema: {schema: \.\.\.}"),
        ({"type": "json_schema", "json_schema": {"name": "a"}}, "has no schema"),
        (
            {"type": "json_schema", "json_schema": {"schema": {"not": {}}}},
            "at #: has not, which a grammar cannot keep to",
        ),
    ],
)
def test_a_format_that_cannot_be_kept_to_is_refused(llm, response_format, message):
    with pytest.raises(InputError, match=message):
        llm.create_chat_completion(CHAT, response_format=response_format, max_tokens=2)


def test_a_format_beside_what_would_override_it_is_refused(llm, monkeypatch):
    from llama_cpp import LlamaGrammar

    grammar = LlamaGrammar.from_string('root ::= "a"', verbose=False)
    with pytest.raises(InputError, match="response_format and grammar: give one of them"):
        llm.create_chat_completion(CHAT, response_format=OPENAI, grammar=grammar, max_tokens=2)
    monkeypatch.setattr(llm, "chat_format", "chatml-function-calling")
    with pytest.raises(InputError, match="do not keep to it"):
        llm.create_chat_completion(CHAT, response_format=OPENAI, tools=[TOOL], tool_choice="auto", max_tokens=2)
    chosen = {"type": "function", "function": {"name": "feed"}}
    answer = llm.create_chat_completion(CHAT, response_format=OPENAI, tools=[TOOL], tool_choice=chosen, max_tokens=9)
    assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "feed"


def test_a_handler_that_forgets_the_format_is_found_out(llm, monkeypatch):
    monkeypatch.setattr(
        llm, "chat_handler", lambda *, llama, messages, **_: llama.create_completion("A cat", max_tokens=2)
    )
    with pytest.raises(InputError, match="response_format: this chat format"):
        llm.create_chat_completion(CHAT, response_format=OPENAI)
