"""benchmarks/gpu/full_run.py goes on where it was interrupted; what it trains with has tests of its own."""

import json
import signal
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
from autodeco.rewards.arguments import SETTING
from builders.gpu_scripts import FOLDER, load


@pytest.fixture
def full_run(monkeypatch):
    """The script, whose runs are recorded in place of being made: (name, first heads, whether it resumes)."""
    monkeypatch.syspath_prepend(FOLDER)
    module = load("full_run")
    module.ran, module.interrupted, module.settings = [], {}, {}

    def train(policy, problems, folder, arguments, first, resume, anchors):
        module.ran.append((folder.name, first and first.name, resume))
        module.settings[folder.name] = arguments
        folder.mkdir(parents=True, exist_ok=True)
        stopped = module.interrupted.pop(folder.name, 0)
        kept = folder / module.RESUME_FILE
        kept.touch() if stopped else kept.unlink(missing_ok=True)
        return SimpleNamespace(verdict=f"of {folder.name}", best_step=1, history=[], interrupted=stopped)

    monkeypatch.setattr(module, "train_on_rewards", train)
    monkeypatch.setattr(module, "HuggingFaceModel", lambda *_: None)
    monkeypatch.setattr(module, "HuggingFacePolicy", lambda *_: None)
    return module


def test_each_run_begins_with_the_heads_before_it_and_an_interrupted_one_goes_on(full_run, tmp_path, capsys):
    command = ["model.gguf", "training.jsonl", "none", str(tmp_path / "out"), "--device", "cpu"]
    full_run.interrupted = {"both": signal.SIGINT}
    assert full_run.main(command) == 130
    assert full_run.ran == [("warm", None, False), ("both", "warm", False)]
    assert "out/both: unfinished; the same command goes on" in capsys.readouterr().out
    full_run.ran.clear()
    assert full_run.main(command) == 0
    assert full_run.ran == [("both", "warm", True), ("single", "both", False)]
    report = json.loads((tmp_path / "out" / "full_run.json").read_text())
    assert [report[name]["verdict"] for name in ("warm", "both", "single")] == ["of warm", "of both", "of single"]
    assert set(report["seconds"]) == {"load", "warm", "both", "single"}
    full_run.ran.clear()
    assert full_run.main([*command, "--samples", "4"]) == 2
    assert "holds a run of other arguments" in capsys.readouterr().err
    assert full_run.main(command) == 0
    assert full_run.ran == []


def test_the_second_run_holds_heads_to_a_setting_of_its_own(full_run, tmp_path):
    command = ["model.gguf", "training.jsonl", "none", str(tmp_path / "out"), "--device", "cpu"]
    assert full_run.main(command) == 0
    warm, both, single = (full_run.settings[name] for name in ("warm", "both", "single"))
    assert (warm.rounds, both.rounds, single.rounds) == (22, 8, 24)
    assert (both.target, both.batch_problems, both.passes, both.learning_rate) == ("pass@1+2*pass@8", 192, 2, 7e-4)
    assert (both.anchor_to, both.anchor_temperature, both.anchor_top_p, both.anchor_price) == (SETTING, 0.2, 0.95, 0.1)
    assert (warm.batch_problems, single.batch_problems, both.free_temperature) == (160, 160, None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({2: "absent.jsonl"}, "absent.jsonl: no such file"), ({5: "cuda"}, "torch finds no CUDA here")],
)
def test_what_is_missing_is_told_in_one_line_before_a_model_is_loaded(
    full_run, tmp_path, capsys, monkeypatch, changes, said
):
    monkeypatch.setattr(full_run.torch.cuda, "is_available", lambda: False)
    command = ["model.gguf", "training.jsonl", "none", str(tmp_path / "out"), "--device", "cpu"]
    for place, word in changes.items():
        command[place] = word
    assert full_run.main(command) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
