"""Several processes train on rewards the heads that one trains, are interrupted together, and others go on."""

import json
import shutil
import signal
import zlib
from pathlib import Path

import pytest
from safetensors.torch import load_file

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")
from autodeco.training.processes import Processes
from builders.hf_folders import write_tiny_smollm2
from builders.launching import AUTODECO, launch

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
first_temperature: 0.3
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


def stopped(folder, output, processes):
    """Train until the first process is interrupted, in its third round."""
    done = trained(folder, output, processes, program=PROGRAMS / "interrupted_first_process.py")
    assert done.returncode != 0
    assert "continue with the same command and --resume" in done.stdout, done.stderr
    assert run_of(output)["result"]["steps"] == 3
    return output


@pytest.fixture(scope="module")
def one(folder, tmp_path_factory):
    """What one process left when it was interrupted."""
    return stopped(folder, tmp_path_factory.mktemp("one") / "heads", 1)


@pytest.fixture(scope="module")
def two(folder, tmp_path_factory):
    """What two processes left of which the first was interrupted."""
    return stopped(folder, tmp_path_factory.mktemp("two") / "heads", 2)


def run_of(output):
    return json.loads((output / "training.json").read_text())


def heads_of(output):
    """The heads of an unfinished run as they were last."""
    return {k: v for k, v in load_file(output / "resume.safetensors").items() if k.startswith("heads.")}


def assert_same_rounds(runs):
    """What was drawn and learned is the same, up to the rounding of sums."""
    mine, its = (run["updates"] for run in runs)
    for found, expected in zip(mine, its, strict=True):
        for name in ("step", "reward", "tokens", "decisions"):
            assert found[name] == expected[name], name
        assert found == pytest.approx(expected, rel=1e-2, abs=1e-6)


@pytest.mark.slow
def test_two_processes_train_the_same_heads_as_one(one, two):
    runs = [run_of(output) for output in (one, two)]
    assert [run["processes"] for run in runs] == [1, 2]
    assert_same_rounds(runs)
    assert len({row["decisions"] for row in runs[0]["updates"]}) > 1
    for name, tensor in heads_of(one).items():
        # Three updates move a weight by some 3e-3. AdamW divides by gradients, of which some are little but rounding.
        assert (heads_of(two)[name] - tensor).square().mean().sqrt() < 3e-4, name


@pytest.mark.slow
@pytest.mark.parametrize(("before", "others"), [("one", 2), ("two", 1)])
def test_an_interrupted_run_goes_on_with_another_number_of_processes(folder, request, tmp_path, before, others):
    ends = []
    for name, processes in (("same", {"one": 1, "two": 2}[before]), ("other", others)):
        shutil.copytree(request.getfixturevalue(before), tmp_path / name)
        done = trained(folder, tmp_path / name, processes, "--resume")
        assert done.returncode == 0, done.stderr
        # one of them shows the plan and the result
        assert [done.stdout.count(line) for line in ("14 problems: ", " 5 held-out problems")] == [1, 1]
        ends.append(run_of(tmp_path / name))
    assert [end["result"]["steps"] for end in ends] == [4, 4]
    assert_same_rounds(ends)
    assert ends[0]["verdict"]["greedy"] == ends[1]["verdict"]["greedy"]


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


def test_an_interrupt_of_one_of_several_leaves_its_share_and_is_told_where_all_meet(monkeypatch):
    processes = Processes()
    with pytest.raises(KeyboardInterrupt), processes.left_early():
        raise KeyboardInterrupt  # alone: at once
    processes.count = 2
    with processes.interrupted_together():
        signal.raise_signal(signal.SIGINT)  # nothing of the body is lost
        with processes.left_early():
            processes.stop_if_interrupted()
            pytest.fail("the share is not left")
        monkeypatch.setattr("accelerate.utils.gather_object", lambda mine: [*mine, ([], "the other's")])
        with pytest.raises(KeyboardInterrupt):
            processes.gather(None)
