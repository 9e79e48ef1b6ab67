"""What a user can choose about training, in flags or a file, and what a finished run leaves behind."""

import errno
import importlib.metadata
import json
import sys
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from autodeco import Heads, cli  # noqa: E402
from autodeco.errors import InputError  # noqa: E402
from autodeco.export import cli as export_cli  # noqa: E402
from autodeco.export.control_ends import ControlEnds  # noqa: E402
from autodeco.runs.trackers import open_tracker  # noqa: E402
from autodeco.settings.yaml_file import read_config  # noqa: E402
from autodeco.training import TrainingArguments, state, train  # noqa: E402
from autodeco.training.report import token_class  # noqa: E402
from autodeco.training.schedule import learning_rate  # noqa: E402
from builders.interrupts import interrupt_in  # noqa: E402
from builders.models import HIDDEN, VOCAB  # noqa: E402
from builders.traces import SHORT, write_traces  # noqa: E402
from builders.trained_heads import weights  # noqa: E402

PATHS = ("traces", "output")


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    return write_traces(tmp_path_factory.mktemp("recipes") / "traces")


@pytest.fixture(scope="module")
def trained(traces, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes") / "heads"
    train(traces, folder, SHORT, progress=False)
    return folder


def test_a_file_of_settings_gives_what_the_same_flags_give(traces, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(
        f"traces: {traces}\noutput: {tmp_path / 'file'}\nsteps: 6\nbatch-tokens: 32\nlearning_rate: 1e-2\n"
        "schedule: linear\nfine-tuning-weight: false\n"
    )
    assert cli.main(["train", "--config", str(file)]) == 0
    flags = ["--steps=6", "--batch-tokens=32", "--learning-rate=1e-2"]
    rare = tmp_path / "rare.yaml"  # what has no flag
    rare.write_text("schedule: linear\nfine-tuning-weight: false\n")
    assert cli.main(["train", str(traces), "-o", str(tmp_path / "flags"), "--config", str(rare), *flags]) == 0
    for name, tensor in weights(tmp_path / "file").items():
        assert torch.equal(weights(tmp_path / "flags")[name], tensor)


@pytest.mark.parametrize(
    "flag", ["--schedule=linear", "--weight-decay=1", "--no-prob-stats", "--no-fine-tuning-weight"]
)
def test_what_nobody_asked_for_has_no_flag(flag, tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", str(tmp_path), "-o", str(tmp_path / "heads"), flag])
    assert f"unrecognized arguments: {flag}" in capsys.readouterr().err


def test_flags_win_over_the_file(traces, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(f"traces: {traces}\noutput: {tmp_path / 'heads'}\nsteps: 6\nseed: 1\n")
    assert cli.main(["train", "--config", str(file), "--steps", "3"]) == 0
    made = json.loads((tmp_path / "heads" / "training.json").read_text())
    assert (made["arguments"]["steps"], made["arguments"]["seed"]) == (3, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepps: 3", "no setting is called stepps"),
        ("steps: [", "not valid YAML"),
        ("just text", "holds no settings"),
        ("output: 3", "output must be a path"),
        ("learning_rate: fast", "must be a number"),
    ],
)
def test_a_file_of_settings_that_cannot_be_used_is_refused(tmp_path, text, message):
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        read_config(file, [TrainingArguments], PATHS)
    with pytest.raises(InputError, match="cannot be read"):
        read_config(tmp_path / "absent.yaml", [TrainingArguments], PATHS)


@pytest.mark.parametrize("values", [{"steps": "many"}, {"steps": True}, {"temperature": 1}, {"schedule": "wild"}])
def test_settings_of_the_wrong_type_are_refused(values):
    with pytest.raises(InputError, match="must be"):
        TrainingArguments(**values)


def test_schedules_end_where_they_should():
    arguments = TrainingArguments(steps=110, warmup_steps=10, learning_rate=1.0)
    rates = {name: learning_rate(60, replace(arguments, schedule=name)) for name in ("linear", "constant")}
    assert rates == {"linear": pytest.approx(0.5), "constant": 1.0}


def test_without_the_fine_tuning_weight_the_loss_is_the_plain_cross_entropy(traces, tmp_path):
    arguments = replace(SHORT, steps=1, fine_tuning_weight=False, easy_token_drop=0.0)
    bare = train(traces, tmp_path / "bare", arguments, progress=False)
    weighted = train(traces, tmp_path / "weighted", replace(arguments, fine_tuning_weight=True), progress=False)
    # Before training T = 1: the cross entropy of the model itself, of which the weight, at most 1, leaves a part.
    assert bare.before.temperature_loss > 1.2 * weighted.before.temperature_loss
    assert bare.before.loss == pytest.approx(bare.before.temperature_loss + bare.before.top_p_loss)


def test_heads_go_on_from_finished_ones(traces, trained, tmp_path):
    arguments = replace(SHORT, steps=10, learning_rate=1e-4)
    result = train(traces, tmp_path / "more", arguments, init=trained, progress=False)
    first = json.loads((trained / "training.json").read_text())["result"]["after"]
    assert result.before.loss == pytest.approx(first["loss"], abs=1e-9)
    made = json.loads((tmp_path / "more" / "training.json").read_text())
    assert len(made["first_heads_sha256"]) == 64


def test_heads_go_on_from_a_gguf(traces, trained, tmp_path):
    file = tmp_path / "heads.gguf"
    arguments = [trained, "--base", traces / "model.gguf", "--type", "f32", "-o", file]
    assert export_cli.main([str(argument) for argument in arguments]) == 0
    arguments = [traces, "-o", tmp_path / "more", "--steps", 1, "--init", file]
    assert cli.main(["train", *(str(argument) for argument in arguments)]) == 0
    made, first = (json.loads((folder / "training.json").read_text()) for folder in (tmp_path / "more", trained))
    assert made["result"]["before"]["loss"] == pytest.approx(first["result"]["after"]["loss"], abs=1e-9)


def test_first_heads_that_do_not_fit_are_refused(traces, trained, tmp_path):
    Heads(HIDDEN + 1).save_pretrained(tmp_path / "wide")
    with pytest.raises(InputError, match=f"hidden size of {HIDDEN + 1}"):
        train(traces, tmp_path / "heads", SHORT, init=tmp_path / "wide", progress=False)
    other = Heads(HIDDEN)
    other.base_config = {"vocab_size": VOCAB + 1}
    other.save_pretrained(tmp_path / "vocab")
    with pytest.raises(InputError, match=f"vocabulary of {VOCAB + 1}"):
        train(traces, tmp_path / "heads", SHORT, init=tmp_path / "vocab", progress=False)
    Heads(HIDDEN, control=ControlEnds()).save_pretrained(tmp_path / "following")
    with pytest.raises(InputError, match="following: has a control head, which would stay behind"):
        train(traces, tmp_path / "heads", SHORT, init=tmp_path / "following", progress=False)
    with pytest.raises(InputError, match="has a top-p head; give --top-p"):
        train(traces, tmp_path / "heads", replace(SHORT, top_p=False), init=trained, progress=False)
    assert not (tmp_path / "heads").exists()


def test_the_average_of_the_heads_is_what_is_measured_and_kept(traces, tmp_path, monkeypatch):
    arguments = replace(SHORT, steps=3, evaluate_every=3, ema=0.9)
    seen = []
    update = state.TrainingState.update

    def noted(self, rate):
        update(self, rate)
        seen.append(self.heads.temp_head.mlp[2].bias.item())

    monkeypatch.setattr(state.TrainingState, "update", noted)
    train(traces, tmp_path, arguments, progress=False)
    average = 0.0  # the bias that predicts T = 1
    for step, value in enumerate(seen, start=1):
        decay = min(0.9, step / (step + 9))
        average = decay * average + (1 - decay) * value
    assert weights(tmp_path)["temp_head.mlp.2.bias"].item() == pytest.approx(average, rel=1e-5)


def test_a_run_with_an_average_resumes_to_the_same_heads(traces, tmp_path, monkeypatch):
    arguments = replace(SHORT, ema=0.9)
    train(traces, tmp_path / "whole", arguments, progress=False)
    go_on = interrupt_in(monkeypatch, 16)
    assert train(traces, tmp_path / "parts", arguments, progress=False).interrupted
    go_on()
    train(traces, tmp_path / "parts", arguments, resume=True, progress=False)
    for name, tensor in weights(tmp_path / "whole").items():
        assert torch.equal(weights(tmp_path / "parts")[name], tensor), name


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.addresses, self.text = [], [], ""

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href") and not value.startswith("#")]

    def handle_data(self, data):
        self.text += data


def test_the_report_is_one_file_that_asks_the_network_for_nothing(trained):
    html = (trained / "report.html").read_text()
    page = Page()
    page.feed(html)
    assert page.tags.count("svg") == 2
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not page.addresses
    assert "url(http" not in html
    made = json.loads((trained / "training.json").read_text())
    assert f"{made['result']['after']['loss']:.4f}" in page.text
    assert '"batch_tokens": 64' in page.text
    assert html.count("<h3>record") == 8
    assert 'title="T ' in html


def test_texts_in_the_report_cannot_be_markup(traces, tmp_path, monkeypatch):
    from autodeco.training.trace_source import TraceSource

    monkeypatch.setattr(TraceSource, "token_texts", lambda self, tokens: ["<script>alert(1)</script>"] * len(tokens))
    train(traces, tmp_path, replace(SHORT, steps=1), progress=False)
    assert "<script>" not in (tmp_path / "report.html").read_text()


def test_tokens_fall_into_classes():
    pieces = {
        " the": "word",
        "ing": "piece of a word",
        "42": "digit",
        " x2": "digit",
        "\n": "space",
        "?!": "punctuation",
    }
    assert {piece: token_class(piece) for piece in pieces} == pieces
    assert token_class("<|im_end|>") == "other"


def test_a_run_says_how_it_was_made(trained):
    made = json.loads((trained / "training.json").read_text())
    assert {"autodeco", "python", "torch", "numpy", "safetensors", "llama-cpp-python"} <= made["versions"].keys()
    assert made["versions"]["torch"] == importlib.metadata.version("torch")
    assert made["command"]
    assert not made["command"].startswith("/")
    assert [update["step"] for update in made["updates"]] == list(range(1, SHORT.steps + 1))
    assert made["data"]["sha256"] == "0" * 64
    assert made["arguments"]["seed"] == 0


def test_a_full_disk_ends_with_one_line_and_leaves_the_old_files(traces, trained, tmp_path, capsys, monkeypatch):
    command = ["train", str(traces), "-o", str(tmp_path / "heads"), "--steps", "4", "--evaluate-every", "2"]
    write = Path.write_bytes
    room = iter([True, True])

    def full(self, data):
        if not next(room, False):
            write(self, data[:10])
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert cli.main(command) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "the disk is full" in error
    Heads.from_pretrained(tmp_path / "heads")  # of the first measurement, whole
    assert not list((tmp_path / "heads").glob(".*.part"))


def test_figures_of_every_update_reach_tensorboard(traces, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(traces, tmp_path, replace(SHORT, steps=4, evaluate_every=2, tracker="tensorboard"), progress=False)
    (folder,) = {path.parent for path in tmp_path.rglob("events.out.tfevents*") if path.parent.name == "autodeco"}
    events = EventAccumulator(str(folder))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4]
    history = json.loads((tmp_path / "training.json").read_text())["result"]["history"]
    logged = [event.value for event in events.Scalars("held_out/loss")]
    assert logged == pytest.approx([row["loss"] for row in history], rel=1e-6)


def test_figures_and_settings_reach_weights_and_biases(tmp_path, monkeypatch):
    calls = []

    class Run:
        def log(self, values, step):
            calls.append((step, values))

        def finish(self):
            calls.append("finished")

    def init(**options):
        calls.append(options)
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    tracker = open_tracker(replace(SHORT, tracker="wandb"), tmp_path)
    tracker.log({"loss": 1.0}, 3)
    tracker.finish()
    settings = asdict(replace(SHORT, tracker="wandb"))
    assert calls == [{"project": "autodeco", "dir": str(tmp_path), "config": settings}, (3, {"loss": 1.0}), "finished"]


def test_held_out_records_are_measured_whole_in_order(traces):
    from autodeco.training.trace_source import TraceSource

    source = TraceSource(traces, replace(SHORT, validation_tokens=12))
    records = np.concatenate([chunk.records for chunk in source.validation()])
    assert len(records) == 12
    assert len(set(records)) == 2
    assert sorted(records) == list(records)
