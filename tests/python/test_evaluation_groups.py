"""Groups of problems in an evaluation, and fewer answers of what is made of heads."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from autodeco import cli
from autodeco.errors import InputError
from autodeco.evaluation.answer_logs import MethodLog, Pass
from autodeco.evaluation.groups import ONE_FOR_GROUP, group_figures, groups_of
from autodeco.evaluation.methods import AUTODECO, GREEDY, mean_shift, static
from autodeco.evaluation.running import TaskPasses
from autodeco.evaluation.settings import Settings
from autodeco.evaluation.tasks import TaskSpec, parse_specs
from builders.random_heads import write_random_heads
from builders.word_models import write_llama

COLD, WARM = static(0.2, 0.9), static(0.8, 0.9)
HELD = mean_shift(0.4, 0.9)


def answered(method, right, samples, seconds=2.0):
    """Of each problem, the first ``right`` answers are right; each is of three tokens."""
    rows = [
        {"problem": i, "sample": s, "right": s < count, "tokens": 3, "finish": "stop" if s else "length"}
        for i, count in enumerate(right)
        for s in range(samples)
    ]
    picked = {"temperature": [0.1, 0.2, 0.6], "top_p": [0.9, 0.8, 1.0]}
    return Pass(method, [row | (picked if method is AUTODECO else {}) for row in rows], seconds)


def passes_of(spec, problems, **right):
    """The passes over a task, by how many answers of each method to each problem are right."""
    ways = {"greedy": (GREEDY, 1), "cold": (COLD, 4), "warm": (WARM, 4), "heads": (AUTODECO, 4), "held": (HELD, 2)}
    test = {ways[name][0].title: answered(ways[name][0], counts, ways[name][1]) for name, counts in right.items()}
    static = {m.title: None for m in (GREEDY, COLD, WARM)}
    task = SimpleNamespace(spec=spec, test=problems)
    return TaskPasses(task, {title: test[title] for title in static}, test)


SETTINGS = Settings((TaskSpec("one", "chain_sum"),), test=2, samples=4, ks=(1, 4), derived_samples=2)


@pytest.fixture
def passes():
    """Two tasks of two problems: both of the first and one of the second are trained, the other is unseen."""
    first = TaskSpec("one", "chain_sum", group="trained")
    second = TaskSpec("two", "chain_sum")
    trained, unseen = {"group": "trained", "family": "sums"}, {"group": "unseen", "family": "primes"}
    return [
        passes_of(first, [{}, {}], greedy=[1, 0], cold=[4, 0], warm=[2, 2], heads=[3, 1], held=[2, 0]),
        passes_of(second, [trained, unseen], greedy=[0, 1], cold=[0, 4], warm=[0, 1], heads=[2, 1], held=[1, 1]),
    ]


TASKS = [{"best on validation": "T 0.2 P 0.9"}, {"best on validation": "greedy"}]


def values(of, key="value"):
    return {k: at[key] for k, at in of.items()}


def test_groups_are_those_of_the_list_or_of_the_problems_themselves(passes):
    assert groups_of(passes) == {
        "trained": {"one": {0: [0, 1]}, "sums": {1: [0]}},
        "unseen": {"primes": {1: [1]}},
    }
    alone = [passes_of(TaskSpec("one", "chain_sum"), [{}, {"family": "a"}], greedy=[1, 1], cold=[1, 1], warm=[1, 1])]
    assert group_figures(alone, TASKS, SETTINGS) == {}


def test_the_figures_of_a_group_are_over_its_problems_in_all_tasks(passes):
    found = group_figures(passes, TASKS, SETTINGS)["groups"]
    trained, unseen = found["trained"], found["unseen"]
    assert (trained["problems"], unseen["problems"]) == (3, 1)
    rates = {name: values(at) for name, at in trained["methods"].items()}
    assert rates == {
        "greedy": {"1": pytest.approx(1 / 3)},
        "T 0.2 P 0.9": {"1": pytest.approx(1 / 3), "4": pytest.approx(1 / 3)},
        "T 0.8 P 0.9": {"1": pytest.approx(1 / 3), "4": pytest.approx(2 / 3)},
        "AutoDeco": {"1": pytest.approx(0.5), "4": 1.0},
        "mean shift": {"1": pytest.approx(0.5)},  # of two answers there is no pass@4
    }
    at = trained["methods"]["AutoDeco"]["1"]
    assert (at["low"], at["high"]) == pytest.approx((0.25, 0.75))
    assert list(trained["families"]) == ["one", "sums"]
    assert trained["families"]["one"] == {
        "problems": 2,
        "methods": {
            "greedy": {"1": 0.5},
            "T 0.2 P 0.9": {"1": 0.5, "4": 0.5},
            "T 0.8 P 0.9": {"1": 0.5, "4": 1.0},
            "AutoDeco": {"1": 0.5, "4": 1.0},
            "mean shift": {"1": 0.5},
        },
    }
    assert unseen["methods"]["AutoDeco"]["1"] == {"value": 0.25, "low": 0.25, "high": 0.25}


def test_heads_are_compared_on_the_same_problems_at_each_k(passes):
    trained, unseen = (
        group_figures(passes, TASKS, SETTINGS)["groups"][name]["against"]["AutoDeco"] for name in ("trained", "unseen")
    )
    assert set(trained) == {"best on validation", "greedy", COLD.name, WARM.name, "mean shift", ONE_FOR_GROUP}
    assert values(trained["greedy"], "difference") == {"1": pytest.approx(0.5 - 1 / 3), "4": pytest.approx(2 / 3)}
    assert values(trained["mean shift"], "difference") == {"1": pytest.approx(0)}
    # by problem 3/4 - 1, 1/4 - 0 and 2/4 - 0: what resampling three of them can give
    at = trained[COLD.name]["1"]
    assert (at["difference"], at["low"], at["high"]) == pytest.approx((1 / 6, -0.25, 0.5))
    # the cold setting in the first task, greedy decoding in the second
    assert values(trained["best on validation"], "difference") == {"1": pytest.approx(1 / 6), "4": pytest.approx(2 / 3)}
    assert values(trained[ONE_FOR_GROUP], "method") == {"1": "greedy", "4": WARM.name}
    assert trained[ONE_FOR_GROUP]["4"]["difference"] == pytest.approx(1 / 3)
    assert values(unseen[ONE_FOR_GROUP], "method") == {"1": "greedy", "4": "greedy"}
    assert unseen[ONE_FOR_GROUP]["1"]["difference"] == -0.75


def test_costs_are_of_all_test_answers(passes):
    costs = group_figures(passes, TASKS, SETTINGS)["costs"]
    assert costs["greedy"] == {"answers": 4, "finished": 0.0, "tokens": 12, "seconds": 4.0, "tokens_per_second": 3.0}
    heads = costs["AutoDeco"]
    assert (heads["answers"], heads["finished"], heads["tokens"], heads["tokens_per_second"]) == (16, 0.75, 48, 12.0)
    assert (heads["temperature"], heads["top_p"]) == pytest.approx((0.3, 0.9))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, heads, and a list of a file whose problems have groups and one that has a group."""
    folder = tmp_path_factory.mktemp("groups")
    model = write_llama(folder / "words.gguf")
    write_random_heads(folder / "heads.gguf", model)
    for name, words in (("mixed", "Hello once upon a time there"), ("whole", "she had a big dog who")):
        rows = [{"prompt": f"{word} {i}", "answer": "x"} for i, word in enumerate(words.split())]
        if name == "mixed":
            rows = [row | {"group": ("seen", "un|seen")[i % 2], "family": "fg"[i % 2]} for i, row in enumerate(rows)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    checker = "'python:test_evaluation_groups:says_e'"
    (folder / "list.yaml").write_text(
        f"- {{name: mixed, source: mixed.jsonl, checker: {checker}}}\n"
        f"- {{name: whole, source: whole.jsonl, checker: {checker}, group: seen}}\n"
    )
    return folder


def says_e(problem, text):
    """A checker: named by python:test_evaluation_groups:says_e."""
    return float("e" in text)


def evaluate(folder, output, *settings):
    before = set(output.glob("*/report.json"))
    given = [folder / "words.gguf", "--heads", folder / "heads.gguf", "--tasks", folder / "list.yaml"]
    given += ["--test", 4, "--validation", 2, "--samples", 4, "--ks", 1, 2, 4, "--context", 256, "--max-tokens", 12]
    given += ["--stop", "o", "--temperatures", 0.5, "--top-ps", 0.9, "--slots", 4, "--threads", 1, "--without"]
    given += ["stock-defaults", "dynatemp", "min-p", "top-n-sigma", "adaptive-p", "greedy-threshold", "edt"]
    assert cli.main(["eval", *map(str, [*given, "diagnostics", *settings, "-o", output])]) == 0
    (report,) = set(output.glob("*/report.json")) - before
    return report


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    return evaluate(folder, tmp_path_factory.mktemp("whole"))


DERIVED = ("mean shift", "mean shift in 1/T", "shuffle", "binned shuffle")


def test_the_reports_have_groups(folder, whole, tmp_path, capsys):
    evaluate(folder, tmp_path)
    found = json.loads(whole.read_text())
    seen, unseen = found["groups"]["seen"], found["groups"]["un|seen"]
    rows = {task["task"]: task for task in found["tasks"]}
    assert seen["problems"] + unseen["problems"] == 8
    assert set(seen["families"]) == {"f", "whole"}
    right = rows["whole"]["methods"]["AutoDeco"]["right"]
    assert seen["families"]["whole"]["methods"]["AutoDeco"]["1"] == pytest.approx(np.mean(right) / 4)
    mixed, n = rows["mixed"]["methods"]["AutoDeco"]["right"], unseen["problems"]
    rates = [of_group["methods"]["AutoDeco"]["1"]["value"] for of_group in (seen, unseen)]
    together = (seen["problems"] * rates[0], n * rates[1])
    assert sum(together) == pytest.approx(sum(right + mixed) / 4)
    assert sum(together) > 0
    assert found["costs"]["AutoDeco"]["tokens"] == sum(task["methods"]["AutoDeco"]["tokens"] for task in rows.values())
    text, page = ((whole.parent / name).read_text() for name in ("report.md", "report.html"))
    out = capsys.readouterr().out
    assert f"\n## un\\|seen, {n} problems\n" in text
    assert f"<h2>un|seen, {n} problems</h2>" in page
    assert f"\nun|seen, {n} problems, in %" in out
    assert f"| method | f, {seen['problems'] - 4} | whole, 4 |\n" in text
    gain = seen["against"]["AutoDeco"]["greedy"]["1"]
    cell = f"{100 * gain['difference']:+.1f} ({100 * gain['low']:+.1f} to {100 * gain['high']:+.1f})"
    assert f"| greedy | {cell} |" in text
    assert "<td>greedy</td><td class=" in page
    assert f">{cell}</td>" in page
    costs = found["costs"]["shuffle"]
    assert f"| shuffle | 32 | {100 * costs['finished']:.1f} | {costs['tokens']} |" in text


def test_what_is_made_of_heads_can_have_fewer_answers_of_the_same(folder, whole, tmp_path):
    """They are the first of those that a run with all of them draws, and such a run draws the others later."""
    shutil.copytree(whole.parent.parent, tmp_path / "later")
    before = {file: file.read_bytes() for file in (tmp_path / "later").glob("answers/*/*.jsonl")}
    later = evaluate(folder, tmp_path / "later", "--derived-samples", 2)
    assert {file: file.read_bytes() for file in (tmp_path / "later").glob("answers/*/*.jsonl")} == before
    first = evaluate(folder, tmp_path / "first", "--derived-samples", 2)
    some, few, all_of_them = (json.loads(file.read_text()) for file in (later, first, whole))
    for ours, again, theirs in zip(some["tasks"], few["tasks"], all_of_them["tasks"], strict=True):
        for name, method in ours["methods"].items():
            fewer = name in DERIVED
            assert method["answers"] == again["methods"][name]["answers"]
            assert method["answers"] == theirs["methods"][name]["answers"] / (2 if fewer else 1)
            if name != "greedy":
                assert list(method["pass_at"]) == (["1", "2"] if fewer else ["1", "2", "4"])
                assert list(method["maj_at"]) == (["2"] if fewer else ["2", "4"])
                assert list(ours["against"].get(name, method)["pass_at"]) == list(method["pass_at"])
            if not fewer:
                assert method == theirs["methods"][name]
            assert method["right"] == again["methods"][name]["right"]
        assert ours["methods"]["shuffle"]["seconds"] < theirs["methods"]["shuffle"]["seconds"]
    assert "4" not in some["groups"]["seen"]["methods"]["shuffle"]
    assert "derived_samples" not in all_of_them["settings"]
    assert some["settings"]["derived_samples"] == 2
    kept = [len(file.read_text().splitlines()) for file in (tmp_path / "first").glob("answers/*/test.shuffle.jsonl")]
    assert kept == [4 * 2 + 1] * 2  # and the seconds
    evaluate(folder, tmp_path / "first")
    kept = [len(file.read_text().splitlines()) for file in (tmp_path / "first").glob("answers/*/test.shuffle.jsonl")]
    assert kept == [4 * 4 + 2] * 2


def test_more_answers_of_what_is_made_of_heads_than_of_others_are_refused():
    with pytest.raises(InputError, match="derived-samples 5: must be at most the 4 samples of others"):
        Settings((TaskSpec("one", "chain_sum"),), samples=4, derived_samples=5)
    assert Settings((TaskSpec("one", "chain_sum"),), samples=4).derived == 4


def test_seconds_of_answers_that_do_not_count_are_left_out(tmp_path):
    with MethodLog(GREEDY, tmp_path / "answers.jsonl", samples=3) as log:
        for sample, tokens in enumerate((10, 20, 30)):
            log.add({"problem": 0, "sample": sample, "right": True, "tokens": tokens})
        log.add_seconds(6.0)
    found = MethodLog(GREEDY, tmp_path / "answers.jsonl", samples=2).result()
    assert [row["sample"] for row in found.rows] == [0, 1]
    assert found.seconds == 3.0


def test_a_list_names_the_group_of_a_task(folder, tmp_path):
    assert [spec.group for spec in parse_specs([str(folder / "list.yaml")])] == ["", "seen"]
    (tmp_path / "list.yaml").write_text("- {name: a, source: chain_sum, group: 5}")
    with pytest.raises(InputError, match="its group 5 must be text"):
        parse_specs([str(tmp_path / "list.yaml")])
