"""A run that was interrupted, terminated or killed goes on to the heads that it would have had."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from autodeco import Heads  # noqa: E402
from autodeco.errors import InputError  # noqa: E402
from autodeco.export import cli as export_cli  # noqa: E402
from autodeco.runs.locks import locked_folder  # noqa: E402
from autodeco.training import loop, train  # noqa: E402
from builders.interrupts import interrupt_in  # noqa: E402
from builders.traces import SHORT, write_traces  # noqa: E402
from builders.trained_heads import weights  # noqa: E402


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    return write_traces(tmp_path_factory.mktemp("train") / "traces")


@pytest.fixture(scope="module")
def trained(traces, tmp_path_factory):
    folder = tmp_path_factory.mktemp("train") / "heads"
    return folder, train(traces, folder, SHORT, progress=False)


def test_an_interrupted_run_keeps_its_best_heads_and_resumes_to_the_same_ones(traces, trained, tmp_path, monkeypatch):
    go_on = interrupt_in(monkeypatch, 16)
    result = train(traces, tmp_path, SHORT, progress=False)
    assert result.interrupted
    assert (result.steps, result.best_step) == (17, 10)
    assert Heads.from_pretrained(tmp_path).prob_stats
    go_on()
    with pytest.raises(InputError, match="holds an unfinished run"):
        train(traces, tmp_path, SHORT, progress=False)
    with pytest.raises(InputError, match="had another learning_rate, another steps; use the same again"):
        train(traces, tmp_path, replace(SHORT, learning_rate=1e-3, steps=21), resume=True, progress=False)
    resumed = train(traces, tmp_path, SHORT, resume=True, progress=False)
    assert not resumed.interrupted
    assert resumed.history == trained[1].history
    for name, tensor in weights(trained[0]).items():
        assert torch.equal(weights(tmp_path)[name], tensor), name
    with pytest.raises(InputError, match="its run has ended, so there is no unfinished run to continue"):
        train(traces, tmp_path, SHORT, resume=True, progress=False)
    with pytest.raises(InputError, match="there is no unfinished run to continue; leave out --resume to start one"):
        train(traces, tmp_path / "new", SHORT, resume=True, progress=False)


def test_heads_that_are_there_are_not_trained_over(traces, trained, tmp_path):
    folder = tmp_path / "heads"
    shutil.copytree(trained[0], folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for init in (None, folder):
        with pytest.raises(InputError, match="holds heads already"):
            train(traces, folder, SHORT, init=init, progress=False)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("report.html", "holds heads already"),
        ("predictions.json", "holds heads already"),
        ("config.json", "holds config.json of a model or of other heads"),
        ("model-00001-of-00002.safetensors", "holds model-00001-of-00002.safetensors of a model"),
        ("model.safetensors.index.json", "holds model.safetensors.index.json of a model"),
    ],
)
def test_nothing_is_trained_into_what_would_be_taken_for_its_own(traces, tmp_path, name, told):
    (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(InputError, match=told):
        train(traces, tmp_path, SHORT, progress=False)
    assert {path.name for path in tmp_path.iterdir()} == {name}
    assert (tmp_path / name).read_bytes() == b"{}"


def test_heads_that_another_process_finished_meanwhile_are_not_trained_over(traces, trained, tmp_path, monkeypatch):
    """Between looking and writing lies the loading of a model."""
    folder, before = tmp_path / "heads", loop.TrainingState.__init__

    def slow(*args, **kwargs):
        before(*args, **kwargs)
        shutil.copytree(trained[0], folder, dirs_exist_ok=True)

    monkeypatch.setattr(loop.TrainingState, "__init__", slow)
    with pytest.raises(InputError, match="holds heads already"):
        train(traces, folder, SHORT, progress=False)
    assert (folder / "model.safetensors").read_bytes() == (trained[0] / "model.safetensors").read_bytes()


class Killed(BaseException):
    """The end of a process, which nothing catches."""


def killed_at(number: int, monkeypatch, after: bool) -> list[str]:
    """Let the process end before or after a file is put in its place, counted from 1; return the files as they come."""
    written, replace_file, unlink = [], os.replace, Path.unlink

    def counted(change, *paths, **kwargs):
        written.append(Path(paths[-1]).name)
        if len(written) >= number and not after:
            raise Killed
        change(*paths, **kwargs)
        if len(written) >= number:
            raise Killed

    def unlinked(path, **kwargs):
        if path.name == "resume.safetensors":
            counted(unlink, path, **kwargs)
        else:
            unlink(path, **kwargs)

    monkeypatch.setattr(os, "replace", lambda *paths: counted(replace_file, *paths))
    monkeypatch.setattr(Path, "unlink", unlinked)
    return written


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_a_run_that_is_killed_at_any_file_ends_as_if_it_had_not_been(traces, tmp_path, monkeypatch, capsys, after):
    arguments = replace(SHORT, steps=4, evaluate_every=2)
    whole = tmp_path / "whole"
    written = killed_at(1000, monkeypatch, after)
    train(traces, whole, arguments, progress=False)
    monkeypatch.undo()
    assert written[0] == written[-1] == "resume.safetensors"
    assert {"training.json", "predictions.json", "report.html"} < set(written)
    for number in range(1, len(written) + 1):
        folder = tmp_path / f"{number}"
        killed_at(number, monkeypatch, after)
        with pytest.raises(Killed):
            train(traces, folder, arguments, progress=False)
        monkeypatch.undo()
        # What is there can be exported, or the line says that nothing is yet.
        export = [str(folder), "--base", str(traces / "model.gguf"), "-o", str(folder / "out.gguf")]
        told = capsys.readouterr() and export_cli.main(export), capsys.readouterr()
        assert told[0] == 0 or "measured no heads yet" in told[1].err or number == 1
        (folder / "out.gguf").unlink(missing_ok=True)
        is_over = after and number == len(written)
        if not is_over:
            begun = (folder / "resume.safetensors").exists()
            train(traces, folder, arguments, resume=begun, progress=False)
        assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in whole.iterdir())
        for name in ("model.safetensors", "config.json", "predictions.json"):
            assert (folder / name).read_bytes() == (whole / name).read_bytes(), (number, name)


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
