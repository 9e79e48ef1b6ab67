"""Answers that a model drew are learned as the tokens that were drawn, whatever a tokenizer makes of their text."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from autodeco.base.opening import open_vocabulary
from autodeco.base.tokenizer import Tokenizer
from autodeco.data.records import Record, read_records
from autodeco.rollout_settings import RolloutSettings
from autodeco.rollouts import rollout
from autodeco.traces.collecting import collect
from autodeco.traces.format import read_manifest
from autodeco.traces.settings import CollectSettings
from builders.hf_folders import write_smollm2

END = 2  # <|im_end|>, SmolLM2's end-of-generation token
ASKED = [{"role": "user", "content": "Say hello"}]


@pytest.fixture(scope="module")
def vocabulary(smollm2):
    llm = open_vocabulary(smollm2)
    yield llm
    llm.close()


@pytest.fixture(scope="module", params=["llama.cpp", "transformers"])
def tokenizer(request, vocabulary, smollm2, tmp_path_factory):
    if request.param == "llama.cpp":
        return Tokenizer(vocabulary)
    transformers = pytest.importorskip("transformers")
    from autodeco.hugging_face.model import HuggingFaceTokenizer

    folder = tmp_path_factory.mktemp("hf") / "model"
    write_smollm2(smollm2, folder, with_weights=False)
    return HuggingFaceTokenizer(transformers.AutoTokenizer.from_pretrained(folder), {END})


def letters(vocabulary, text) -> list[int]:
    """``text`` as one token a byte, which no tokenizer makes of it."""
    return [token for letter in text for token in vocabulary.tokenize(letter.encode(), add_bos=False)]


@pytest.mark.parametrize("text", ["hello there", " hello", "\u00e9t\u00e9 \U0001f600!", "  \n\n x", "<|im_start|>a"])
@pytest.mark.parametrize("is_chat", [False, True])
def test_tokens_that_spell_the_completion_are_its_tokens(tokenizer, vocabulary, text, is_chat):
    drawn = (*letters(vocabulary, text), END) if "<" not in text else (1, *letters(vocabulary, "a"), END)
    prompt = ASKED if is_chat else "Say: "
    completion = [{"role": "assistant", "content": text}] if is_chat else text
    ids, made = tokenizer(Record(1, prompt, completion, completion_ids=drawn))
    assert made == list(drawn)
    assert ids == tokenizer.prompt_ids(prompt)
    if "<" not in text:
        assert tokenizer(Record(1, prompt, completion))[1] != made


def test_an_answer_that_was_cut_off_gets_no_end_that_was_not_drawn(tokenizer, vocabulary):
    drawn = letters(vocabulary, "hell")
    assert tokenizer(Record(1, "Say: ", "hell", completion_ids=tuple(drawn)))[1] == drawn
    assert tokenizer(Record(1, "Say: ", "hell"))[1][-1] == END
    inside = vocabulary.tokenize("\u00e9".encode(), add_bos=False) + letters(vocabulary, "\u4e2d")[:-1]
    text = vocabulary.detokenize(inside).decode("utf-8", "ignore")
    assert tokenizer(Record(1, "Say: ", text, completion_ids=tuple(inside)))[1] == inside


def test_tokens_behind_the_end_are_not_learned(tokenizer, vocabulary):
    drawn = (*letters(vocabulary, "hi"), END, END, 7)
    assert tokenizer(Record(1, "Say: ", "hi", completion_ids=drawn))[1] == [*letters(vocabulary, "hi"), END]


@pytest.mark.parametrize(
    "ids", [(5, 6, 7), (10**9,), (2**40, 3), (END,)], ids=["other text", "none of the vocabulary", "too large", "end"]
)
def test_tokens_that_do_not_spell_the_completion_are_passed_over(tokenizer, ids):
    record = Record(1, "Say: ", "hello")
    assert tokenizer(Record(1, "Say: ", "hello", completion_ids=ids)) == tokenizer(record)


@pytest.mark.parametrize("column", [None, [], "1 2", ["1"], [1.5], [-1], {"a": 1}, 7, [[1]], [True, "x"]])
def test_a_column_of_that_name_with_something_else_in_it_is_passed_over(tmp_path, column):
    line = {"prompt": "a", "completion": "b", "completion_ids": column}
    (tmp_path / "data.jsonl").write_text(json.dumps(line) + "\n")
    assert list(read_records(tmp_path / "data.jsonl")) == [Record(1, "a", "b")]


def test_what_a_rollout_drew_is_what_is_collected(smollm2, tmp_path):
    """At temperature 1, where some of the answers are drawn as tokens that a tokenizer would not make of them."""
    problems, data = tmp_path / "problems.jsonl", tmp_path / "data.jsonl"
    asked = ["Write a strange word", "Say something in Latin", "Make up a name"]
    lines = [{"prompt": [{"role": "user", "content": text}], "answer": "a"} for text in asked]
    problems.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = RolloutSettings(n=6, max_tokens=24, least_score=0.0, temperature=1.5, seed=3)
    rollout(smollm2, problems, data, settings, threads=1, progress=False)
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    collect(smollm2, data, tmp_path / "traces", CollectSettings(context=256), threads=1, progress=False)
    shards = [load_file(tmp_path / "traces" / shard.file) for shard in read_manifest(tmp_path / "traces").shards]
    label, record = (np.concatenate([shard[name] for shard in shards]) for name in ("label", "record"))
    assert len(rows) == 18
    for index, row in enumerate(rows):
        assert label[record == index].tolist() == row["completion_ids"]
        assert (row["completion_ids"][-1] == END) == (row["finish"] == "end")
    vocabulary = open_vocabulary(smollm2)
    again = [Tokenizer(vocabulary)(Record(1, row["prompt"], row["completion"]))[1] for row in rows]
    vocabulary.close()
    finished = [i for i, row in enumerate(rows) if row["finish"] == "end"]
    assert any(again[i] != rows[i]["completion_ids"] for i in range(len(rows)))
    assert finished
