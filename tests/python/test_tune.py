"""`autodeco tune`: which commands it runs, how it divides time and problems, and what it says at the end."""

import html
import json
import re
from dataclasses import replace

import pytest
from reasoning_gym import factory
from reasoning_gym.factory import DATASETS

from autodeco import cli
from autodeco.errors import InputError
from autodeco.evaluation.tasks import TaskSpec, parse_specs, read_questions
from autodeco.evaluation.verdict import verdict
from autodeco.settings.durations import parse_duration
from autodeco.settings.machine import Processors
from autodeco.tuning import mixture
from autodeco.tuning.anchors import write_anchors
from autodeco.tuning.sizes import MOST, Split, checker_of, divided, split_of, test_size
from builders.recorded_commands import record_commands
from builders.word_models import write_llama

SUMS = TaskSpec("sums", "chain_sum", {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2})
test_size.__test__ = False


def difference(gain, low, high, **more):
    return {"difference": gain, "low": low, "high": high, "p": 0.01, **more}


def of_one(gain, low, high):
    return {
        "together": None,
        "tasks": [
            {
                "methods": {"AutoDeco": {"pass_at": {"1": {"value": 0.4}}}},
                "against": {"best on test (oracle)": difference(gain, low, high, method="T 0.3 P 0.95")},
            }
        ],
    }


@pytest.mark.parametrize(
    ("figures", "begins"),
    [
        (
            (0.021, 0.01, 0.03),
            "use these heads: 40.0% right, +2.1 points over T 0.3 P 0.95, the best static setting here",
        ),
        ((0.01, -0.01, 0.03), "these heads are not clearly better: 40.0% right, +1.0 points over T 0.3 P 0.95"),
        ((-0.01, -0.03, 0.01), "use T 0.3 P 0.95: the heads gain nothing here, 40.0% right, -1.0 points"),
    ],
)
def test_the_verdict_names_what_to_use(figures, begins):
    assert verdict(of_one(*figures)).startswith(begins)


def test_the_verdict_on_several_tasks_is_against_one_setting_for_all():
    whole = {
        "pass_at_1": {"value": 0.25},
        "against": {
            "best on test (oracle)": difference(-0.1, -0.2, 0.0, methods=["a", "b"]),
            "best for all tasks on test (oracle)": difference(0.05, 0.02, 0.08, methods=["greedy", "greedy"]),
        },
    }
    found = verdict({"together": whole, "tasks": [{}, {}]})
    assert found == "use these heads: 25.0% right, +5.0 points over greedy, the best static setting here (+2.0 to +8.0)"
    assert verdict({"together": None, "tasks": [{"methods": {}}]}) is None


def test_time_is_divided_and_a_warm_start_wants_enough_of_it():
    short, long = divided(600.0), divided(3600.0)
    assert short.warm == 0
    assert long.warm > 0
    for times, seconds in ((short, 600), (long, 3600)):
        assert times.warm + times.learning + times.judging == pytest.approx(seconds)


def test_the_split_is_the_largest_that_every_task_has_questions_for(tmp_path):
    assert split_of([SUMS], 0) == Split(*MOST)
    path = tmp_path / "few.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{i} + 1?", "answer": str(i + 1)}) + "\n" for i in range(130)))
    few = split_of([SUMS, TaskSpec("few", str(path))], 0)
    assert (few.test, few.validation, few.training) == (40, 8, 82)
    path.write_text("".join(json.dumps({"prompt": f"{i} + 1?", "answer": str(i + 1)}) + "\n" for i in range(20)))
    with pytest.raises(InputError, match="task few: has 20 different questions; tuning wants 48 or more"):
        split_of([SUMS, TaskSpec("few", str(path))], 0)


def test_tasks_of_several_checkers_are_refused():
    assert checker_of([SUMS, replace(SUMS, name="more")]) == "reasoning-gym"
    assert checker_of([TaskSpec("file", "a.jsonl", checker="number")]) == "number"
    with pytest.raises(InputError, match="several checkers, number, reasoning-gym"):
        checker_of([SUMS, TaskSpec("file", "a.jsonl", checker="number")])


