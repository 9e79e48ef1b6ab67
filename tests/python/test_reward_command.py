"""``autodeco reward`` trains heads from the first answer to the report, and says what has no meaning in its run."""

import json

import pytest

torch = pytest.importorskip("torch")
from autodeco import Heads, cli  # noqa: E402

ASK = "State the final answer to the following arithmetic problem: {} + 4 ="
# a round of two answers to each of two problems, and as few to measure
SHORT = ["--rounds=1", "--samples=2", "--batch-problems=2", "--validation-problems=2", "--validation-samples=1"]
SHORT += ["--checker=python:test_reward_command:length_score"]

RARE = "prob-stats: false\npasses: 1\nminibatches: 1\n"  # what has no flag
FILES = ["config.json", "model.safetensors", "predictions.json", "report.html", "training.json"]


def length_score(problem, text):  # named by --checker
    return (1 + len(text) % 5) / 5


@pytest.fixture
def problems(tmp_path):
    path = tmp_path / "problems.jsonl"
    prompts = [[{"role": "user", "content": ASK.format(i)}] for i in range(4)]
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    return path


def check_run(heads, shown):
    """A whole run left its files, and said what it would do first and its verdict last."""
    lines = shown.splitlines()
    assert lines[0] == "4 problems: 2 to learn from, 2 held out"
    assert "2 held-out problems" in shown
    assert "low temperature" in shown
    made = json.loads((heads / "training.json").read_text())
    assert (made["arguments"]["rounds"], made["result"]["steps"], made["answers_given_up"]) == (1, 1, 0)
    assert lines[-1] == made["verdict"]["sentence"]
    assert not Heads.from_pretrained(heads).prob_stats
    assert sorted(path.name for path in heads.iterdir() if not path.name.startswith(".")) == FILES


@pytest.mark.slow
def test_heads_are_trained_from_a_file_of_settings_and_flags(smollm2, problems, tmp_path, capsys):
    config = tmp_path / "run.yaml"
    config.write_text(f"model: {smollm2}\nproblems: {problems}\nthreads: 1\nmax_tokens: 20\n{RARE}rounds: 9\n")
    heads = tmp_path / "heads"
    assert cli.main(["reward", "--config", str(config), "-o", str(heads), *SHORT]) == 0
    check_run(heads, capsys.readouterr().out)
    assert cli.main(["reward", "--config", str(config), "-o", str(heads), *SHORT]) == 2
    assert "holds heads already" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        cli.main(["reward", "--config", str(config), "-o", str(heads), "--batch-tokens", "4"])
    assert "unrecognized arguments: --batch-tokens" in capsys.readouterr().err


