"""Prompts that are longer than what the model was trained with are refused in one line of ours, before any answer."""

import json

import pytest

from autodeco.base.trained_context import check_prompts, trained_context
from autodeco.data.json_lines import Line
from autodeco.errors import InputError
from autodeco.export.layout import open_layout
from builders.commands import refused
from builders.word_models import CONTEXT, write_llama


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("model") / "words.gguf")


def write(path, sizes):
    lines = [{"prompt": f"{number} " + "she " * size, "answer": "a"} for number, size in enumerate(sizes)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("command", ["reward", "rollout", "anchors"])
def test_the_command_says_how_many_prompts_are_too_long_and_the_longest(model, tmp_path, command):
    long, short = (
        write(tmp_path / "long.jsonl", [2, 2100, 2, 2200, 3, 2]),
        write(tmp_path / "short.jsonl", [1, 2, 3, 4]),
    )
    files = ["--problems", short, "--anchors", long] if command == "anchors" else ["--problems", long]
    if command != "rollout":
        pytest.importorskip("torch")
    else:
        files += ["--checker", "exact"]
    command = "rollout" if command == "rollout" else "reward"
    error = refused(command, model, *files, "-o", tmp_path / "out", "--max-tokens", 8)
    assert "long.jsonl, line 4: the prompt has 22" in error
    assert "with answers of up to 8, 2 prompts, this the longest, exceed the 2048 tokens that the model was" in error
    assert "leave such prompts out, or lower --max-tokens" in error
    assert not (tmp_path / "out").exists()


def test_a_prompt_may_fill_the_context_with_its_answer():
    problem = Line(prompt="a")
    problem.where = "a.jsonl, line 1"
    check_prompts([problem], [[1] * 92], 8, 100)
    check_prompts([problem], [[1] * 920], 8, None)
    with pytest.raises(
        InputError, match=r"^a\.jsonl, line 1: the prompt has 93 tokens; .* 8, this prompt exceeds the 100"
    ):
        check_prompts([problem], [[1] * 93], 8, 100)


def test_the_context_is_what_the_file_says(model):
    assert trained_context(open_layout(model)) == CONTEXT == 2048
