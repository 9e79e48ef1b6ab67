"""An evaluation that compares several sets of heads."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from autodeco import cli
from autodeco.errors import InputError
from autodeco.evaluation import plots
from autodeco.evaluation.drawing import Asked, InProcesses
from autodeco.evaluation.head_sets import ALONE, parse_sets
from autodeco.evaluation.verdict import verdict, verdicts
from builders.commands import refused
from builders.gguf_files import head_arrays
from builders.random_heads import write_random_heads
from builders.word_models import write_llama

SETTINGS = ["--test", 3, "--validation", 2, "--samples", 2, "--ks", 1, 2, "--context", 256, "--max-tokens", 12]
SETTINGS += ["--stop", "o", "--temperatures", 0.5, "--top-ps", 0.9, "--slots", 4, "--threads", 1]
SETTINGS += ["--without", "stock-defaults", "dynatemp", "min-p", "top-n-sigma", "adaptive-p", "greedy-threshold"]
OWN = ["temperature head alone", "top-p head alone", "mean shift", "mean shift in 1/T", "shuffle", "binned shuffle"]
EDT = ["EDT 0.6 theta 0.1", "EDT 0.6 theta 1", "EDT 1 theta 0.1", "EDT 1 theta 1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, two sets of heads, two files of problems."""
    folder = tmp_path_factory.mktemp("sets")
    model = write_llama(folder / "words.gguf")
    for seed, name in enumerate(("cold", "warm"), start=1):
        write_random_heads(folder / f"{name}.gguf", model, seed)
    for name, words in (("one", "Hello once upon a time there"), ("two", "she had a big dog who")):
        rows = [{"prompt": f"{word} {i}", "answer": "x"} for i, word in enumerate(words.split())]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def says_e(problem, text):
    """A checker: named by python:test_evaluation_sets:says_e."""
    return float("e" in text)


def evaluate(folder, output, heads, *settings):
    """Evaluate, and return what the report of these heads says."""
    before = set(output.glob("*/report.json"))
    tasks = [f"{folder / name}.jsonl:python:test_evaluation_sets:says_e" for name in ("one", "two")]
    given = [folder / "words.gguf", "--heads", *heads, "--tasks", *tasks, *SETTINGS, *settings, "-o", output]
    assert cli.main(["eval", *map(str, given)]) == 0
    (report,) = set(output.glob("*/report.json")) - before
    return report


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory):
    """The report of the cold heads alone, in the folder of all answers."""
    return evaluate(folder, tmp_path_factory.mktemp("alone"), [folder / "cold.gguf"])


def rows_of(file):
    return [row for row in map(json.loads, file.read_text().splitlines()) if "seconds" not in row]


def drawn(row):
    """What tells an answer; its values depend on who shares a batch, in their last digits."""
    return row["problem"], row["sample"], row["text"], row["tokens"], row["finish"]


@pytest.fixture
def both(folder, alone, tmp_path, capsys):
    """The report of both sets in a copy of that folder, and what was printed."""
    shutil.copytree(alone.parent.parent, tmp_path / "output")
    capsys.readouterr()
    return evaluate(folder, tmp_path / "output", [folder / "cold.gguf", f"hot={folder / 'warm.gguf'}"]), capsys


def test_each_set_is_a_method_with_what_is_made_of_it_and_answers_are_drawn_once(alone, both):
    report, capsys = both
    single, found = (json.loads(file.read_text()) for file in (alone, report))
    static = ["greedy", "default, T 1 P 1", "T 0.5 P 0.9", *EDT]
    names = [*static, "cold", *(f"cold: {own}" for own in OWN), "hot", *(f"hot: {own}" for own in OWN)]
    assert all(any(m["pass_at"]["1"]["value"] for m in task["methods"].values()) for task in found["tasks"])
    for task, before in zip(found["tasks"], single["tasks"], strict=True):
        assert list(task["methods"]) == names
        assert list(before["methods"]) == [*static, "AutoDeco", *OWN]
        # answers of the cold heads and of all static settings are those of the run before
        for name, method in before["methods"].items():
            title = "cold" if name == "AutoDeco" else f"cold: {name}" if name in OWN else name
            ours = task["methods"][title]
            assert ours.pop("set", None) == (None if name in static else "cold")
            assert ours == method
        for title in ("cold", "hot"):
            of_set = task["heads"][title]
            assert set(of_set) == {"against", "mean", "spread", "positions", "examples", "first", "diagnostics"}
            other = {"cold": "hot", "hot": "cold"}[title]
            own = {rival: d["method"] for rival, d in of_set["against"].items()}
            assert {name: own[name] for name in (*OWN, other)} == {o: f"{title}: {o}" for o in OWN} | {other: other}
            rates = {name: method["pass_at"]["1"]["value"] for name, method in task["methods"].items()}
            for d in of_set["against"].values():
                assert d["difference"] == pytest.approx(rates[title] - rates[d["method"]])
        cold = {rival: d for rival, d in task["heads"]["cold"]["against"].items() if rival != "hot"}
        assert {rival: d["difference"] for rival, d in cold.items()} == {
            rival: d["difference"] for rival, d in before["against"].items()
        }
        assert task["heads"]["cold"]["mean"] == before["mean"] != task["heads"]["hot"]["mean"]
        files = list(report.parent.parent.glob(f"answers/{task['task']}-*/validation.AutoDeco.jsonl"))
        assert len(files) == 2
        means = sorted(np.mean([t for row in rows_of(file) for t in row["temperature"]]) for file in files)
        held = sorted(task["methods"][f"{title}: mean shift"]["temperature"] for title in ("cold", "hot"))
        assert held == pytest.approx(means, abs=1e-4)
        assert held[1] - held[0] > 0.01
    assert single["together"]["against"] == {
        rival: d | {"methods": [m.removeprefix("cold: ") for m in d["methods"]]}
        for rival, d in found["together"]["heads"]["cold"]["against"].items()
        if rival != "hot"
    }
    for file in alone.parent.parent.glob("answers/*/*.jsonl"):
        assert (report.parent.parent / file.relative_to(alone.parent.parent)).read_bytes() == file.read_bytes()
    assert found["verdict"]["cold"] == single["verdict"]
    out = capsys.readouterr().out
    assert "all tasks together: hot" in out
    assert f"\nhot: {found['verdict']['hot']}\n" in out