@pytest.mark.slow
def test_heads_are_trained_with_answers_of_transformers(smollm2, problems, tmp_path, capsys):
    pytest.importorskip("transformers")
    from builders.hf_folders import write_tiny_smollm2

    write_tiny_smollm2(smollm2, tmp_path / "tiny", ends=list(range(2, 49152, 6)))
    capsys.readouterr()
    config = tmp_path / "run.yaml"
    config.write_text(RARE)
    command = ["reward", str(tmp_path / "tiny"), "--problems", str(problems), "-o", str(tmp_path / "heads"), *SHORT]
    command += ["--config", str(config), "--answers-from=hugging-face", "--dtype=float32", "--max-tokens=8"]
    assert cli.main([*command, "--slots=8"]) == 0
    check_run(tmp_path / "heads", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dtype", "float32"], "--dtype: has no meaning with --answers-from llama.cpp"),
        (["--answers-from", "hugging-face", "--threads", "2"], "--threads: has no meaning with --answers-from hugging"),
        (["--init", "h", "--first-temperature", "1"], "--first-temperature: has no meaning with --init"),
        (["--no-temperature", "--first-temperature", "1"], "first-temperature: has no meaning without a temperature"),
        (["--time", "30m", "--rounds", "9"], "--rounds: has no meaning with --time, which chooses it"),
        (["--time", "soon"], "time 'soon': is no length of time; give one as 30m, 2h or 1h30m"),
        (["--time", "9" * 400 + "h"], "is no length of time"),
        (["--device", "mps"], "device mps: must be cpu, cuda or cuda:N"),
        (["--learning-rate", "inf"], "learning-rate inf: must be between 1e-09 and 1.0"),
        (["--learning-rate", "0"], "learning-rate 0.0: must be between"),
        (["--seed", str(2**64)], f"seed {2**64}: must be between 0 and {2**63 - 1}"),
        (["--samples", "1"], "samples 1: must be between 2 and 4096"),
        (["--samples", "1000000"], "samples 1000000: must be between 2 and 4096"),
        (["--target", "pass@8", "--samples", "4"], "target pass@8: pass@8 wants samples of at least 8"),
        (["--target", "pass@1+1e9*pass@8"], "target: 'pass@1+1e9*pass@8' is none"),
        (["--target", f"pass@1+{'9' * 400}*pass@8"], "has a weight above 1000"),
        (["--max-tokens", "0"], "max-tokens 0: must be between 1 and"),
        (["--slots", "0"], "slots 0: must be between 1 and"),
        (["--first-temperature", "2"], "first-temperature 2.0: must be between 0.01 and 1.99"),
        (["--no-temperature", "--no-top-p"], "leave nothing to train"),
        (["--checker", "nmber"], "checker nmber: must be exact, number"),
        (["--checker", "python:absent:score"], "checker python:absent:score: "),
        (["--checker", "number"], "a problem has no answer to check against"),
    ],
)
def test_what_makes_no_sense_ends_the_command_with_one_line(problems, tmp_path, capsys, flags, message):
    """All of it before the model is opened, which is not there."""
    command = ["reward", "model.gguf", "--problems", str(problems), "-o", str(tmp_path / "heads"), *flags]
    assert cli.main(command) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "heads").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            "warmup_steps: 12\nrounds: 1\n",
            "warmup-steps 12: the run has 12 updates, so its learning rate would only rise",
        ),
        ("top_p: false\nfirst_top_p: 0.9\n", "--first-top-p: has no meaning without a top-p head"),
        ("clip: 0\n", "clip 0.0: must be between 0.01 and 1.0"),
        ("time: 30\n", "time 30: must be text"),
    ],
)
def test_settings_of_a_file_that_make_no_sense_are_told_too(problems, tmp_path, capsys, settings, message):
    config = tmp_path / "run.yaml"
    config.write_text(settings)
    command = ["reward", "model.gguf", "--problems", str(problems), "-o", str(tmp_path / "heads"), SHORT[-1]]
    assert cli.main([*command, "--config", str(config)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [(None, "no such file"), (3, "holds fewer than four different problems"), (0, "the file is empty")],
)
def test_problems_that_cannot_be_used_are_told_before_a_model_is_opened(tmp_path, capsys, lines, message):
    path = tmp_path / "few.jsonl"
    if lines is not None:
        path.write_text('{"prompt": "a", "answer": "b"}\n' * lines)
    assert cli.main(["reward", "model.gguf", "--problems", str(path), "-o", str(tmp_path / "heads")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("missing", ["model", "problems", "output"])
def test_what_is_missing_is_named(problems, tmp_path, capsys, missing):
    given = {"model": ["model.gguf"], "problems": ["--problems", str(problems)], "output": ["-o", str(tmp_path)]}
    del given[missing]
    assert cli.main(["reward", *(part for parts in given.values() for part in parts)]) == 2
    assert f"{missing}: is missing" in capsys.readouterr().err


def test_more_slots_than_llama_cpp_has_are_told_before_a_model_is_opened(problems, tmp_path, capsys):
    command = ["reward", "model.gguf", "--problems", str(problems), "-o", str(tmp_path / "heads"), "--slots=300"]
    assert cli.main([*command, SHORT[-1]]) == 2
    assert "slots 300: llama.cpp computes at most 256 answers at a time" in capsys.readouterr().err
