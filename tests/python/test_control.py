"""Heads learn to follow commands in the prompt, from traces and from a running model, and it is measured how often."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from safetensors.numpy import load_file  # noqa: E402

from autodeco import Heads, cli  # noqa: E402
from autodeco.data.control import Control, read_commands, share_names  # noqa: E402
from autodeco.errors import InputError  # noqa: E402
from autodeco.traces.format import read_manifest, write_manifest, write_shard  # noqa: E402
from autodeco.training import train  # noqa: E402
from autodeco.training.control import measure_control  # noqa: E402
from autodeco.training.trace_answers import TraceAnswers  # noqa: E402
from autodeco.training.trace_source import TraceSource  # noqa: E402
from autodeco.training.trace_tokens import TraceTokens  # noqa: E402
from builders.interrupts import interrupt_in  # noqa: E402
from builders.models import HIDDEN, write_model  # noqa: E402
from builders.traces import SHORT, write_traces  # noqa: E402
from builders.trained_heads import weights  # noqa: E402

CONTROL = replace(SHORT, control=True, control_tokens=4, validation_tokens=100_000)
TOKENS = 6  # in an answer
RECORDS, HELD_OUT = 60, 20
SHARES = [*share_names(False).values(), *share_names(True).values()]


def write_control_traces(folder, without=lambda record, command: False):
    """Write traces of answers in which a command moves a few numbers of each state, by as much as the answers differ.

    ``without`` says which variants are missing.
    """
    write_traces(folder, tokens=12, shard_tokens=12)
    manifest = read_manifest(folder)
    commands = read_commands()
    held_out = list(range(0, RECORDS, RECORDS // HELD_OUT))
    control = Control(commands, held_out, seed=0)
    _, weight = write_model(folder / "same.gguf")
    rng = np.random.default_rng(3)
    feature = rng.standard_normal(HIDDEN) / 4
    hidden, columns = [], {name: [] for name in ("label", "record", "position", "command")}
    for record in range(RECORDS):
        answer = rng.standard_normal((TOKENS, HIDDEN)) / 3
        labels = (answer @ weight.T).argmax(-1)
        chosen = [place for place, _ in control.variants(record, fake_record())]
        for command in chosen:
            if without(record, command):
                continue
            sign = {"low": -1, "high": 1}[commands[command - 1].direction] if command else 0
            hidden.append(answer + sign * feature + rng.standard_normal(answer.shape) / 30)
            columns["label"] += labels.tolist()
            columns["record"] += [record] * TOKENS
            columns["position"] += range(TOKENS)
            columns["command"] += [command] * TOKENS
    shard = replace(manifest.shards[0], tokens=len(columns["label"]), next_record=RECORDS)
    write_shard(folder / shard.file, np.concatenate(hidden), **columns)
    manifest.control, manifest.shards = control, [shard]
    write_manifest(folder, manifest)
    return folder


def fake_record():
    from autodeco.data.records import Record

    return Record(1, "Why?", "Because.")


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    return write_control_traces(tmp_path_factory.mktemp("control") / "traces")


@pytest.fixture(scope="module")
def random_heads(tmp_path_factory):
    """Heads whose predictions have nothing to do with commands."""
    torch.manual_seed(4)
    heads = Heads(HIDDEN)
    for head in (heads.temp_head, heads.top_p_head):
        torch.nn.init.normal_(head.mlp[2].weight, std=0.05)
    folder = tmp_path_factory.mktemp("control") / "random"
    heads.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(traces, random_heads, tmp_path_factory):
    folder = tmp_path_factory.mktemp("control") / "heads"
    return folder, train(traces, folder, CONTROL, init=random_heads, progress=False)


def test_training_takes_the_share_of_prompts_that_follow_from_chance_to_nearly_all(trained):
    before, after = (asdict(side) for side in (trained[1].before, trained[1].after))
    assert np.mean([before[name] for name in SHARES]) < 0.8
    for name in SHARES:
        assert after[name] >= 0.9, name
    assert after["ranking_loss"] < 0.5 * before["ranking_loss"]
    assert after["temperature_loss"] < before["temperature_loss"]


def test_without_control_the_same_traces_train_on_answers_without_commands_only(traces, random_heads, tmp_path):
    result = train(traces, tmp_path / "heads", replace(CONTROL, control=False), init=random_heads, progress=False)
    assert (result.training_size, result.validation_size) == ((RECORDS - HELD_OUT) * TOKENS, HELD_OUT * TOKENS)
    source = TraceSource(traces, CONTROL)
    figures = measure_control(Heads.from_pretrained(tmp_path / "heads"), source, CONTROL)
    assert np.mean([figures[name] for name in SHARES]) < 0.8


def test_an_update_ranks_the_same_tokens_of_an_answer_behind_each_command(traces):
    manifest = read_manifest(traces)
    tokens = TraceTokens(traces, manifest)
    answers = TraceAnswers(tokens, tokens.split(CONTROL.validation_share, CONTROL.seed)[1], CONTROL)
    shard = load_file(traces / "shard-0.safetensors")
    for step in (0, 5):
        indices = answers.training(step)
        records, commands, positions = (shard[name][indices] for name in ("record", "command", "position"))
        assert len(np.unique(records)) == CONTROL.control_prompts
        assert not set(records) & set(manifest.control.held_out)
        for record in np.unique(records):
            mine = records == record
            variants = np.unique(commands[mine])
            assert len(variants) == 3
            assert variants[0] == 0
            places = [positions[mine & (commands == command)].tolist() for command in variants]
            assert places[0] == places[1] == places[2] == sorted(set(places[0]))
            assert len(places[0]) == 4
    assert not np.array_equal(answers.training(0), answers.training(1))


def test_held_out_prompts_are_measured_whole_behind_both_kinds_of_wording(traces):
    source = TraceSource(traces, CONTROL)
    chunks = list(source.ranked_validation())
    records = np.concatenate([chunk.records for chunk in chunks])
    commands = np.concatenate([chunk.commands for chunk in chunks])
    assert set(records) == set(read_manifest(traces).control.held_out)
    assert len(records) == HELD_OUT * 5 * TOKENS
    uses = [
        (source.commands[c - 1].direction, source.commands[c - 1].held_out) for c in np.unique(commands[commands > 0])
    ]
    assert set(uses) == {("low", False), ("low", True), ("high", False), ("high", True)}


def test_an_interrupted_run_resumes_to_the_same_heads(traces, trained, random_heads, tmp_path, monkeypatch):
    go_on = interrupt_in(monkeypatch, 16)
    assert train(traces, tmp_path, CONTROL, init=random_heads, progress=False).interrupted
    go_on()
    resumed = train(traces, tmp_path, CONTROL, init=random_heads, resume=True, progress=False)
    assert resumed.history == trained[1].history
    for name, tensor in weights(trained[0]).items():
        assert torch.equal(weights(tmp_path)[name], tensor), name


@pytest.mark.parametrize("options", [{"temperature": False}, {"top_p": False}])
def test_one_head_alone_is_ranked_by_itself(traces, tmp_path, options):
    result = train(traces, tmp_path, replace(CONTROL, **options), progress=False)
    there, other = ("top_p", "temperature") if "temperature" in options else ("temperature", "top_p")
    after = asdict(result.after)
    assert after[f"low_{there}_new_wording_share"] >= 0.9
    assert after[f"low_{other}_new_wording_share"] == 0
    assert result.before.ranking_loss == pytest.approx(1.0)


def test_the_shares_are_in_the_report_the_file_and_on_the_terminal(traces, tmp_path, capsys):
    flags = ["--control", "--control-tokens", "4", "--steps", "20", "--learning-rate", "0.01", "--warmup-steps", "0"]
    assert cli.main(["train", str(traces), "-o", str(tmp_path / "heads"), *flags]) == 0
    shown = capsys.readouterr().out
    after = json.loads((tmp_path / "heads" / "training.json").read_text())["result"]["after"]
    share = f"{after['low_temperature_new_wording_share']:.0%}"
    row = next(line for line in shown.splitlines() if "low: temperature falls" in line)
    assert row.replace("│", " ").split()[-2:] == [share, "99%"]
    html = (tmp_path / "heads" / "report.html").read_text()
    assert (
        f"<td>low: temperature falls</td><td>{after['low_temperature_share']:.0%}</td><td>{share}</td><td>99%" in html
    )


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("none", "record 5 lacks its answer without a command"),
        ("low", "record 5 lacks its answer with a low command"),
        ("held-out", "record 4 lacks its answer with a held-out high command"),
    ],
)
def test_traces_that_lack_a_variant_are_refused(tmp_path, missing, message):
    commands = read_commands()

    def without(record, command):
        if missing == "none":
            return record == 4 and command == 0
        wanted = ("low", False) if missing == "low" else ("high", True)
        at = 4 if missing == "low" else 3
        return record == at and command and (commands[command - 1].direction, commands[command - 1].held_out) == wanted

    folder = write_control_traces(tmp_path / "traces", without)
    with pytest.raises(InputError, match=message):
        train(folder, tmp_path / "heads", CONTROL, progress=False)
    assert not (tmp_path / "heads").exists()


def test_control_with_traces_that_have_no_commands_is_refused(tmp_path):
    folder = write_traces(tmp_path / "traces")
    with pytest.raises(InputError, match="was collected without commands"):
        train(folder, tmp_path / "heads", CONTROL, progress=False)


@pytest.mark.parametrize(
    "change",
    [
        lambda control: control["commands"][0].update(direction="middle"),
        lambda control: control["commands"][0].pop("text"),
        lambda control: control.pop("held_out"),
    ],
)
def test_a_manifest_with_damaged_commands_is_refused(tmp_path, change):
    folder = write_control_traces(tmp_path / "traces")
    manifest = json.loads((folder / "traces.json").read_text())
    change(manifest["control"])
    (folder / "traces.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="not a readable manifest"):
        read_manifest(folder)


def test_commands_outside_the_set_are_refused(tmp_path):
    folder = write_control_traces(tmp_path / "traces")
    shard = load_file(folder / "shard-0.safetensors")
    shard["command"][7] = 999
    write_shard(folder / "shard-0.safetensors", shard.pop("hidden"), **shard)
    with pytest.raises(InputError, match="commands outside the set"):
        train(folder, tmp_path / "heads", CONTROL, progress=False)