def test_as_many_problems_are_judged_as_the_time_allows(tmp_path):
    made = {
        "arguments": {"samples": 16, "batch_problems": 10},
        "updates": [{"tokens": 16000}, {"tokens": 16000}],  # 100 for an answer
        "result": {"tokens_per_second": 1000.0},
    }
    (tmp_path / "training.json").write_text(json.dumps(made))
    # a test problem has 81 answers, and a fifth of a validation problem 73 / 5: 9.56 seconds for each task
    assert test_size(tmp_path, Split(300, 60, 600), 2, 8, 1000.0) == 52
    assert test_size(tmp_path, Split(40, 8, 600), 2, 8, 1000.0) == 40
    assert test_size(tmp_path, Split(300, 60, 600), 2, 8, 1.0) == 10


def test_anchors_are_prompts_of_other_families(tmp_path):
    assert write_anchors(["chain_sum", "letter_counting"], 0, 160, tmp_path / "anchors.jsonl") == 160
    rows = [json.loads(line)["prompt"][0]["content"] for line in (tmp_path / "anchors.jsonl").read_text().splitlines()]
    assert len(set(rows)) == 160
    assert max(map(len, rows)) <= 600
    assert not any("appear in the text" in row or ("arithmetic problem:" in row and "." not in row) for row in rows)


def test_families_that_suit_the_model_are_chosen(smollm2, tmp_path, monkeypatch):
    """By how many of their problems are right: here all, none and a half of three families."""
    rights = {"sums": 6, "letters": 0, "bits": 3}
    specs = [TaskSpec(name, "chain_sum", {"min_terms": 2, "max_terms": 2}) for name in rights]
    monkeypatch.setattr(mixture, "parse_specs", lambda texts: specs)
    monkeypatch.setattr(mixture.batch, "generate", lambda llm, prompts, *args, **kwargs: list(map(Answered, range(6))))
    monkeypatch.setattr(
        mixture.Task, "is_right", lambda task, problem, text, finished: int(text) < rights[task.spec.name]
    )
    lines = mixture.write_mixture(smollm2, 24, 0, Processors(1), tmp_path / "tasks.yaml")
    assert lines == ["sums: 6 of 6", "letters: 0 of 6", "bits: 3 of 6, chosen"]
    assert [spec.name for spec in parse_specs([str(tmp_path / "tasks.yaml")])] == ["bits"]
    rights["bits"] = 0
    with pytest.raises(InputError, match="answers all or none"):
        mixture.write_mixture(smollm2, 24, 0, Processors(1), tmp_path / "tasks.yaml")


class Answered:
    finished = True

    def __init__(self, index):
        self.prompt, self.text = index, str(index)


@pytest.fixture
def ran(monkeypatch):
    # anchors are drawn from some families: all of them take seconds, and have a test of their own
    few = {name: DATASETS[name] for name in ("chain_sum", "letter_counting", "spell_backward", "gcd", "lcm")}
    monkeypatch.setattr(factory, "DATASETS", few)
    return record_commands(monkeypatch, {"verdict": "use these heads: so it is"})


@pytest.mark.parametrize("chats", [True, False])
def test_a_model_that_has_no_chat_template_is_given_texts(smollm2, tmp_path, capsys, ran, chats):
    tune, _ = ran
    lines = [json.dumps({"prompt": f"{number} + 1 =", "answer": str(number + 1)}) + "\n" for number in range(60)]
    (tmp_path / "sums.jsonl").write_text("".join(lines))
    model = smollm2 if chats else write_llama(tmp_path / "plain.gguf")
    command = ["tune", str(model), "--tasks", f"{tmp_path / 'sums.jsonl'}:number", "-o", str(tmp_path / "out")]
    assert tune([*command, "--max-tokens", "8"]) == 0
    anchors = [json.loads(line)["prompt"] for line in (tmp_path / "out" / "anchors.jsonl").read_text().splitlines()]
    assert {type(prompt) for prompt in anchors} == {list if chats else str}
    assert len(anchors) > 10
    assert (f"--heads {tmp_path / 'out' / 'heads.gguf'} --chat 'Hello!'" in capsys.readouterr().out) is chats


