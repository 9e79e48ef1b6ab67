"""Training data is read line by line, and what cannot be used is named with its line."""

import json

import pytest

from autodeco.data.control import Command, commanded
from autodeco.data.records import PromptNumbers, Record, held_out_records, read_records
from autodeco.errors import InputError

QUESTION = {"role": "user", "content": "What is 2 + 2?"}
ANSWER = {"role": "assistant", "content": "4"}


def write(path, *lines):
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def test_the_forms_of_a_record(tmp_path):
    data = write(
        tmp_path / "data.jsonl",
        {"prompt": "2 + 2 =", "completion": " 4"},
        "",
        {"prompt": [QUESTION], "completion": [ANSWER]},
        {"messages": [QUESTION, ANSWER, QUESTION, ANSWER], "source": "elsewhere"},
        {"text": "2 + 2 = 4"},
    )
    assert list(read_records(data)) == [
        Record(1, "2 + 2 =", " 4"),
        Record(3, [QUESTION], [ANSWER]),
        Record(4, [QUESTION, ANSWER, QUESTION], [ANSWER]),
        Record(5, "", "2 + 2 = 4"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "a"', "line 2: not valid JSON"),
        ("[1, 2]", "line 2: expected a JSON object"),
        ("[" * 100_000, "line 2: not valid JSON"),
        ({"prompt": "a"}, "line 2: the record has no completion"),
        ({"prompt": "a", "completion": ""}, "line 2: the record has no completion"),
        ({"completion": "a"}, "line 2: the record has no prompt"),
        ({"prompt": "a", "completion": [ANSWER]}, "must both be text"),
        ({"prompt": 1, "completion": "a"}, "must both be text"),
        ({"text": ""}, "text must be text"),
        ({"text": ["a"]}, "text must be text"),
        ({"messages": []}, "at least one message"),
        ({"messages": "hello"}, "at least one message"),
        ({"messages": [QUESTION]}, "there is no completion"),
        ({"messages": [ANSWER]}, "there is no completion"),
        ({"messages": [QUESTION, {"role": "assistant"}]}, "must be an object like"),
        ({"messages": [QUESTION, "4"]}, "must be an object like"),
    ],
)
def test_a_record_that_cannot_be_used_is_named_with_its_line(tmp_path, line, message):
    data = write(tmp_path / "data.jsonl", {"prompt": "a", "completion": "b"}, line)
    with pytest.raises(InputError, match=message) as error:
        list(read_records(data))
    assert str(data) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\n  \n"])
def test_an_empty_file_is_refused(tmp_path, content):
    (tmp_path / "data.jsonl").write_bytes(content)
    with pytest.raises(InputError, match="the file is empty"):
        list(read_records(tmp_path / "data.jsonl"))


def test_a_missing_file_and_bytes_that_are_no_text_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        list(read_records(tmp_path / "absent.jsonl"))
    (tmp_path / "data.jsonl").write_bytes(b'{"prompt": "\xff\xfe", "completion": "a"}\n')
    with pytest.raises(InputError, match="line 1: not valid JSON"):
        list(read_records(tmp_path / "data.jsonl"))


