"""``autodeco reward`` trains heads from the first answer to the report, and says what has no meaning in its run."""

import json

import pytest

torch = pytest.importorskip("torch")
from autodeco import Heads, cli  # noqa: E402

ASK = "State the final answer to the following arithmetic problem: {} + 4 ="
# a round of two answers to each of two problems, and as few to measure
SHORT = ["--rounds=1", "--samples=2", "--batch-problems=2", "--validation-problems=2", "--validation-samples=1"]
SHORT += ["--max-tokens=20", "--checker=python:test_reward_command:length_score"]

RARE = "prob-stats: false\npasses: 1\nminibatches: 1\n"  # what has no flag


def length_score(problem, text):  # named by --checker
    return (1 + len(text) % 5) / 5


@pytest.fixture
def problems(tmp_path):
    path = tmp_path / "problems.jsonl"
    prompts = [[{"role": "user", "content": ASK.format(i)}] for i in range(4)]
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    return path


@pytest.mark.slow
def test_heads_are_trained_from_a_file_of_settings_and_flags(smollm2, problems, tmp_path, capsys):
    config = tmp_path / "run.yaml"
    config.write_text(f"model: {smollm2}\nproblems: {problems}\nthreads: 1\n{RARE}rounds: 9\n")
    heads = tmp_path / "heads"
    assert cli.main(["reward", "--config", str(config), "-o", str(heads), *SHORT]) == 0
    shown = capsys.readouterr().out
    assert "2 held-out problems" in shown
    assert "low temperature" in shown
    assert not Heads.from_pretrained(heads).prob_stats
    made = json.loads((heads / "training.json").read_text())
    assert (made["arguments"]["rounds"], made["result"]["steps"]) == (1, 1)
    names = sorted(path.name for path in heads.iterdir() if not path.name.startswith("."))
    assert names == ["config.json", "model.safetensors", "predictions.json", "report.html", "training.json"]
    assert cli.main(["reward", "--config", str(config), "-o", str(heads), *SHORT]) == 2
    assert "holds heads already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dtype", "float32"], "--dtype: has no meaning with --answers-from llama.cpp"),
        (["--answers-from", "hugging-face", "--threads", "2"], "--threads: has no meaning with --answers-from hugging"),
        (["--init", "h", "--first-temperature", "1"], "--first-temperature: has no meaning with --init"),
        (["--device", "mps"], "device mps: must be cpu, cuda or cuda:N"),
        (["--learning-rate", "inf"], "learning-rate inf: must be a finite number"),
        (["--no-temperature", "--no-top-p"], "leave nothing to train"),
    ],
)
def test_what_makes_no_sense_ends_the_command_with_one_line(problems, tmp_path, capsys, flags, message):
    command = ["reward", "model.gguf", "--problems", str(problems), "-o", str(tmp_path / "heads"), *flags]
    assert cli.main(command) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "heads").exists()


@pytest.mark.parametrize("missing", ["model", "problems", "output"])
def test_what_is_missing_is_named(problems, tmp_path, capsys, missing):
    given = {"model": ["model.gguf"], "problems": ["--problems", str(problems)], "output": ["-o", str(tmp_path)]}
    del given[missing]
    assert cli.main(["reward", *(part for parts in given.values() for part in parts)]) == 2
    assert f"{missing}: is missing" in capsys.readouterr().err
