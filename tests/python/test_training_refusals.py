"""Traces and settings that cannot be trained with end in one line, with nothing written."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
from autodeco import cli
from autodeco.errors import InputError
from autodeco.traces.format import write_shard
from autodeco.training import train
from builders.models import HIDDEN, VOCAB
from builders.traces import SHORT, write_traces


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    return write_traces(tmp_path_factory.mktemp("train") / "traces")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "traces.json").unlink(), "make traces with"),
        (lambda folder: (folder / "traces.json").write_text("{}"), "not a readable manifest"),
        (lambda folder: (folder / "traces.json").write_text("[" * 50_000), "not a readable manifest"),
        (lambda folder: edit(folder, version=2), "version 2"),
        (lambda folder: edit(folder, complete=False), "collecting was interrupted"),
        (lambda folder: edit(folder, shards=[]), "holds no tokens"),
        (lambda folder: edit_shard(folder, file="../traces.json"), "outside the folder"),
        (lambda folder: edit_shard(folder, tokens=199), "expected F16"),
        (lambda folder: (folder / "shard-1.safetensors").unlink(), "not the shard"),
        (lambda folder: (folder / "shard-1.safetensors").write_bytes(b"\x08" + bytes(30)), "not the shard"),
        (lambda folder: (folder / "model.gguf").unlink(), "say where with --model"),
        (
            lambda folder: (folder / "model.gguf").write_bytes((folder / "model.gguf").read_bytes() + b"1"),
            "not the model",
        ),
    ],
)
def test_traces_that_cannot_be_trained_on_are_refused(tmp_path, change, message):
    folder = write_traces(tmp_path / "traces")
    change(folder)
    with pytest.raises(InputError, match=message) as error:
        train(folder, tmp_path / "heads", SHORT, progress=False)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "heads").exists()


def edit(folder, **fields):
    manifest = json.loads((folder / "traces.json").read_text())
    (folder / "traces.json").write_text(json.dumps(manifest | fields))


def edit_shard(folder, **fields):
    manifest = json.loads((folder / "traces.json").read_text())
    manifest["shards"][1] |= fields
    (folder / "traces.json").write_text(json.dumps(manifest))


def test_labels_outside_the_vocabulary_are_refused(tmp_path):
    folder = write_traces(tmp_path / "traces", tokens=12, shard_tokens=12)
    columns = {"label": [VOCAB] * 12, "record": [0] * 6 + [1] * 6, "position": [0] * 12}
    write_shard(folder / "shard-0.safetensors", np.zeros((12, HIDDEN)), **columns)
    with pytest.raises(InputError, match="outside the vocabulary"):
        train(folder, tmp_path / "heads", SHORT, progress=False)


def test_a_file_in_the_place_of_the_folder_is_refused(traces, tmp_path):
    (tmp_path / "heads").write_text("")
    with pytest.raises(InputError, match="is a file"):
        train(traces, tmp_path / "heads", SHORT, progress=False)


def test_an_unknown_device_is_refused(traces, tmp_path):
    with pytest.raises(InputError, match="device gpu"):
        train(traces, tmp_path / "heads", replace(SHORT, device="gpu"), progress=False)


def test_one_record_cannot_be_split(tmp_path):
    folder = write_traces(tmp_path / "traces", tokens=6)
    with pytest.raises(InputError, match="at least two"):
        train(folder, tmp_path / "heads", SHORT, progress=False)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps", "0"], "steps 0: must be at least 1"),
        (["--learning-rate", "nan"], "learning-rate nan: must be between 1e-09 and 1.0"),
        (["--control", "--control-weight", "inf"], "control-weight inf: must be a finite number"),
        (["--easy-token-drop", "1.5"], "must be between 0.0 and 1.0"),
        (["--no-temperature", "--no-top-p"], "leave nothing to train"),
        (["--data", "data.jsonl", "--model", "model"], "TRACES have no meaning with --data"),
        (["--pack-tokens", "64"], "--pack-tokens: has no meaning without --data"),
        (["--control-weight", "1"], "--control-weight: has no meaning without --control"),
        (
            ["--steps", "9", "--warmup-steps", "9"],
            "warmup-steps 9: the run has 9 updates, so its learning rate would only",
        ),
        (["--control", "--control-commands", "file"], "--control-commands: has no meaning without --data"),
        (["--tracker", "wandb"], "tracker wandb: pip install wandb"),
    ],
)
def test_settings_that_make_no_sense_end_the_command_with_one_line(
    traces, tmp_path, capsys, monkeypatch, flags, message
):
    monkeypatch.setitem(sys.modules, "wandb", None)  # not installed
    assert cli.main(["train", str(traces), "-o", str(tmp_path / "heads"), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "heads").exists()
