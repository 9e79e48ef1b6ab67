"""Every form of a record becomes the same tokens with llama.cpp and with transformers, and chats those of their use."""

import json

import pytest
from llama_cpp.llama_chat_format import CHATML_CHAT_TEMPLATE, Jinja2ChatFormatter

from autodeco.base.tokenizer import Tokenizer
from autodeco.data.records import Record, read_records
from autodeco.data.tokenizing import thought_once
from autodeco.errors import InputError
from autodeco.llama.chat import use_own_templates
from builders.hf_folders import write_smollm2

ASKED = {"role": "user", "content": "How warm is Rome?"}
ANSWER = {"role": "assistant", "content": "21 degrees, I think; None knows."}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "of a 'city' <now>",
        "parameters": {"type": "object", "properties": {}},
    },
}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome \u00e9"}}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
TOLD = {"role": "tool", "content": "21", "name": None}
PARTS = {"role": "user", "content": [{"type": "text", "text": "How warm"}, {"type": "text", "text": "is Rome?"}]}
CHAT = {
    "messages": {"messages": [ASKED, ANSWER]},
    "prompt and completion": {"prompt": [ASKED], "completion": [ANSWER]},
    "null columns": {"messages": None, "text": None, "prompt": [ASKED], "completion": [ANSWER], "tools": None},
    "null keys": {"messages": [ASKED | {"name": None, "tool_calls": None}, ANSWER | {"tool_calls": None}]},
    "several turns": {"messages": [ASKED, ANSWER, ASKED, ANSWER]},
    "parts": {"messages": [PARTS, ANSWER | {"content": [{"type": "text", "text": "21"}]}]},
    "tools": {"messages": [ASKED, ANSWER], "tools": [TOOL]},
    "tools as text": {"messages": [ASKED, ANSWER], "tools": json.dumps([TOOL])},
    "no tools": {"messages": [ASKED, ANSWER], "tools": []},
    "a call": {"messages": [ASKED, CALLED], "tools": [TOOL]},
    "a call before": {"messages": [ASKED, CALLED, TOLD, ANSWER], "tools": [TOOL]},
    "a call without content": {"messages": [ASKED, {k: CALLED[k] for k in ("role", "tool_calls")}, TOLD, ANSWER]},
}
TEXT = {
    "prompt and completion": {"prompt": "1 + 1 =", "completion": " 2"},
    "null columns": {"messages": None, "prompt": "1 + 1 =", "completion": " 2"},
    "text": {"text": "1 + 1 = 2", "prompt": None},
}
LOOP = "{%% for m in messages %%}<|im_start|>{{ m.role }}\n%s<|im_end|>\n{%% endfor %%}"
OPEN = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CALLS = "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}"
TOOLS = "{% if tools %}<tools>{% for t in tools %}{{ t | tojson }}\n{% endfor %}</tools>{% endif %}"
PARTS_READ = "{% for p in m.content or [] %}[{{ p.text }}]{% endfor %}"
TEMPLATES = {
    "the model's own": None,
    "known to llama-cpp-python": CHATML_CHAT_TEMPLATE,
    "prints contents": TOOLS + LOOP % ("{{ m.content }}" + CALLS) + OPEN,
    "adds contents": TOOLS + LOOP % ("{{ m['content'] + '' }}" + CALLS) + OPEN,
    "prints JSON": TOOLS
    + LOOP % ("{% if m.content is string %}{{ m.content }}{% else %}{{ m.content | tojson }}{% endif %}" + CALLS)
    + OPEN,
    "reads parts": TOOLS
    + LOOP % ("{% if m.content is string %}{{ m.content }}{% else %}" + PARTS_READ + "{% endif %}" + CALLS)
    + OPEN,
    "reads null": LOOP
    % ("{% if m.content is none %}calls:{{ m.tool_calls | tojson }}{% else %}{{ m.content }}{% endif %}")
    + OPEN,
    "opens thoughts": TOOLS + LOOP % ("{{ m.content }}" + CALLS) + OPEN.replace("assistant\n", "assistant\n<think>\n"),
}  # fmt: skip
WRITES_NO_CALLS = ("the model's own", "known to llama-cpp-python")


class Captured(Exception):
    """The prompt of a completion that is not made."""


