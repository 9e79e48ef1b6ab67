"""Traces hold what llama.cpp computed for each completion token, survive interruptions, and refuse what cannot be."""

import json
from dataclasses import replace

import llama_cpp
import numpy as np
import pytest
from safetensors.numpy import load_file

from autodeco import cli
from autodeco.base.identity import model_fingerprint
from autodeco.base.output_matrix import read_output_matrix
from autodeco.base.states import StateReader, check_float16, open_stateful
from autodeco.base.tokenizer import Tokenizer
from autodeco.data.records import Record
from autodeco.errors import InputError
from autodeco.runs.locks import locked_folder
from autodeco.traces import collecting
from autodeco.traces.collecting import collect
from autodeco.traces.format import read_manifest
from autodeco.traces.settings import CollectSettings

SUMS = [(1, 2), (3, 4), (5, 1), (2, 7), (6, 3)]
END = 2  # <|im_end|>, SmolLM2's end-of-generation token


def chat(a, b):
    return {
        "messages": [
            {"role": "user", "content": f"What is {a} + {b}?"},
            {"role": "assistant", "content": f"{a} + {b} = {a + b}"},
        ]
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "sums.jsonl"
    path.write_text("".join(json.dumps(chat(a, b)) + "\n" for a, b in SUMS))
    return path


@pytest.fixture(scope="module")
def settings():
    return CollectSettings(context=256, shard_tokens=16)


@pytest.fixture(scope="module")
def traces(smollm2, data, settings, tmp_path_factory):
    """The folder of a whole run: 5 records of 8 tokens, in shards of at least 16."""
    folder = tmp_path_factory.mktemp("traces") / "whole"
    collect(smollm2, data, folder, settings, threads=1, progress=False)
    return folder


@pytest.fixture(scope="module")
def base(smollm2):
    llm = open_stateful(smollm2, n_ctx=256, n_batch=256, n_threads=1, n_threads_batch=1)
    yield llm
    llm.close()


def shards(folder):
    return [load_file(folder / shard.file) for shard in read_manifest(folder).shards]


def test_every_completion_token_is_a_label_and_the_last_one_ends_the_answer(traces, base):
    tokens = {
        name: np.concatenate([shard[name] for shard in shards(traces)]) for name in ("label", "record", "position")
    }
    for index, (a, b) in enumerate(SUMS):
        mine = tokens["record"] == index
        *answer, end = tokens["label"][mine].tolist()
        assert base.detokenize(answer) == f"{a} + {b} = {a + b}".encode()
        assert end == END
        prompt, _ = Tokenizer(base)(Record(1, chat(a, b)["messages"][:1], chat(a, b)["messages"][1:]))
        assert tokens["position"][mine].tolist() == list(range(len(prompt) - 1, len(prompt) - 1 + len(answer) + 1))


def test_the_kept_states_are_those_llama_cpp_gives_one_token_at_a_time(traces, base):
    messages = chat(*SUMS[1])["messages"]
    prompt, completion = Tokenizer(base)(Record(1, messages[:1], messages[1:]))
    kept = np.concatenate([shard["hidden"][shard["record"] == 1] for shard in shards(traces)])
    assert kept.dtype == np.float16
    llama_cpp.llama_set_embeddings(base.ctx, True)
    base.reset()
    base.eval(prompt)
    for row, token in zip(kept, completion, strict=True):
        state = np.ctypeslib.as_array(llama_cpp.llama_get_embeddings_ith(base.ctx, -1), (576,))
        # llama.cpp rounds differently in batches of another size, by up to 4% here; another token's state is 60% off.
        assert np.linalg.norm(row - state) <= 0.1 * np.linalg.norm(state)
        base.eval([token])
    llama_cpp.llama_set_embeddings(base.ctx, False)


def test_the_manifest_says_what_was_run_and_how_exact_the_logits_are(traces, smollm2):
    manifest = read_manifest(traces)
    assert manifest.complete
    assert manifest.next_record == len(SUMS)
    assert manifest.model.hidden_size == 576
    assert manifest.model.vocab_size == 49152
    assert manifest.model.architecture == "llama"
    assert manifest.model.path == str(smollm2.resolve())
    assert manifest.model.fingerprint.startswith("sha256:")
    assert [shard.tokens for shard in manifest.shards] == [16, 16, 8]
    assert [(shard.first_record, shard.next_record) for shard in manifest.shards] == [(0, 2), (2, 4), (4, 5)]
    assert 1e-4 < manifest.logits_error < 0.03  # quantized by quantized products: about 1.4% here, never exact
    assert manifest.logits_checked == 16  # all tokens of the first shard, fewer than 64
    assert manifest.made["command"]
    assert {"autodeco", "python", "llama-cpp-python", "numpy"} <= manifest.made["versions"].keys()


def test_an_interrupted_run_continues_to_the_same_traces(traces, smollm2, data, settings, tmp_path, monkeypatch):
    read = StateReader.read
    calls = []

    def interrupted(self, prompt, completion):
        calls.append(prompt)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return read(self, prompt, completion)

    monkeypatch.setattr(StateReader, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        collect(smollm2, data, tmp_path, settings, threads=1, progress=False)
    assert not read_manifest(tmp_path).complete
    assert read_manifest(tmp_path).next_record == 2
    monkeypatch.setattr(StateReader, "read", read)
    collect(smollm2, data, tmp_path, settings, threads=1, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in traces.iterdir())
    for one, other in zip(shards(tmp_path), shards(traces), strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    assert read_manifest(tmp_path).logits_error == read_manifest(traces).logits_error


def test_two_processes_do_not_write_the_same_folder(smollm2, data, settings, tmp_path):
    with locked_folder(tmp_path / "traces"), pytest.raises(InputError, match="traces: another process writes there"):
        collect(smollm2, data, tmp_path / "traces", settings, threads=1, progress=False)
    assert [file.name for file in (tmp_path / "traces").iterdir()] == [".lock"]


def test_a_finished_run_is_not_run_again(traces, smollm2, data, settings, monkeypatch):
    monkeypatch.setattr(collecting, "open_stateful", lambda *_, **__: pytest.fail("the model was opened"))
    assert collect(smollm2, data, traces, settings, threads=1, progress=False).complete


def test_another_run_in_the_same_folder_is_refused(traces, smollm2, data, settings, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps(chat(1, 1)) + "\n")
    with pytest.raises(InputError, match="another data"):
        collect(smollm2, other, traces, settings, threads=1, progress=False)
    with pytest.raises(InputError, match="another context 256"):
        collect(smollm2, data, traces, CollectSettings(context=128, shard_tokens=16), threads=1, progress=False)


def test_logits_that_cannot_be_rebuilt_are_refused_and_nothing_is_kept(smollm2, data, settings, tmp_path, monkeypatch):
    def doubled(path):
        matrix = read_output_matrix(path)
        return type(matrix)(**{**matrix.__dict__, "scale": 2.0})

    monkeypatch.setattr(collecting, "read_output_matrix", doubled)
    with pytest.raises(InputError, match=r"rebuilt from hidden states are \d+\.\d% off"):
        collect(smollm2, data, tmp_path / "traces", settings, threads=1, progress=False)
    assert not list((tmp_path / "traces").glob("*.safetensors"))


def test_prompts_that_fill_the_context_are_skipped_and_long_completions_cut(smollm2, tmp_path):
    long = "one two three four five six seven eight nine ten " * 20
    data = tmp_path / "data.jsonl"
    records = [{"prompt": long, "completion": "x"}, {"prompt": "Count:", "completion": f" {long}"}]
    data.write_text("".join(json.dumps(record) + "\n" for record in records))
    manifest = collect(smollm2, data, tmp_path / "traces", CollectSettings(context=64), threads=1, progress=False)
    assert (manifest.skipped, manifest.truncated) == (1, 1)
    (shard,) = shards(tmp_path / "traces")
    assert shard["record"].tolist() == [1] * manifest.tokens
    assert shard["position"][-1] + 2 == 64  # the last label is the last token that fits
    data.write_text(json.dumps(records[0]) + "\n")
    with pytest.raises(InputError, match="fills the context of 64"):
        collect(smollm2, data, tmp_path / "none", CollectSettings(context=64), threads=1, progress=False)


def test_states_beyond_float16_are_refused(smollm2, data, settings, tmp_path, monkeypatch):
    read = StateReader.read

    def large(self, prompt, completion):
        for start, hidden, logits in read(self, prompt, completion):
            yield start, hidden * 1e6, logits

    monkeypatch.setattr(StateReader, "read", large)
    with pytest.raises(InputError, match=r"line 1: a hidden state holds .* more than float16 can"):
        collect(smollm2, data, tmp_path, settings, threads=1, progress=False)


@pytest.mark.parametrize("value", [65536.0, -np.inf, np.nan])
def test_what_float16_cannot_hold_is_named(value):
    check_float16(np.array([[0.0, 65504.0, -65504.0]], np.float32), "model.gguf")
    check_float16(np.zeros((0, 3), np.float32), "model.gguf")
    with pytest.raises(InputError, match=f"model.gguf: a hidden state holds {abs(value):g}, more than float16 can"):
        check_float16(np.array([[0.0, value]], np.float32), "model.gguf")


@pytest.mark.parametrize(
    ("prompt", "completion", "expected"),
    [
        ("The capital of France is", " Paris", [" Paris"]),
        ("Say: ", "hello", ["hello"]),  # alone " hello" would be one token, but the prompt's space is already there
        ("un", "happy", ["happy"]),  # tokens of the prompt stay, though "unhappy" would be split elsewhere
        ("Hi", " there<|im_end|>\nmore", [" there"]),  # nothing is generated behind the end
    ],
)
def test_the_completion_continues_the_tokens_of_the_prompt(base, prompt, completion, expected):
    prompt_ids, ids = Tokenizer(base)(Record(1, prompt, completion))
    assert prompt_ids == base.tokenize(prompt.encode(), add_bos=False, special=True)
    assert [base.detokenize([token]).decode() for token in ids[:-1]] == expected
    assert ids[-1] == END


def test_without_append_end_plain_text_has_no_end(base):
    assert END not in Tokenizer(base, append_end=False)(Record(1, "Hi", " there"))[1]


def test_a_chat_prompt_is_what_the_template_of_the_model_writes(base):
    prompt, completion = Tokenizer(base)(Record(1, *[chat(1, 2)["messages"][i : i + 1] for i in (0, 1)]))
    text = base.detokenize(prompt, special=True).decode()
    assert text.startswith("<|im_start|>system\n")
    assert text.endswith("<|im_start|>user\nWhat is 1 + 2?<|im_end|>\n<|im_start|>assistant\n")
    assert base.detokenize(completion, special=True).decode() == "1 + 2 = 3<|im_end|>"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ('{"prompt": "a"}\n', "line 1: the record has no completion"),
        ("{\n", "line 1: not valid JSON"),
    ],
)
def test_bad_data_ends_the_command_with_one_line(smollm2, tmp_path, capsys, content, message):
    data = tmp_path / "data.jsonl"
    data.write_text(content)
    assert cli.main(["collect", str(smollm2), "--data", str(data), "-o", str(tmp_path / "traces")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "traces").exists()


@pytest.mark.parametrize(("name", "content"), [("absent.gguf", None), ("text.gguf", b"hello"), ("short.gguf", b"GGUF")])
def test_a_model_that_is_none_ends_the_command_with_one_line(data, tmp_path, capsys, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert cli.main(["collect", str(tmp_path / name), "--data", str(data), "-o", str(tmp_path / "traces")]) == 2
    error = capsys.readouterr().err
    assert name in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("layout", ["merged", "embedded"])
def test_a_file_that_brings_heads_counts_as_the_model_in_it(smollm2, exported, layout):
    both = exported("f16", layout)
    assert model_fingerprint(both) == model_fingerprint(smollm2)
    one, other = read_output_matrix(both), read_output_matrix(smollm2)
    np.testing.assert_array_equal(one.rows(49000, 49152), other.rows(49000, 49152))


def test_a_prompt_that_begins_like_the_one_before_gives_the_same_states(base):
    records = [chat(a, b)["messages"] for a, b in SUMS[:2]]
    (first, answer), (second, _) = (Tokenizer(base)(Record(1, r[:1], r[1:])) for r in records)
    reader = StateReader(base)
    afresh = [hidden.copy() for _, hidden, _ in reader.read(first, answer)]
    list(reader.read(second, answer))
    after = [hidden.copy() for _, hidden, _ in reader.read(first, answer)]
    assert np.linalg.norm(after[0] - afresh[0]) <= 0.1 * np.linalg.norm(afresh[0])


def test_all_of_a_text_without_a_prompt_is_learned(base):
    ids = base.tokenize(b"One two three", add_bos=False)
    prompt, completion = Tokenizer(base)(Record(1, "", "One two three"))
    # SmolLM2 begins no text with a token of its own, so the text's first token predicts the second.
    assert (prompt, completion) == (ids[:1], [*ids[1:], base.token_eos()])


def test_each_answer_is_read_behind_commands_too_and_held_out_ones_behind_new_wordings(smollm2, data, base, tmp_path):
    settings = CollectSettings(context=256, shard_tokens=16, control=True, validation_share=0.4)
    manifest = collect(smollm2, data, tmp_path, settings, threads=1, progress=False)
    control = read_manifest(tmp_path).control
    assert control == manifest.control
    assert len(control.held_out) == 2
    columns = {
        name: np.concatenate([shard[name] for shard in shards(tmp_path)])
        for name in ("label", "record", "position", "command", "hidden")
    }
    for index, sums in enumerate(SUMS):
        record = Record(1, chat(*sums)["messages"][:1], chat(*sums)["messages"][1:])
        variants = control.variants(index, record)
        assert len(variants) == (5 if index in control.held_out else 3)
        mine = columns["record"] == index
        assert columns["command"][mine].tolist() == [command for command, _ in variants for _ in range(8)]
        for command, variant in variants:
            prompt, completion = Tokenizer(base)(variant)
            assert command == 0 or control.commands[command - 1].text in base.detokenize(prompt).decode()
            rows = mine & (columns["command"] == command)
            assert columns["label"][rows].tolist() == completion
            assert columns["position"][rows][0] == len(prompt) - 1
        none, low = (columns["hidden"][mine & (columns["command"] == variants[i][0])] for i in (0, 1))
        assert np.linalg.norm(none[0] - low[0]) > 0.1 * np.linalg.norm(none[0])  # another prompt, another state


def test_answers_to_equal_prompts_are_held_out_together(smollm2, tmp_path):
    pytest.importorskip("torch")
    from autodeco.training.trace_tokens import TraceTokens

    asked = ["one", "two", "one", "three", "two", "one", "four"]
    lines = [{"prompt": f"Count to {word}:", "completion": f" {i} and"} for i, word in enumerate(asked)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = CollectSettings(context=64, shard_tokens=8, validation_share=0.5)
    for control in (False, True):
        folder = tmp_path / str(control)
        given = replace(settings, control=control)
        manifest = collect(smollm2, tmp_path / "data.jsonl", folder, given, threads=1, progress=False)
        found = {n: np.concatenate([shard[n] for shard in shards(folder)]) for n in ("record", "prompt")}
        assert set(zip(found["record"].tolist(), found["prompt"].tolist(), strict=True)) == {
            (0, 0), (1, 1), (2, 0), (3, 3), (4, 1), (5, 0), (6, 6)
        }  # fmt: skip
        tokens = TraceTokens(folder, read_manifest(folder))
        for seed in range(4):
            parts = [{asked[i] for i in tokens.records(part)} for part in tokens.split(0.5, seed)]
            assert not parts[0] & parts[1]
            assert [len(part) for part in parts] == [2, 2]
    assert {asked[i] for i in manifest.control.held_out} == parts[1]
    older = tmp_path / "True" / "traces.json"
    older.write_text(older.read_text().replace('"prompts": true,', ""))
    assert not read_manifest(tmp_path / "True").prompts
    assert len(TraceTokens(tmp_path / "True", read_manifest(tmp_path / "True"))) == len(tokens)


def test_commands_that_cannot_be_given_end_the_command_before_the_work(smollm2, tmp_path, capsys):
    data, commands = tmp_path / "data.jsonl", tmp_path / "commands.json"
    data.write_text(json.dumps(chat(1, 2)) + "\n" + json.dumps({"text": "no prompt"}) + "\n")
    command = ["collect", str(smollm2), "--data", str(data), "-o", str(tmp_path / "traces")]
    commands.write_text("{}")
    for flags, message in (
        (["--control"], "line 2: a text without a prompt cannot be given a command"),
        (["--control", "--control-commands", str(commands)], "the file must hold low and high"),
        (["--control-commands", str(commands)], "with --control only"),
        (["--control", "--validation-share", "1.5"], "must be between 0.0 and 0.9"),
    ):
        assert cli.main([*command, *flags]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "traces").exists()


def test_other_commands_in_the_same_folder_are_refused(traces, smollm2, data, settings, tmp_path):
    with pytest.raises(InputError, match="another control False"):
        collect(smollm2, data, traces, replace(settings, control=True), threads=1, progress=False)