def test_the_reports_show_every_set(both):
    report, _ = both
    found = json.loads(report.read_text())
    text, page = ((report.parent / name).read_text() for name in ("report.md", "report.html"))
    assert "with cold (cold.gguf), hot (warm.gguf)" in text
    for title in ("cold", "hot"):
        assert f"**{title}: {found['verdict'][title]}**" in text
        assert f"\n| {title} against | which is |" in text
        assert f"<th>{title} against</th>" in page
        assert f"<h3>Diagnostics of {title}</h3>" in page
        assert f"<h3>Answers of {title}, each token" in page
        assert "AutoDeco" not in page
    assert page.count("<svg") == 2 * (3 + 2)
    (task, _) = found["tasks"]
    for plot in (plots.frontier(task), plots.grid(task), plots.accuracy(task)):
        assert ">cold<" in plot
        assert ">hot<" in plot
    assert ">hot: shuffle<" in plots.frontier(task)


def test_processes_draw_the_same(folder, tmp_path):
    heads = [folder / "cold.gguf", f"hot={folder / 'warm.gguf'}"]
    here = evaluate(folder, tmp_path / "here", heads)
    there = evaluate(folder, tmp_path / "there", heads, "--processes", 2)
    files = sorted(file.relative_to(tmp_path / "here") for file in (tmp_path / "here").glob("answers/*/*.jsonl"))
    assert len(files) > 50
    for file in files:
        ours, theirs = (
            sorted(map(drawn, rows_of(output / file))) for output in (tmp_path / "here", tmp_path / "there")
        )
        assert ours == theirs, file
    assert json.loads(here.read_text())["verdict"] == json.loads(there.read_text())["verdict"]


def test_each_process_is_given_a_share_of_all_at_once(folder):
    given = []
    workers = SimpleNamespace(number=2, results=lambda jobs: given.append(list(jobs)) or (one for one in ()))
    source = InProcesses(folder / "words.gguf", {"a": folder / "cold.gguf", "b": folder / "warm.gguf"}, 256, workers)
    assert source.heads["a"] is not source.heads["b"]
    wanted = [SimpleNamespace(index=i) for i in (0, 0, 1)]
    asked = Asked(wanted, False, {2})
    assert not list(source.draw([Asked(wanted[2:], True, {2}), asked]))
    source.llm.close()
    (jobs,) = given
    assert jobs == [
        (Asked(wanted[2:], True, {2}),),
        (Asked(wanted[:2], False, {2}),),
        (Asked(wanted[2:], False, {2}),),
    ]


def test_the_verdict_of_several_sets_is_one_of_each():
    def of_one(gain, low, high):
        rival = {"difference": gain, "low": low, "high": high, "p": 0.01, "method": "greedy"}
        return {"against": {"best on test (oracle)": rival}}

    methods = {name: {"pass_at": {"1": {"value": value}}} for name, value in (("a", 0.4), ("b", 0.3))}
    task = {"methods": methods, "heads": {"a": of_one(0.1, 0.05, 0.15), "b": of_one(-0.1, -0.2, 0.0)}}
    found = verdict({"together": None, "tasks": [task]})
    assert found["a"].startswith("use these heads: 40.0% right, +10.0 points over greedy")
    assert found["b"].startswith("use greedy: the heads gain nothing here, 30.0% right, -10.0 points")
    assert verdicts({"verdict": found}) == [f"a: {found['a']}", f"b: {found['b']}"]
    assert verdicts({"verdict": "use these heads"}) == ["use these heads"]
    assert verdicts({"verdict": None}) == []


