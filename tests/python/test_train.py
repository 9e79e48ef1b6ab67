"""Training makes heads that predict better, from any point again, in memory that does not grow with the data."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file  # noqa: E402

from autodeco import Heads, cli  # noqa: E402
from autodeco.errors import InputError  # noqa: E402
from autodeco.traces.format import read_manifest  # noqa: E402
from autodeco.training import TrainingArguments, loop, train  # noqa: E402
from autodeco.training.batches import ShuffledBatches  # noqa: E402
from autodeco.training.schedule import learning_rate  # noqa: E402
from autodeco.training.state import TrainingState  # noqa: E402
from autodeco.training.trace_source import TraceSource  # noqa: E402
from autodeco.training.trace_tokens import TraceTokens  # noqa: E402
from builders.file_reads import count_reads  # noqa: E402
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


def test_the_command_shows_losses_before_and_after(traces, tmp_path, capsys):
    flags = ["--steps", "10", "--batch-tokens", "32", "--learning-rate", "0.002"]
    assert cli.main(["train", str(traces), "-o", str(tmp_path / "heads"), *flags]) == 0
    shown = capsys.readouterr().out
    assert "before" in shown
    assert "temperature loss" in shown
    assert "top-p loss" in shown
    assert "autodeco-export" in shown


@pytest.mark.slow
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