@pytest.fixture(scope="module")
def hf_tokenizer(smollm2, tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("hf") / "model"
    write_smollm2(smollm2, folder, with_weights=False)
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(params=TEMPLATES)
def template(request, llm):
    """The name of a template, which ``llm`` has meanwhile."""
    own = llm.metadata["tokenizer.chat_template"]
    llm.metadata["tokenizer.chat_template"] = TEMPLATES[request.param] or own
    use_own_templates(llm, None)
    yield request.param
    llm.metadata["tokenizer.chat_template"] = own
    use_own_templates(llm, None)


def read(tmp_path, fields) -> Record:
    (tmp_path / "data.jsonl").write_text(json.dumps(fields) + "\n")
    (record,) = read_records(tmp_path / "data.jsonl")
    return record


def prompt_in_use(llm, messages, tools, monkeypatch):
    """The token ids that ``create_chat_completion`` begins with."""

    def captured(**settings):
        raise Captured(settings["prompt"])

    monkeypatch.setattr(llm, "create_completion", captured, raising=False)
    with pytest.raises(Captured) as found:
        llm.create_chat_completion(messages, tools=tools)
    return found.value.args[0]


def hugging_face(hf_tokenizer, llm):
    from autodeco.hugging_face.model import HuggingFaceTokenizer

    hf_tokenizer.chat_template = llm.metadata["tokenizer.chat_template"]
    return HuggingFaceTokenizer(hf_tokenizer, {2})


@pytest.mark.parametrize("form", CHAT)
def test_a_chat_begins_with_the_tokens_of_its_use_on_both_routes(
    template, form, llm, hf_tokenizer, tmp_path, monkeypatch
):
    fields = CHAT[form]
    record = read(tmp_path, fields)
    if form == "a call" and template in WRITES_NO_CALLS:
        for tokenizer in (Tokenizer(llm), hugging_face(hf_tokenizer, llm)):
            with pytest.raises(InputError, match="does not write the call of the tool weather"):
                tokenizer(record)
        return
    prompt, completion = Tokenizer(llm)(record)
    asked = (fields.get("messages") or fields["prompt"])[: len(record.prompt)]
    assert prompt == prompt_in_use(llm, asked, record.tools, monkeypatch)
    assert hugging_face(hf_tokenizer, llm)(record) == (prompt, completion)
    text = llm.detokenize(prompt, special=True).decode()
    answer = llm.detokenize(completion, special=True).decode()
    if all(isinstance(message.get("content"), str) for message in asked) and "name" not in str(asked):
        source = llm.metadata["tokenizer.chat_template"]
        stock = Jinja2ChatFormatter(source, "<|im_end|>", "<|im_start|>")
        assert text == stock(messages=asked, tools=record.tools).prompt
    assert "None" not in text.replace(ANSWER["content"], "")
    assert "null" not in text + answer
    assert "type': 'text" not in text + answer
    assert text.count("warm") == len([m for m in asked if m["role"] == "user"])
    assert ("<tools>" in text) == bool(record.tools and (TEMPLATES[template] or "").startswith(TOOLS))
    assert answer.endswith("<|im_end|>")
    assert ("weather" if form == "a call" else "21") in answer


@pytest.mark.parametrize("form", TEXT)
def test_a_text_becomes_the_same_tokens_on_both_routes(form, llm, hf_tokenizer, tmp_path):
    record = read(tmp_path, TEXT[form])
    prompt, completion = Tokenizer(llm)(record)
    assert hugging_face(hf_tokenizer, llm)(record) == (prompt, completion)
    assert llm.detokenize([*prompt, *completion], special=True).decode() == "1 + 1 = 2<|im_end|>"


@pytest.mark.parametrize(
    ("prompt", "answer", "expected"),
    [
        ("assistant\n<think>\n", "<think>\nhm\n</think>\n\n4", "hm\n</think>\n\n4"),
        ("assistant\n<think>\n", "<think>hm</think>4", "hm</think>4"),
        ("assistant\n<think>", "\n<think>\nhm</think>4", "\nhm</think>4"),
        ("assistant\n<think>\n", "</think><think>\nhm</think>4", "hm</think>4"),
        ("assistant\n<think>\n", "hm</think>4", "hm</think>4"),
        ("assistant\n<think>\n", "</think>\n4", "</think>\n4"),
        ("assistant\n<think>\n</think>\n\n", "<think>\nhm\n</think>\n\n4", "4"),
        ("assistant\n<think></think>", "4", "4"),
        ("assistant\n", "<think>\nhm\n</think>4", "<think>\nhm\n</think>4"),
        ("assistant\n", "<think></think><think>\nhm</think>4", "<think>\nhm</think>4"),
        ("assistant\n<think>\n", "<thinking>4", "<thinking>4"),
        ("a < b and b> ", "b> 4", "b> 4"),
    ],
)
def test_thoughts_are_opened_once(prompt, answer, expected):
    assert thought_once(prompt, answer) == expected


def test_a_template_that_opens_thoughts_and_data_that_have_them_open_them_once(llm, hf_tokenizer, tmp_path):
    own = llm.metadata["tokenizer.chat_template"]
    llm.metadata["tokenizer.chat_template"] = TEMPLATES["opens thoughts"]
    try:
        for content in ("<think>\nhm\n</think>\nwarm", "<think>hm\n</think>\nwarm"):
            record = read(tmp_path, {"messages": [ASKED, {"role": "assistant", "content": content}]})
            prompt, completion = Tokenizer(llm)(record)
            assert hugging_face(hf_tokenizer, llm)(record) == (prompt, completion)
            text = llm.detokenize([*prompt, *completion], special=True).decode()
            assert text.endswith("<|im_start|>assistant\n<think>\nhm\n</think>\nwarm<|im_end|>")
    finally:
        llm.metadata["tokenizer.chat_template"] = own


def test_a_format_that_the_caller_chose_stays(llm):
    before = llm.chat_format
    llm.chat_format = "llama-2"
    use_own_templates(llm, "llama-2")
    assert llm.chat_format == "llama-2"
    use_own_templates(llm, None)
    assert llm.chat_format == before == "chat_template.default"
