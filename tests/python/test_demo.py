"""`autodeco demo`: a tuning of given sizes, and what it shows of the comparison at its end."""

import io
import json

import pytest
from rich.console import Console

from autodeco import cli
from autodeco.commands.demo_comparison import compare, differing
from autodeco.evaluation.results import ONE_FOR_ALL, ORACLE
from builders.recorded_commands import record_commands

LEAST = ["--training", "16", "--rounds", "1", "--samples", "2", "--test", "4", "--judged-samples", "1"]
REST = "batch_problems: 2\nheld_out: 2\nvalidation: 1\n"  # what has no flag


def answer(text, right, *temperatures):
    row = {"right": right, "finish": "end", "text": text}
    if temperatures:
        row |= {"token_texts": [text, "<|im_end|>"], "temperature": list(temperatures), "top_p": [0.9, 0.9]}
    return row


def task(name, rates, oracle):
    questions = ["Is 1 odd?", "Is 2 odd?", "Is 3 odd?"]
    answers = {"AutoDeco": answer("yes", True, 0.52, 0.03), "greedy": answer("no", False), oracle: answer("no", False)}
    return {
        "task": name,
        "methods": {method: {"pass_at": {"1": {"value": rate}}} for method, rate in rates.items()},
        ORACLE: oracle,
        "first": [{"question": question, "answer": "yes", "answers": answers} for question in questions],
    }


def against(*methods):
    return {"methods": list(methods), "difference": 0.1, "low": 0.04, "high": 0.16}


FIGURES = {
    "verdict": "use these heads: so it is",
    "settings": {"test": 120, "samples": 8, "max_tokens": 24},
    "tasks": [
        task("odd", {"AutoDeco": 0.6, "greedy": 0.5, "T 0.3 P 1": 0.55, "mean shift": 0.52}, "T 0.3 P 1"),
        task("even", {"AutoDeco": 0.4, "greedy": 0.2, "T 0.3 P 1": 0.1, "mean shift": 0.25}, "greedy"),
    ],
    "together": {
        "against": {
            "greedy": against("greedy", "greedy"),
            ORACLE: against("T 0.3 P 1", "greedy"),
            ONE_FOR_ALL: against("greedy", "greedy"),
            "mean shift": against("mean shift", "mean shift"),
        }
    },
}


def test_the_table_has_each_rival_beside_the_heads_and_the_first_answers_follow():
    console = Console(file=io.StringIO(), width=160, color_system=None)
    compare(console, FIGURES)
    lines = console.file.getvalue().splitlines()
    assert lines[0].startswith("right answers in %, of 8 to each of 120 problems of a kind that no training saw")
    assert lines[0].endswith("; at most 24 tokens each")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    points = "+10.0 points (+4.0 to +16.0)"
    assert rows == [
        ["AutoDeco, for every token", "60.0", "40.0", "50.0", ""],
        ["greedy", "50.0", "20.0", "35.0", points],
        ["best static setting here: greedy", "50.0", "20.0", "35.0", points],
        ["best static setting of each kind", "55.0", "20.0", "37.5", points],
        ["fixed at the heads' mean", "52.0", "25.0", "38.5", points],
    ]
    assert any(line.startswith("The first 3 test problems of each kind") for line in lines)
    shown = [line for line in lines if line.startswith("  ")]
    assert shown[:4] == [
        "  Is 1 odd?  (yes is right)",
        "    best static  wrong  no",
        "    greedy       wrong  no",
        "    AutoDeco     right  yes 0.52  <|im_end|> 0.03  ",
    ]
    assert len(shown) == 3 * 4 + 3 * 3  # where greedy is the best static setting, it is shown once


@pytest.mark.parametrize(
    ("texts", "parts"),
    [
        (["Of 2.\n\nAll alike:\n 1 2\n", "Of 3.\n\nAll alike:\n 1 2 3\n"], ["Of 2. ... 1 2", "Of 3. ... 1 2 3"]),
        (["x\ny", "x\nz"], ["y", "z"]),
        (["x\ny", "x\ny"], ["y", "y"]),
        (["one"], ["one"]),
    ],
)
def test_of_questions_what_differs_is_shown(texts, parts):
    assert differing(texts) == parts


@pytest.fixture
def ran(monkeypatch):
    return record_commands(monkeypatch, FIGURES)


def test_the_demo_is_a_tuning_of_given_sizes_that_goes_on(tmp_path, capsys, ran):
    demo, words = ran
    out = tmp_path / "out"
    command = ["demo", "-o", str(out), "--threads", "1", "--rounds", "5", "--test", "7"]
    command += ["--gpu-layers", "-1"]
    assert demo(command) == 0
    assert [argv[0] for argv in words] == ["eval", "reward", str(out / "heads"), "eval"]
    training = words[1]
    assert training[training.index("--rounds") + 1] == "5"
    assert "--no-verdict" in training
    assert not {"--time", "--anchors"} & set(training)
    assert words[3][words[3].index("--test") + 1] == "7"
    for argv in (training, words[3]):
        assert argv[argv.index("--gpu-layers") + 1] == "-1"
    printed = capsys.readouterr().out
    assert printed.startswith("all of it takes about ")
    assert printed.rstrip().endswith("use these heads: so it is")
    assert "reward.gguf --chat" in printed
    assert (out / "report.html").read_text() == "the report"
    assert "right answers in %" in (out / "comparison.svg").read_text().replace("&#160;", " ")
    words.clear()
    assert demo(command) == 0
    assert [argv[0] for argv in words] == ["eval"]  # which finds its answers
    assert not capsys.readouterr().out.startswith("all of it takes")
    assert demo([*command, "--seed", "1"]) == 2
    assert "holds a demo of another model or other settings" in capsys.readouterr().err


@pytest.mark.slow
def test_the_demo_goes_the_whole_way(tmp_path, capfd):
    (tmp_path / "rest.yaml").write_text(REST)
    command = ["demo", "-o", str(tmp_path / "out"), "--threads", "1", "--config", str(tmp_path / "rest.yaml"), *LEAST]
    assert cli.main(command) == 0
    first = capfd.readouterr().out
    assert "AutoDeco, for every token" in first
    made = json.loads((tmp_path / "out" / "heads" / "training.json").read_text())
    assert (made["result"]["steps"], made["arguments"]["max_tokens"]) == (12, 8)
    last = first.rstrip().splitlines()[-1]
    assert any(words in last for words in ("use these heads", "not clearly better", "the heads gain nothing here"))
    assert cli.main(command) == 0
    again = capfd.readouterr().out
    table = first[first.index("right answers in %") :]
    assert table in again, "seeded: the same answers again"
