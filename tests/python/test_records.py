"""Training data is read line by line, and what cannot be used is named with its line."""

import json

import pytest

from autodeco.data.records import Record, read_records
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
