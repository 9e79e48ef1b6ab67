"""A Hugging Face model trains heads as traces of the same model do, packed without leaks, on one process or two."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
from autodeco import Heads, cli  # noqa: E402
from autodeco.data.control import Control, read_commands  # noqa: E402
from autodeco.data.records import held_out_records, read_records  # noqa: E402
from autodeco.errors import InputError  # noqa: E402
from autodeco.hugging_face.model import HuggingFaceModel  # noqa: E402
from autodeco.hugging_face.packing import Labelled, pack, row  # noqa: E402
from autodeco.traces import CollectSettings, collect  # noqa: E402
from autodeco.training import TrainingArguments, train_from  # noqa: E402
from autodeco.training.arguments import HuggingFaceSettings  # noqa: E402
from autodeco.training.hugging_face_source import HuggingFaceSource, split_sequences  # noqa: E402
from autodeco.training.packed_answers import PackedAnswers  # noqa: E402
from autodeco.training.trace_source import TraceSource  # noqa: E402
from builders import launching  # noqa: E402
from builders.hf_folders import write_smollm2  # noqa: E402
from builders.launching import AUTODECO  # noqa: E402
from builders.trained_heads import weights  # noqa: E402

ARGUMENTS = TrainingArguments(steps=6, batch_tokens=512, learning_rate=1e-3, warmup_steps=1, evaluate_every=3)
SETTINGS = HuggingFaceSettings(pack_tokens=256, dtype="float32")


@pytest.fixture(scope="module")
def folder(smollm2, tmp_path_factory):
    path = tmp_path_factory.mktemp("hf") / "smollm2"
    write_smollm2(smollm2, path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("hf") / "data.jsonl"
    rows = [
        {"prompt": f"{a} + {b} =", "completion": f" {a + b}, and {b} + {a} = {a + b}."}
        for a in range(8)
        for b in range(5)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def tiny(folder, tmp_path_factory):
    """SmolLM2's tokenizer with a random model of two layers."""
    tiny = tmp_path_factory.mktemp("hf") / "tiny"
    shutil.copytree(folder, tiny, ignore=shutil.ignore_patterns("*.safetensors"))
    config = transformers.AutoConfig.from_pretrained(folder)
    config.update({"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4})
    config.update({"num_key_value_heads": 4, "head_dim": 8})
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(tiny)
    return tiny


@pytest.fixture(scope="module")
def model(folder):
    return HuggingFaceModel(folder, "float32")


@pytest.fixture(scope="module")
def source(model, data):
    return HuggingFaceSource(model, data, ARGUMENTS, SETTINGS)


def columns(chunks):
    chunks = list(chunks)
    return (
        torch.cat([chunk.hidden for chunk in chunks]),
        torch.cat([chunk.logits for chunk in chunks]),
        torch.cat([chunk.labels for chunk in chunks]),
        np.concatenate([chunk.records for chunk in chunks]),
    )


def test_rows_hold_every_sequence_once_and_no_more_than_fits():
    rng = np.random.default_rng(0)
    sequences = [Labelled(i, list(range(n)), 1) for i, n in enumerate(rng.integers(2, 60, 50))]
    groups = pack(sequences, 64)
    assert sorted(s.record for group in groups for s in group) == list(range(50))
    assert max(sum(len(s.tokens) for s in group) for group in groups) <= 64
    assert len(groups) <= 1.25 * sum(len(s.tokens) for s in sequences) / 64 + 1


def rooms_after_a_search(sizes, length):
    """The room left in each row, ascending, if all rows are searched for the fullest one with room."""
    room = []
    for size in sorted(sizes, reverse=True):
        fitting = [left for left in room if left >= size]
        if fitting:
            room.remove(min(fitting))
        room.append(min(fitting, default=length) - size)
    return sorted(room)


@pytest.mark.parametrize("largest", [9, 33, 64])
def test_each_sequence_goes_into_the_fullest_row_with_room(largest):
    sizes = np.random.default_rng(largest).integers(1, largest + 1, 300).tolist()
    packed = pack([Labelled(i, list(range(n)), 1) for i, n in enumerate(sizes)], 64)
    assert sorted(64 - sum(len(s.tokens) for s in group) for group in packed) == rooms_after_a_search(sizes, 64)


class Counted(int):
    """The room in a row, which counts how often any room is compared with a size."""

    comparisons = 0

    def __sub__(self, other):
        return Counted(int(self) - other)

    def __lt__(self, other):
        Counted.comparisons += 1
        return int(self) < other

    def __ge__(self, other):
        Counted.comparisons += 1
        return int(self) >= other


def test_packing_does_not_search_all_rows(monkeypatch):
    def comparisons(count):
        monkeypatch.setattr(Counted, "comparisons", 0)
        pack([Labelled(i, [0] * (2 + i % 60), 1) for i in range(count)], Counted(64))
        return Counted.comparisons

    assert 4000 < comparisons(4000) <= 5 * comparisons(1000)  # a search of all rows takes 16 times as many


def test_a_row_says_where_each_sequence_begins_and_what_it_predicts():
    packed = row([Labelled(3, [7, 8, 9], 1), Labelled(5, [4, 5, 6, 2], 3)])
    assert packed.tokens.tolist() == [[7, 8, 9, 4, 5, 6, 2]]
    assert packed.positions.tolist() == [[0, 1, 2, 0, 1, 2, 3]]
    assert packed.at.tolist() == [0, 1, 5]
    assert packed.labels.tolist() == [8, 9, 2]
    assert packed.records.tolist() == [3, 3, 5]


def test_nothing_leaks_between_packed_sequences(source, model, data):
    hidden, logits, labels, records = columns(source.training(0))
    assert len(np.unique(records)) > 2 * 3  # rows
    for index, record in enumerate(read_records(data)):
        if index not in records:
            continue
        prompt, completion = model.tokenizer(record)
        with torch.no_grad():
            alone = model.network(torch.tensor([[*prompt, *completion]]), use_cache=False).logits[0]
        mine, predicting = torch.from_numpy(records == index), slice(len(prompt) - 1, -1)
        torch.testing.assert_close(hidden[mine], model.hidden[0, predicting], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(logits[mine], alone[predicting], rtol=1e-3, atol=1e-3)
        assert labels[mine].tolist() == completion


def test_the_hidden_state_is_what_the_output_matrix_reads(source, model):
    hidden, logits, _, _ = columns(source.training(0))
    rebuilt = hidden @ model.network.get_output_embeddings().weight.T
    torch.testing.assert_close(rebuilt, logits, rtol=1e-4, atol=1e-3)


def test_sequences_of_equal_prompts_are_on_one_side():
    sequences, prompts = [Labelled(i, [1, 2, 3], 1) for i in range(12)], [i % 4 for i in range(12)]
    training, validation = split_sequences(sequences, prompts, replace(ARGUMENTS, validation_share=0.5))
    sides = [{prompts[s.record] for s in part} for part in (training, validation)]
    assert not sides[0] & sides[1]
    assert [len(part) for part in (training, validation)] == [6, 6]


@pytest.mark.slow
def test_both_sources_see_the_same_tokens_and_train_alike(source, folder, data, smollm2, tmp_path):
    collect(smollm2, data, tmp_path / "traces", CollectSettings(), threads=1, progress=False)
    traces = TraceSource(tmp_path / "traces", ARGUMENTS)
    theirs, ours = (columns(each.validation()) for each in (traces, source))
    order = [np.lexsort((np.arange(len(part[3])), part[3])) for part in (theirs, ours)]
    assert np.array_equal(theirs[3][order[0]], ours[3][order[1]])
    assert torch.equal(theirs[2][order[0]], ours[2][order[1]])
    relative = torch.norm(theirs[0][order[0]] - ours[0][order[1]]) / torch.norm(ours[0])
    assert relative < 0.08  # llama.cpp quantizes activations: 4% was measured
    results = [
        train_from(each, tmp_path / name, ARGUMENTS, progress=False) for name, each in (("a", traces), ("b", source))
    ]
    first, second = results
    assert first.before.loss == pytest.approx(second.before.loss, rel=0.05)
    assert second.after.loss < 0.95 * second.before.loss
    assert first.after.loss == pytest.approx(second.after.loss, rel=0.05)
    # Heads of either source predict nearly the same for the same states, beside how far training has moved them.
    with torch.no_grad():
        ((t1, p1), (t2, p2)) = (Heads.from_pretrained(tmp_path / name)(*ours[:2]) for name in ("a", "b"))
    assert (t1 - t2).abs().mean() < 0.1 * (1 - t2).abs().mean()
    assert (p1 - p2).abs().mean() < 0.1 * (0.95 - p2).abs().mean()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(
        path.name for path in (tmp_path / "b").iterdir()
    )
    assert {name: t.shape for name, t in weights(tmp_path / "a").items()} == {
        name: t.shape for name, t in weights(tmp_path / "b").items()
    }


def launch(folder, data, output, processes, *flags, program=AUTODECO, **environment):
    command = ["train", "--model", folder, "--data", data, "--device=cpu", "-o", output, "--pack-tokens=256"]
    command += ["--dtype=float32", "--batch-tokens=512", "--learning-rate=1e-3", "--warmup-steps=1"]
    command += ["--evaluate-every=2", "--steps=4", "--validation-share=0.5", "--easy-token-drop=0"]
    command += ["--control", "--control-tokens=4", *flags]
    return launching.launch(processes, command, program, **environment)


@pytest.fixture(scope="module")
def two(tiny, data, tmp_path_factory):
    """Heads that two processes trained, and what they printed."""
    folder = tmp_path_factory.mktemp("hf") / "two"
    done = launch(tiny, data, folder, 2)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.mark.slow
def test_two_processes_train_the_same_heads_as_one(tiny, data, two, tmp_path):
    done = launch(tiny, data, tmp_path, 1)
    assert done.returncode == 0, done.stderr
    made = [json.loads((folder / "training.json").read_text()) for folder in (tmp_path, two[0])]
    assert [each["processes"] for each in made] == [1, 2]
    assert {"transformers", "accelerate"} <= made[1]["versions"].keys()
    losses = [[row["loss"] for row in each["result"]["history"]] for each in made]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for name, tensor in weights(tmp_path).items():
        torch.testing.assert_close(weights(two[0])[name], tensor, rtol=1e-2, atol=2e-4, msg=name)
    assert two[1].count("held-out tokens") == 1  # one of them shows the result


@pytest.mark.slow
@pytest.mark.parametrize("loaded_by", ["each process", "the first process"])
def test_processes_that_share_the_model_too_train_the_same_heads(tiny, data, two, tmp_path, loaded_by):
    program = Path(__file__).parent / "programs" / "sharded_on_cpu.py"
    # what `accelerate launch --use_fsdp` sets: transformers then gives weights to the first process only
    first_only = str(loaded_by == "the first process").lower()
    environment = {"ACCELERATE_USE_FSDP": first_only, "FSDP_CPU_RAM_EFFICIENT_LOADING": first_only}
    done = launch(tiny, data, tmp_path, 2, "--tracker=tensorboard", program=program, **environment)
    assert done.returncode == 0, done.stderr
    for name, tensor in weights(two[0]).items():
        torch.testing.assert_close(weights(tmp_path)[name], tensor, rtol=1e-3, atol=2e-5, msg=name)
    assert len(list(tmp_path.glob("autodeco/events.out.tfevents*"))) == 1


def test_a_model_without_weights_has_the_shape_of_one_with(tiny):
    empty, whole = (HuggingFaceModel(tiny, "bfloat16", empty).network for empty in (True, False))
    assert all(parameter.is_meta for parameter in empty.parameters())
    shapes = [{name: (p.shape, p.dtype) for name, p in model.named_parameters()} for model in (empty, whole)]
    assert shapes[0] == shapes[1]
    for (name, mine), (_, theirs) in zip(empty.named_buffers(), whole.named_buffers(), strict=True):
        assert torch.equal(mine, theirs), name  # nobody hands these out


@pytest.mark.slow
def test_processes_of_which_one_is_interrupted_stop_together_and_resume_to_the_same_heads(tiny, data, two, tmp_path):
    done = launch(tiny, data, tmp_path, 2, program=Path(__file__).parent / "programs" / "interrupted_first_process.py")
    assert done.returncode != 0
    assert "continue with the same command and --resume" in done.stdout
    assert json.loads((tmp_path / "training.json").read_text())["result"]["steps"] == 3
    done = launch(tiny, data, tmp_path, 2, "--resume")
    assert done.returncode == 0, done.stderr
    for name, tensor in weights(two[0]).items():
        assert torch.equal(weights(tmp_path)[name], tensor), name


def test_a_model_whose_states_know_what_follows_is_refused(tiny, tmp_path):
    bert = shutil.copytree(tiny, tmp_path / "bert")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    for is_decoder in (False, True):
        config = transformers.BertConfig(vocab_size=49152, is_decoder=is_decoder, **sizes)
        transformers.BertLMHeadModel(config).save_pretrained(bert)
        if is_decoder:
            assert HuggingFaceModel(bert, "float32").identity.architecture == "bert"
        else:
            with pytest.raises(InputError, match=r"bert: is an embedding model \(bert\)"):
                HuggingFaceModel(bert, "float32")


def test_data_with_nothing_to_learn_from_is_refused(folder, tmp_path, capsys):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"prompt": "word " * 40, "completion": "x"}) + "\n")
    with pytest.raises(InputError, match="no token to learn from"):
        HuggingFaceSource(folder, path, ARGUMENTS, HuggingFaceSettings(pack_tokens=16, dtype="float32"))
    command = ["train", "--model", str(tmp_path / "absent"), "--data", str(path), "-o", str(tmp_path / "heads")]
    assert cli.main(command) == 2
    assert "transformers cannot load it" in capsys.readouterr().err