def test_sets_are_named_by_their_files_or_as_they_are_given(tmp_path):
    files = [tmp_path / name for name in ("a.gguf", "b=c.gguf", "d.gguf")]
    for i, file in enumerate(files):
        file.write_bytes(bytes([i]))
    assert parse_sets([]) == {}
    assert parse_sets([str(files[0])]) == parse_sets([f"mine={files[0]}"]) == {ALONE: files[0]}
    assert parse_sets([str(files[0]), f"b={files[1]}", f"d.2={files[2]}"]) == dict(
        zip(("a", "b", "d.2"), files, strict=True)
    )


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        (["cold.gguf", "cold.gguf"], "cold.gguf: heads of the name cold are there twice; give it another name, as in"),
        (["x=cold.gguf", "x=warm.gguf"], "warm.gguf: heads of the name x are there twice"),
        (["x=cold.gguf", "y=cold.gguf"], "cold.gguf: y and x are the same heads; give each set once"),
        (["Greedy=cold.gguf", "warm.gguf"], "cold.gguf: Greedy is the name of another method"),
        (["a b=cold.gguf", "warm.gguf"], "cold.gguf: use letters, digits, '.', '+', '-' and '_' in the name 'a b'"),
        (["=cold.gguf", "warm.gguf"], "cold.gguf: use letters, digits, '.', '+', '-' and '_' in the name ''"),
        (["cold.gguf", "none.gguf"], "none.gguf: cannot be read (No such file"),
        (["cold.gguf", "words.gguf"], "words.gguf: "),
        (["cold.gguf", "wide.gguf"], "wide.gguf: "),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(folder, tmp_path, monkeypatch, heads, message):
    monkeypatch.chdir(folder)
    if not (folder / "wide.gguf").exists():
        other = write_llama(tmp_path / "other.gguf")
        write_random_heads(folder / "wide.gguf", other, 3)
        wide(folder / "wide.gguf")
    output = tmp_path / "output"
    given = ["words.gguf", "--heads", *heads, "--tasks", "one.jsonl", *SETTINGS, "-o", output]
    assert message in refused("eval", *given)
    assert not output.exists()


def wide(file):
    """Write heads for states of another width into ``file``."""
    from autodeco.export import cli as export
    from builders import gguf_files as files

    folder = file.parent / "wide"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(files.safetensors(head_arrays()))
    (folder / "base.gguf").write_bytes(files.model())
    assert export.main([str(folder), "--base", str(folder / "base.gguf"), "-o", str(file)]) == 0


def test_the_model_may_come_after_the_heads(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    asked = ["--tasks", "one.jsonl", "--test", 99, "-o", tmp_path / "output"]
    assert "has 6 different questions" in refused("eval", "--heads", "cold.gguf", "words.gguf", *asked)
    assert "has 6 different questions" in refused("eval", "--heads", "cold.gguf", "warm.gguf", "words.gguf", *asked)
    assert "none.gguf: no such file; give the path of a GGUF model" in refused(
        "eval", "--heads", "cold.gguf", "none.gguf", *asked
    )
    assert "model: is missing" in refused("eval", "--heads", "cold.gguf", *asked)
    (tmp_path / "settings.yaml").write_text("heads: 7\n")
    assert "model: is missing" in refused("eval", "--config", tmp_path / "settings.yaml", *asked)


def test_servers_draw_with_one_set(folder, tmp_path):
    given = [folder / "words.gguf", "--heads", folder / "cold.gguf", folder / "warm.gguf", "--tasks"]
    given += [folder / "one.jsonl", *SETTINGS, "--server", "http://127.0.0.1:1", "-o", tmp_path / "output"]
    assert "give one set with --heads" in refused("eval", *given)


@pytest.mark.parametrize("written", ["cold.gguf", "[cold.gguf]", "[cold.gguf, hot=warm.gguf]", "7"])
def test_a_file_of_settings_has_one_set_or_a_list(folder, tmp_path, monkeypatch, written, capsys):
    monkeypatch.chdir(folder)
    (tmp_path / "settings.yaml").write_text(f"heads: {written}\n")
    given = ["words.gguf", "--tasks", "one.jsonl", "--config", tmp_path / "settings.yaml", *SETTINGS]
    given += ["--without", "rivals", "diagnostics", "default", "temperature-head", "top-p-head", "-o", tmp_path / "out"]
    if written == "7":
        assert "heads 7: must be a list, each text" in refused("eval", *given)
        return
    assert cli.main(["eval", *map(str, given)]) == 0
    (report,) = (tmp_path / "out").glob("*/report.json")
    heads = json.loads(report.read_text())["settings"]["heads"]
    assert heads == ({"cold": "cold.gguf", "hot": "warm.gguf"} if "warm" in written else "cold.gguf")


def test_a_name_that_is_no_text_is_no_set():
    with pytest.raises(InputError, match="the name 'a/b'"):
        parse_sets(["a/b=x.gguf", "y.gguf"])