CALLED = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add"}}]}
TOOL = {"type": "function", "function": {"name": "add"}}
PARTS = {"role": "user", "content": [{"type": "text", "text": "What is"}, {"type": "text", "text": "2 + 2?"}]}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"messages": None, "prompt": "a", "completion": "b", "text": None}, Record(1, "a", "b")),
        ({"messages": [QUESTION, ANSWER], "prompt": None}, Record(1, [QUESTION], [ANSWER])),
        ({"text": "a b", "prompt": None, "completion": None, "tools": None}, Record(1, "", "a b")),
        ({"messages": [QUESTION, CALLED], "tools": [TOOL]}, Record(1, [QUESTION], [CALLED], [TOOL])),
        ({"messages": [QUESTION, CALLED], "tools": json.dumps([TOOL])}, Record(1, [QUESTION], [CALLED], [TOOL])),
        ({"prompt": [PARTS], "completion": [ANSWER], "tools": []}, Record(1, [PARTS], [ANSWER])),
        ({"prompt": [PARTS], "completion": [ANSWER], "tools": " "}, Record(1, [PARTS], [ANSWER])),
        ({"prompt": "\U0001f600", "completion": "\u00e9"}, Record(1, "\U0001f600", "\u00e9")),
    ],
)
def test_columns_that_are_null_are_not_there_and_tools_are_kept(tmp_path, line, expected):
    (tmp_path / "data.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(line).encode() + b"\r\n")
    assert list(read_records(tmp_path / "data.jsonl")) == [expected]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"messages": None, "prompt": None}, "the record has no prompt"),
        ({"messages": [QUESTION, ANSWER], "tools": "[{"}, "tools is a text that is not valid JSON"),
        ({"messages": [QUESTION, ANSWER], "tools": {"type": "function"}}, "tools must be a list of objects"),
        ({"messages": [QUESTION, ANSWER], "tools": ["add"]}, "tools must be a list of objects"),
        ({"messages": [{"role": "user", "content": None}, ANSWER]}, "must be an object like"),
        ({"messages": [QUESTION, CALLED | {"tool_calls": []}]}, "must be an object like"),
        ({"messages": [{"role": "user", "content": 4}, ANSWER]}, "must be text or a list of parts, not 4"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}, ANSWER]},
            "a part of type image is in messages",
        ),
        ({"messages": [{"role": "user", "content": ["a"]}, ANSWER]}, "a part of type a is in messages"),
        ('{"prompt": "a \\ud83d b", "completion": "c"}', r"holds half a surrogate pair, .ud83d, which is no character"),
        ('{"messages": [{"role": "user", "content": "\\udc00"}]}', r"holds half a surrogate pair, .udc00"),
    ],
)
def test_messages_and_tools_that_cannot_be_read_are_named_with_their_line(tmp_path, line, message):
    data = write(tmp_path / "data.jsonl", {"prompt": "a", "completion": "b"}, line)
    with pytest.raises(InputError, match=message) as error:
        list(read_records(data))
    assert "line 2: " in str(error.value)


def test_records_with_a_prompt_in_common_are_held_out_together():
    asked = ["a", "b", "a", "c", [QUESTION], "b", [QUESTION], "", ""]
    records = [Record(i, prompt, "x" if prompt else "text") for i, prompt in enumerate(asked)]
    records[6] = Record(6, [QUESTION], [ANSWER], [TOOL])  # another prompt: the model reads its tools
    number = PromptNumbers()
    prompts = [number(i, record) for i, record in enumerate(records)]
    assert prompts == [0, 1, 0, 3, 4, 1, 6, 7, 7]
    sizes = set()
    for seed in range(20):
        held_out = held_out_records(range(9), prompts, 0.5, seed)
        chosen = {prompts[i] for i in held_out}
        assert held_out == {i for i, prompt in enumerate(prompts) if prompt in chosen}
        assert len(chosen) == 3
        sizes.add(len(held_out))
    assert len(sizes) > 1, "no prompt that comes twice was held out: this tests nothing"
    assert held_out_records([5, 5, 8], [5, 5, 8], 0.9, 0) in ({5}, {8})
    with pytest.raises(InputError, match="there is one prompt to learn from; give at least two"):
        held_out_records(range(3), [0, 0, 0], 0.5, 0)


def test_a_command_is_put_behind_the_last_part_of_a_prompt():
    command = Command("low", "Be sure.", False)
    (asked,) = commanded(Record(1, [PARTS], [ANSWER], [TOOL]), command).prompt
    assert asked["content"] == [{"type": "text", "text": "What is"}, {"type": "text", "text": "2 + 2? Be sure."}]
    assert commanded(Record(1, [PARTS], [ANSWER], [TOOL]), command).tools == [TOOL]
    with pytest.raises(InputError, match="must be text to be given a command"):
        commanded(Record(1, [QUESTION, CALLED], [ANSWER]), command)