def test_the_commands_are_those_that_one_would_type(smollm2, tmp_path, capsys, ran):
    tune, words = ran
    command = ["tune", str(smollm2), "--tasks", "chain_sum", "-o", str(tmp_path / "out"), "--time", "1h"]
    assert tune([*command, "--target", "pass@8", "--max-tokens", "30"]) == 0
    assert [argv[0] for argv in words[:3]] == ["eval", "reward", "reward"]
    warm, main = ({flag: argv[i + 1] for i, flag in enumerate(argv[:-1])} for argv in words[1:3])
    assert (warm["--target"], main["--target"]) == ("pass@1+pass@8", "pass@8")
    assert main["--init"] == warm["-o"]
    assert main["--time"] == "1404s"
    assert ["--no-verdict" in argv for argv in words[1:3]] == [True, False]
    assert words[4][words[4].index("--slots") + 1] == "128"
    assert words[4][0] == "eval"
    judged = words[4]
    assert judged[judged.index("--ks") + 1 : judged.index("--temperatures")] == ["1", "8"]
    assert judged[judged.index("--trained-on") + 1] == warm["--problems"]
    printed = capsys.readouterr().out
    assert "$ autodeco reward" in printed
    assert printed.rstrip().endswith("use these heads: so it is")
    assert (tmp_path / "out" / "report.html").read_text() == "the report"
    # a finished stage is not run again
    words.clear()
    assert tune([*command, "--target", "pass@8", "--max-tokens", "30"]) == 0
    assert [argv[0] for argv in words] == ["eval"]
    assert tune([*command, "--target", "pass@1"]) == 2
    assert "holds a tuning of another model or other settings" in capsys.readouterr().err


def test_heads_that_are_to_follow_commands_learn_it_last_and_are_those_judged(smollm2, tmp_path, capsys, ran):
    tune, words = ran
    out = tmp_path / "out"
    command = ["tune", str(smollm2), "--tasks", "chain_sum", "-o", str(out), "--time", "10m", "--control"]
    command += ["--threads", "1", "--gpu-layers", "-1"]
    assert tune(command) == 0
    for argv in (words[1], words[2], words[4]):
        assert argv[argv.index("--threads") + 1] == "1"
        assert argv[argv.index("--gpu-layers") + 1] == "-1"
    assert [argv[0] for argv in words] == ["eval", "reward", "control", str(out / "control"), "eval"]
    assert words[2][words[2].index("--init") + 1] == str(out / "heads")
    assert f"{out / 'control' / 'report.html'}   whether commands are followed" in capsys.readouterr().out
    words.clear()
    assert tune(command) == 0
    assert [argv[0] for argv in words] == ["eval"]
    # one that was interrupted goes on
    (out / "control" / "unfinished").mkdir()
    words.clear()
    assert tune(command) == 0
    assert "control" in [argv[0] for argv in words]


def test_a_stage_that_fails_ends_it_and_an_unfinished_one_goes_on(smollm2, tmp_path, ran, monkeypatch):
    tune, words = ran
    good = cli.main
    command = ["tune", str(smollm2), "--tasks", "chain_sum", "-o", str(tmp_path / "out"), "--time", "10m"]
    monkeypatch.setattr(cli, "main", lambda argv: 130 if argv[0] == "reward" else good(argv))
    assert tune(command) == 130
    assert [argv[0] for argv in words] == ["eval"]
    (tmp_path / "out" / "heads").mkdir()
    (tmp_path / "out" / "heads" / "resume.safetensors").touch()
    monkeypatch.setattr(cli, "main", good)
    words.clear()
    assert tune(command) == 0
    assert words[0][0] == "reward"
    assert words[0][-1] == "--resume"
    assert "--init" not in words[0]
    assert "--no-verdict" in words[0]


@pytest.mark.slow
def test_a_model_is_tuned(smollm2, tmp_path, capfd):
    """The real thing, in about twice the least time that this machine needs for it."""
    tasks = "chain_sum:min_terms=2,max_terms=2,min_digits=1,max_digits=1"
    command = ["tune", str(smollm2), "--tasks", tasks, "--max-tokens", "12", "--threads", "2"]
    seconds = 15
    for attempt in range(4):  # a machine with other work may be slower when it is asked again
        out = tmp_path / f"out {attempt}"
        code = cli.main([*command, "-o", str(out), "--time", f"{2 * seconds:.0f}s"])
        if code == 0:
            break
        least = re.search(r"is too short; the smallest run takes ([\w ]+) here", capfd.readouterr().err)
        seconds = parse_duration("least", least[1].replace("min", "m"))
    assert code == 0
    assert attempt > 0
    last = capfd.readouterr().out.rstrip().splitlines()[-1]
    assert any(words in last for words in ("use these heads", "not clearly better", "the heads gain nothing here"))
    assert (out / "heads.gguf").exists()
    assert last in html.unescape((out / "report.html").read_text())
    assert len(read_questions([out / "problems.jsonl"])) > 20
