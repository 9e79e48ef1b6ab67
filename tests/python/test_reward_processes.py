"""Several processes train on rewards the heads that one trains, are interrupted together, and others go on."""

import json
import zlib
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")
from autodeco.training.processes import Processes  # noqa: E402
from builders.hf_folders import write_tiny_smollm2  # noqa: E402
from builders.launching import AUTODECO, launch  # noqa: E402
from builders.trained_heads import weights  # noqa: E402

PROGRAMS = Path(__file__).parent / "programs"
SETTINGS = """
answers_from: hugging-face
dtype: float32
checker: python:test_reward_processes:score
max_tokens: 8
slots: 8
rounds: 4
samples: 4
batch_problems: 5
passes: 1
minibatches: 1
validation_problems: 5
validation_samples: 2
evaluate_every: 2
learning_rate: 1.0e-3
warmup_steps: 1
first_temperature: 1.0
"""


def score(problem, text):  # named by the checker
    return zlib.crc32(text.encode()) % 5 / 4


@pytest.fixture(scope="module")
def folder(smollm2, tmp_path_factory):
    path = tmp_path_factory.mktemp("processes")
    write_tiny_smollm2(smollm2, path / "tiny", ends=list(range(2, 49152, 6)))
    (path / "problems.jsonl").write_text("".join(f'{{"prompt": "problem {i}"}}\n' for i in range(14)))
    (path / "run.yaml").write_text(SETTINGS)
    return path


def trained(folder, output, processes, *flags, program=AUTODECO):
    command = ["reward", folder / "tiny", "--problems", folder / "problems.jsonl", "--config", folder / "run.yaml"]
    return launch(processes, [*command, "-o", output, *flags], program, PYTHONPATH=str(Path(__file__).parent))


@pytest.fixture(scope="module")
def one(folder, tmp_path_factory):
    """Heads that one process trained."""
    output = tmp_path_factory.mktemp("one")
    done = trained(folder, output, 1)
    assert done.returncode == 0, done.stderr
    return output


def run_of(output):
    return json.loads((output / "training.json").read_text())


def assert_same(output, one):
    """What the processes drew and learned is what one did, up to the rounding of sums."""
    mine, its = run_of(output), run_of(one)
    assert mine["verdict"] == its["verdict"]
    for found, expected in zip(mine["updates"], its["updates"], strict=True):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert mine["result"]["history"][-1] == pytest.approx(its["result"]["history"][-1], rel=1e-3)
    for name, tensor in weights(one).items():
        torch.testing.assert_close(weights(output)[name], tensor, rtol=1e-2, atol=2e-4, msg=name)


@pytest.mark.slow
def test_two_processes_train_the_same_heads_as_one(folder, one, tmp_path):
    done = trained(folder, tmp_path, 2)
    assert done.returncode == 0, done.stderr
    assert [run_of(each)["processes"] for each in (one, tmp_path)] == [1, 2]
    assert len({row["decisions"] for row in run_of(one)["updates"]}) > 1
    assert_same(tmp_path, one)
    assert done.stdout.count("held-out problems") == 1  # one of them shows the result


@pytest.mark.slow
@pytest.mark.parametrize("others", [1, 2])
def test_processes_of_which_one_is_interrupted_stop_together_and_others_go_on(folder, one, tmp_path, others):
    done = trained(folder, tmp_path, 2, program=PROGRAMS / "interrupted_first_process.py")
    assert done.returncode != 0
    assert "continue with the same command and --resume" in done.stdout
    assert run_of(tmp_path)["result"]["steps"] == 3
    done = trained(folder, tmp_path, others, "--resume")
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path, one)


@pytest.mark.slow
def test_more_processes_than_a_round_has_problems_are_refused(folder, tmp_path):
    done = trained(folder, tmp_path / "heads", 2, "--batch-problems=1")
    assert done.returncode != 0
    assert "a round has 1 problems, too few for 2 processes" in done.stderr
    assert not (tmp_path / "heads").exists()


def test_shares_are_neighbours_and_as_many_as_others_have():
    processes = Processes()
    assert processes.share(7) == slice(0, 7)
    processes.count, shares = 3, []
    for processes.rank in range(3):
        shares.append(list(range(11))[processes.share(11)])
    assert shares == [[0, 1, 2], [3, 4, 5, 6], [7, 8, 9, 10]]