def test_answers_are_ranked_behind_the_commands_that_traces_would_have(tiny, data, tmp_path):
    arguments = replace(ARGUMENTS, control=True, control_tokens=4, control_prompts=3, validation_share=0.2, steps=2)
    model = HuggingFaceModel(tiny, "bfloat16")
    running = HuggingFaceSource(model, data, arguments, SETTINGS)
    held_out = held_out_records(range(40), range(40), 0.2, arguments.seed)
    control = Control(read_commands(), sorted(held_out), arguments.seed)
    whole = {}
    for index, record in enumerate(read_records(data)):
        for command, variant in control.variants(index, record):
            whole[index, command] = model.tokenizer(variant)[1]
    expected = [(index, command, token) for (index, command), tokens in whole.items() for token in tokens]
    assert sorted(rows_of(running.ranked_validation())) == sorted(row for row in expected if row[0] in held_out)
    drawn = rows_of(running.ranked(1))
    assert len({index for index, _, _ in drawn}) == 3
    for index in {index for index, _, _ in drawn}:
        assert index not in held_out
        tokens = [[t for i, c, t in drawn if (i, c) == (index, command)] for i, command in whole if i == index]
        assert len(tokens) == 3
        assert tokens[0] == tokens[1] == tokens[2]
        assert len(tokens[0]) == 4
    result = train_from(running, tmp_path / "heads", arguments, progress=False)
    assert result.before.ranking_loss == pytest.approx(1.0, abs=1e-6)
    assert abs(result.history[-1]["ranking_loss"] - 1.0) > 1e-4


