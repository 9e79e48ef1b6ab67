"""A run trains on the device that was asked for, and alone where it writes alone."""

import pytest

torch = pytest.importorskip("torch")
from autodeco import cli  # noqa: E402
from autodeco.errors import InputError  # noqa: E402
from autodeco.training import TrainingArguments, train  # noqa: E402
from autodeco.training.device import take_device  # noqa: E402


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs; return the numbers of those that were made the current one."""
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    return taken


def test_the_gpu_that_is_named_is_made_the_current_one(gpus):
    take_device("cpu")
    take_device("cuda")
    assert gpus == []
    take_device("cuda:1")
    assert gpus == [1]


def test_a_gpu_that_is_not_there_is_refused(gpus):
    with pytest.raises(InputError, match="device cuda:2: torch finds 2 GPU"):
        take_device("cuda:2")
    assert gpus == []


def test_training_takes_its_gpu_before_it_reads_anything(gpus, tmp_path):
    with pytest.raises(InputError, match="make traces with"):
        train(tmp_path / "absent", tmp_path / "heads", TrainingArguments(device="cuda:1"), progress=False)
    assert gpus == [1]


def test_a_hugging_face_model_is_run_on_the_gpu_that_is_named(gpus, tmp_path):
    command = ["train", "--model", str(tmp_path / "absent"), "--data", str(tmp_path / "data.jsonl"), "--device=cuda:1"]
    assert cli.main([*command, "-o", str(tmp_path / "heads")]) == 2
    assert set(gpus) == {1}


def test_several_processes_cannot_all_take_one_gpu(gpus, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    take_device("cuda")
    with pytest.raises(InputError, match="2 processes take a GPU each"):
        take_device("cuda:1")


@pytest.mark.parametrize(
    "command",
    [
        ["train", "TRACES", "-o", "HEADS"],
        ["reward", "MODEL.gguf", "--problems", "FILE", "-o", "HEADS"],
    ],
)
def test_several_processes_that_would_write_the_same_files_are_refused(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert cli.main(command) == 2
    error = capsys.readouterr().err
    assert "runs in one process, and 4 were started" in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
