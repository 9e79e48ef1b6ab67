"""Training makes heads that predict better, from any point again, in memory that does not grow with the data."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file  # noqa: E402

from autodeco import Heads, cli  # noqa: E402
from autodeco.errors import InputError  # noqa: E402
from autodeco.export import cli as export_cli  # noqa: E402
from autodeco.runs.locks import locked_folder  # noqa: E402
from autodeco.traces.format import read_manifest, write_shard  # noqa: E402
from autodeco.training import TrainingArguments, loop, train  # noqa: E402
from autodeco.training.batches import ShuffledBatches  # noqa: E402
from autodeco.training.schedule import learning_rate  # noqa: E402
from autodeco.training.state import TrainingState  # noqa: E402
from autodeco.training.trace_source import TraceSource  # noqa: E402
from autodeco.training.trace_tokens import TraceTokens  # noqa: E402
from builders.file_reads import count_reads  # noqa: E402
from builders.interrupts import interrupt_in  # noqa: E402
from builders.models import HIDDEN, VOCAB  # noqa: E402
from builders.traces import SHORT, write_traces  # noqa: E402
from builders.trained_heads import weights  # noqa: E402


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    return write_traces(tmp_path_factory.mktemp("train") / "traces")


@pytest.fixture(scope="module")
def trained(traces, tmp_path_factory):
    folder = tmp_path_factory.mktemp("train") / "heads"
    return folder, train(traces, folder, SHORT, progress=False)


def test_training_lowers_the_held_out_loss_and_learns_where_to_be_sure(traces, trained):
    folder, result = trained
    assert result.after.loss < 0.95 * result.before.loss
    assert result.before.temperature == pytest.approx(1.0)
    assert result.before.top_p == pytest.approx(0.95)
    heads = Heads.from_pretrained(folder)
    hidden, _ = TraceTokens(traces, read_manifest(traces)).batch(np.arange(600))
    with torch.no_grad():
        temperature = heads.temperature(hidden)
    assert temperature[hidden[:, 0] > 0].mean() < temperature[hidden[:, 0] <= 0].mean() - 0.1


def test_the_heads_say_what_they_were_trained_for_and_how(trained):
    folder, result = trained
    config = json.loads((folder / "config.json").read_text())
    assert config["base_model_name_or_path"] == "toy"
    assert config["vocab_size"] == VOCAB
    made = json.loads((folder / "training.json").read_text())
    assert made["arguments"]["learning_rate"] == 1e-2
    assert made["result"]["best_step"] == result.best_step
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock",
        "config.json",
        "model.safetensors",
        "predictions.json",
        "report.html",
        "training.json",
    ]


def test_the_same_seed_gives_the_same_heads_and_another_does_not(traces, trained, tmp_path):
    train(traces, tmp_path / "same", SHORT, progress=False)
    train(traces, tmp_path / "other", replace(SHORT, seed=1), progress=False)
    for name, tensor in weights(trained[0]).items():
        assert torch.equal(weights(tmp_path / "same")[name], tensor)
    assert not torch.equal(
        weights(tmp_path / "other")["temp_head.mlp.0.weight"], weights(trained[0])["temp_head.mlp.0.weight"]
    )


def test_an_interrupted_run_keeps_its_best_heads_and_resumes_to_the_same_ones(traces, trained, tmp_path, monkeypatch):
    go_on = interrupt_in(monkeypatch, 16)
    result = train(traces, tmp_path, SHORT, progress=False)
    assert result.interrupted
    assert (result.steps, result.best_step) == (17, 10)
    assert Heads.from_pretrained(tmp_path).prob_stats
    go_on()
    with pytest.raises(InputError, match="holds an unfinished run"):
        train(traces, tmp_path, SHORT, progress=False)
    with pytest.raises(InputError, match="another arguments"):
        train(traces, tmp_path, replace(SHORT, learning_rate=1e-3), resume=True, progress=False)
    resumed = train(traces, tmp_path, SHORT, resume=True, progress=False)
    assert not resumed.interrupted
    assert resumed.history == trained[1].history
    for name, tensor in weights(trained[0]).items():
        assert torch.equal(weights(tmp_path)[name], tensor), name
    with pytest.raises(InputError, match="no unfinished run"):
        train(traces, tmp_path, SHORT, resume=True, progress=False)


def test_heads_that_are_there_are_not_trained_over(traces, trained, tmp_path):
    folder = tmp_path / "heads"
    shutil.copytree(trained[0], folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for init in (None, folder):
        with pytest.raises(InputError, match="holds heads already"):
            train(traces, folder, SHORT, init=init, progress=False)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_run_that_ends_before_its_report_is_written_gets_it_with_resume(traces, trained, tmp_path, monkeypatch):
    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "write_report", killed)
    with pytest.raises(KeyboardInterrupt):
        train(traces, tmp_path / "heads", SHORT, progress=False)
    monkeypatch.undo()
    result = train(traces, tmp_path / "heads", SHORT, resume=True, progress=False)
    assert not result.interrupted
    assert result.tokens_per_second > 0
    names = [sorted(path.name for path in folder.iterdir()) for folder in (tmp_path / "heads", trained[0])]
    assert names[0] == names[1]
    predictions = [(folder / "predictions.json").read_bytes() for folder in (tmp_path / "heads", trained[0])]
    assert predictions[0] == predictions[1]


def test_a_run_that_is_killed_before_its_first_heads_are_written_can_be_continued(
    traces, trained, tmp_path, monkeypatch
):
    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(Heads, "save_pretrained", killed)
    with pytest.raises(KeyboardInterrupt):
        train(traces, tmp_path, SHORT, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "resume.safetensors"]
    monkeypatch.undo()
    train(traces, tmp_path, SHORT, resume=True, progress=False)
    for name, tensor in weights(trained[0]).items():
        assert torch.equal(weights(tmp_path)[name], tensor), name


def test_the_report_can_be_drawn_again(traces, trained, tmp_path, capsys):
    folder = tmp_path / trained[0].name
    shutil.copytree(trained[0], folder)
    (folder / "report.html").unlink()
    assert cli.main(["train", "--report", str(folder)]) == 0
    assert (folder / "report.html").read_bytes() == (trained[0] / "report.html").read_bytes()
    (folder / "predictions.json").write_text("{}")
    assert cli.main(["train", "--report", str(folder)]) == 2
    assert "is not of a finished run" in capsys.readouterr().err
    (folder / "predictions.json").unlink()
    assert cli.main(["train", "--report", str(folder)]) == 2
    assert "predictions.json: not readable" in capsys.readouterr().err
    assert cli.main(["train", "--report", str(folder), "--steps", "3"]) == 2
    assert "--steps: has no meaning with --report" in capsys.readouterr().err


def test_heads_of_an_unfinished_run_are_exported_as_such(traces, tmp_path, monkeypatch, capsys):
    interrupt_in(monkeypatch, 16)
    assert train(traces, tmp_path / "heads", SHORT, progress=False).interrupted
    export = [str(tmp_path / "heads"), "--base", str(traces / "model.gguf"), "-o", str(tmp_path / "heads.gguf")]
    assert export_cli.main(export) == 0
    assert "its training is unfinished: these are the best heads so far" in capsys.readouterr().out
    kept = weights(tmp_path / "heads")["temp_head.mlp.2.bias"]
    torch.testing.assert_close(
        Heads.from_pretrained(tmp_path / "heads.gguf").state_dict()["temp_head.mlp.2.bias"], kept
    )
    (tmp_path / "heads" / "model.safetensors").unlink()
    assert export_cli.main(export) == 2
    assert "its training has measured no heads yet" in capsys.readouterr().err


def test_a_process_that_is_terminated_keeps_its_best_heads_and_can_be_continued(traces, tmp_path):
    flags = ["--steps", "100000", "--batch-tokens", "32", "--evaluate-every", "5"]
    command = [sys.executable, "-m", "autodeco", "train", str(traces), "-o", str(tmp_path / "heads"), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seen, deadline = set(), time.monotonic() + 120
    while len(seen) < 2 and time.monotonic() < deadline:  # a measurement after the first was kept
        seen |= {file.stat().st_ino for file in (tmp_path / "heads").glob("resume.safetensors")}
        time.sleep(0.02)
    with pytest.raises(InputError, match="heads: another process writes there"), locked_folder(tmp_path / "heads"):
        pass
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "continue with the same command and --resume" in out
    made = json.loads((tmp_path / "heads" / "training.json").read_text())
    assert made["result"]["interrupted"] == signal.SIGTERM
    assert made["result"]["steps"] > 0
    assert (tmp_path / "heads" / "resume.safetensors").exists()


def test_two_processes_do_not_write_the_same_heads(traces, tmp_path):
    with locked_folder(tmp_path), pytest.raises(InputError, match="another process writes there; wait until it ends"):
        train(traces, tmp_path, SHORT, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_the_best_heads_are_kept_when_later_ones_are_worse(traces, tmp_path, monkeypatch):
    evaluate = loop.evaluate
    monkeypatch.setattr(loop, "evaluate", lambda heads, *rest: replace(evaluate(heads, *rest), loss=next(losses)))
    losses = iter([3.0, 1.0, 2.0, 2.5])
    saved = []
    save = Heads.save_pretrained
    monkeypatch.setattr(Heads, "save_pretrained", lambda self, folder: saved.append(1) or save(self, folder))
    result = train(traces, tmp_path, SHORT, progress=False)
    assert (result.best_step, result.after.loss, len(saved)) == (10, 1.0, 2)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_heads(traces, tmp_path, monkeypatch):
    score = loop.predict_and_score

    def broken(*args, **options):
        *columns, top_p_loss, easy = score(*args, **options)
        fine = torch.arange(len(easy)) != 40
        return *columns, top_p_loss / fine if torch.is_grad_enabled() else top_p_loss, easy

    monkeypatch.setattr(loop, "predict_and_score", broken)
    tokens = TraceTokens(traces, read_manifest(traces))
    training = tokens.split(SHORT.validation_share, SHORT.seed)[0]
    first = ShuffledBatches(training, SHORT.batch_tokens, SHORT.seed).batch(0)
    record = tokens.records(first)[40] + 1
    with pytest.raises(InputError, match=rf"the loss of step 0 is inf \(record {record} of the data\)"):
        train(traces, tmp_path, SHORT, progress=False)
    Heads.from_pretrained(tmp_path)


def test_a_held_out_loss_that_is_not_finite_names_the_record_and_keeps_the_heads_before(traces, tmp_path, monkeypatch):
    score, calls = loop.predict_and_score, []

    def broken(*args, **options):
        scored = score(*args, **options)
        if not torch.is_grad_enabled():
            calls.append(len(scored[0]))
            if len(calls) == 2:
                scored[2][7] = torch.nan
        return scored

    monkeypatch.setattr(loop, "predict_and_score", broken)
    with pytest.raises(InputError, match="the held-out loss is nan") as error:
        train(traces, tmp_path, SHORT, progress=False)
    records = np.concatenate([chunk.records for chunk in TraceSource(traces, SHORT).validation()])
    assert calls == [len(records)] * 2
    assert f"(record {records[7] + 1} of the data)" in str(error.value)
    first = Heads.from_pretrained(tmp_path)
    assert not first.temp_head.mlp[2].weight.any()  # those of the measurement before training
    monkeypatch.setattr(loop, "predict_and_score", score)
    assert not train(traces, tmp_path, SHORT, resume=True, progress=False).interrupted


def test_a_gradient_that_is_not_finite_stops_before_the_heads_take_it(traces, tmp_path, monkeypatch):
    clip = torch.nn.utils.clip_grad_norm_

    def broken(parameters, *rest):
        parameters = list(parameters)
        parameters[0].grad[0, 0] = torch.inf
        return clip(parameters, *rest)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", broken)
    with pytest.raises(InputError, match="the gradient of step 0 has the norm inf"):
        train(traces, tmp_path, SHORT, progress=False)
    Heads.from_pretrained(tmp_path)


def test_a_second_interrupt_ends_at_once_and_the_run_goes_on_from_its_last_measurement(
    traces, trained, tmp_path, monkeypatch
):
    learning_rate = loop.learning_rate

    def pressed(at, arguments):
        if at == 16:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return learning_rate(at, arguments)

    monkeypatch.setattr(loop, "learning_rate", pressed)
    with pytest.raises(KeyboardInterrupt):
        train(traces, tmp_path, SHORT, progress=False)
    monkeypatch.setattr(loop, "learning_rate", learning_rate)
    train(traces, tmp_path, SHORT, resume=True, progress=False)
    for name, tensor in weights(trained[0]).items():
        assert torch.equal(weights(tmp_path)[name], tensor), name


def test_training_on_traces_reads_the_model_s_header_and_fingerprint_once(traces, tmp_path, monkeypatch):
    counts = count_reads(monkeypatch)
    train(traces, tmp_path, replace(SHORT, steps=1), progress=False)
    assert counts == {"read_gguf": 1, "fingerprint": 1}


@pytest.mark.parametrize("options", [{"temperature": False}, {"top_p": False}, {"prob_stats": False}])
def test_each_head_can_be_trained_alone_and_without_statistics(traces, tmp_path, options):
    result = train(traces, tmp_path, replace(SHORT, **options), progress=False)
    heads = Heads.from_pretrained(tmp_path)
    assert (heads.temp_head is None) == (options.get("temperature") is False)
    assert (heads.top_p_head is None) == (options.get("top_p") is False)
    assert heads.prob_stats == (options.get("prob_stats", True) and options.get("top_p", True))  # of the top-p head
    assert result.after.loss < result.before.loss


def test_records_are_split_whole_and_every_token_is_used_once_an_epoch(traces):
    tokens = TraceTokens(traces, read_manifest(traces))
    training_tokens, validation = tokens.split(0.1, seed=0)
    assert len(training_tokens) + len(validation) == len(tokens) == 600
    assert len(validation) == 60  # 10 of 100 records of 6 tokens
    assert not set(tokens.records(training_tokens)) & set(tokens.records(validation))
    batches = ShuffledBatches(training_tokens, 64, seed=0)
    epoch = np.concatenate([batches.batch(step) for step in range(9)])[: len(training_tokens)]
    assert sorted(epoch) == sorted(training_tokens)
    assert not np.array_equal(epoch, training_tokens)


def shuffled_anew(items, step, size, seed):
    """The batch of one update, with every epoch it touches shuffled for it alone."""
    first, last = step * size, (step + 1) * size
    epochs = [np.random.default_rng([seed, 1, epoch]).permutation(items) for epoch in range(last // len(items) + 1)]
    return np.concatenate(epochs)[first:last]


@pytest.mark.parametrize(("count", "size"), [(10, 3), (10, 5), (10, 10), (7, 23), (1, 2)])
@pytest.mark.parametrize("steps", [range(12), [7], [3, 3, 0, 11, 4]], ids=["in order", "resumed", "in any order"])
def test_batches_are_those_of_epochs_shuffled_for_each_update(count, size, steps):
    items = np.arange(count) * 10
    for seed in (0, 5):
        batches = ShuffledBatches(items, size, seed)
        for step in steps:
            np.testing.assert_array_equal(batches.batch(step), shuffled_anew(items, step, size, seed))


def test_an_epoch_is_shuffled_once(monkeypatch):
    make, shuffled = np.random.default_rng, []
    monkeypatch.setattr(np.random, "default_rng", lambda key: shuffled.append(key) or make(key))
    batches = ShuffledBatches(np.arange(100), 8, seed=3)
    for step in range(40):  # 320 items: the fourth epoch has begun
        batches.batch(step)
    assert shuffled == [[3, 1, epoch] for epoch in range(4)]


def test_batches_come_from_the_right_shards(traces):
    tokens = TraceTokens(traces, read_manifest(traces))
    indices = np.array([599, 0, 200, 199, 401])
    hidden, labels = tokens.batch(indices)
    for row, index in enumerate(indices):
        shard = load_file(traces / f"shard-{index // 200}.safetensors")
        assert torch.equal(hidden[row], shard["hidden"][index % 200].float())
        assert labels[row] == shard["label"][index % 200]


def test_the_learning_rate_rises_straight_and_falls_as_a_cosine():
    arguments = TrainingArguments(steps=110, warmup_steps=10, learning_rate=1.0)
    assert learning_rate(0, arguments) == pytest.approx(0.1)
    assert learning_rate(9, arguments) == pytest.approx(1.0)
    assert learning_rate(10, arguments) == pytest.approx(1.0)
    assert learning_rate(60, arguments) == pytest.approx(0.5)
    assert 0 < learning_rate(109, arguments) < 0.001


def test_each_update_takes_its_own_learning_rate_and_draws_its_own_easy_tokens(traces, tmp_path, monkeypatch):
    update, all_reduce_sum, rates, kept = TrainingState.update, TraceSource.all_reduce_sum, [], []

    def noted(run, rate):
        update(run, rate)
        rates.append(run.optimizer.param_groups[0]["lr"])

    def counted(self, values):
        if values.shape == (2,):
            kept.append(values[0].item())
        return all_reduce_sum(self, values)

    monkeypatch.setattr(TrainingState, "update", noted)
    monkeypatch.setattr(TraceSource, "all_reduce_sum", counted)
    first = ShuffledBatches.batch
    monkeypatch.setattr(ShuffledBatches, "batch", lambda self, step: first(self, 0))  # the same tokens every time
    train(traces, tmp_path, replace(SHORT, steps=6), progress=False)
    assert rates == [learning_rate(step, replace(SHORT, steps=6)) for step in range(6)]
    assert len(kept) == 6
    assert all(0 < count < 64 for count in kept)
    assert len(set(kept)) > 1


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
        (["--learning-rate", "nan"], "learning-rate nan: must be at least 0"),
        (["--learning-rate", "inf"], "learning-rate inf: must be a finite number"),
        (["--easy-token-drop", "1.5"], "must be between 0.0 and 1.0"),
        (["--no-temperature", "--no-top-p"], "leave nothing to train"),
        (["--data", "data.jsonl", "--model", "model"], "TRACES have no meaning with --data"),
        (["--pack-tokens", "64"], "--pack-tokens: has no meaning without --data"),
        (["--control-weight", "1"], "--control-weight: has no meaning without --control"),
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


def test_the_command_shows_losses_before_and_after(traces, tmp_path, capsys):
    flags = ["--steps", "10", "--batch-tokens", "32", "--learning-rate", "0.002"]
    assert cli.main(["train", str(traces), "-o", str(tmp_path / "heads"), *flags]) == 0
    shown = capsys.readouterr().out
    assert "before" in shown
    assert "temperature loss" in shown
    assert "autodeco-export" in shown


def test_memory_does_not_grow_with_the_number_of_tokens(tmp_path):
    code = """
import sys
from pathlib import Path
from autodeco.training import loop
from autodeco.training import TrainingArguments
from autodeco.training.state import TrainingState

update, kilobytes = TrainingState.update, []

def measured(*args):
    update(*args)
    status = Path("/proc/self/status").read_text()
    kilobytes.append(next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")))

TrainingState.update = measured
loop.train(sys.argv[1], sys.argv[2], TrainingArguments(steps=2, batch_tokens=256), progress=False)
print(max(kilobytes))
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    kilobytes = []
    for name, tokens in (("few", 4_000), ("many", 400_000)):
        folder = write_traces(tmp_path / name, tokens=tokens, shard_tokens=100_000)
        run = [sys.executable, "-c", code, str(folder), str(tmp_path / f"{name}-heads")]
        kilobytes.append(int(subprocess.run(run, check=True, capture_output=True, text=True).stdout))
    states = 396_000 * HIDDEN * 2 / 1024  # 49 MB more of them as they lie on disk, twice that as float32
    assert kilobytes[1] - kilobytes[0] < 0.5 * states