def rows_of(chunks):
    parts = [(chunk.records.tolist(), chunk.commands.tolist(), chunk.labels.tolist()) for chunk in chunks]
    return [row for part in parts for row in zip(*part, strict=True)]


def test_processes_share_the_ranked_prompts_and_run_equally_many_rows(tiny, data):
    training, held_out = list(range(8, 40)), list(range(8))
    control, arguments = Control(read_commands(), held_out, 0), replace(ARGUMENTS, control=True, control_prompts=5)
    tokenizer = HuggingFaceModel(tiny, "float32").tokenizer
    one, three = (
        PackedAnswers(data, tokenizer, control, training, arguments, room, processes)
        for room, processes in ((256, 1), (80, 3))
    )
    for of in (lambda answers, rank: answers.training(0, rank), lambda answers, rank: answers.validation(rank)):
        parts = [of(three, rank) for rank in range(3)]
        assert len({len(rows) for rows in parts}) == 1
        records = [{r for packed, own in rows if own for r in packed.records.tolist()} for rows in parts]
        assert sum(map(len, records)) == len(set.union(*records))  # each in one process
        assert max(packed.tokens.shape[1] for rows in parts for packed, _ in rows) <= 80
        whole = {r for packed, _ in of(one, 0) for r in packed.records.tolist()}
        assert whole <= set.union(*records)
