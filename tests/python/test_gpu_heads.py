"""The scripts of benchmarks/gpu that make likelihood heads and compare sets of heads, on a tiny model on the CPU."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")
from autodeco import Heads
from autodeco.rewards.measuring import GREEDY, Static
from builders.gpu_scripts import FOLDER, load
from builders.hf_folders import write_tiny_smollm2

ON_CPU = ["--device", "cpu", "--dtype", "float32", "--slots", "8", "--max-tokens", "6"]


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return load


@pytest.fixture(scope="module")
def tiny(smollm2, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "tiny"
    write_tiny_smollm2(smollm2, folder)
    return folder


@pytest.fixture
def problems(tmp_path):
    path = tmp_path / "problems.jsonl"
    rows = [{"prompt": f"{n} + 1 =", "answer": str(n + 1), "group": "even" if n % 2 == 0 else "odd"} for n in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_way_is_heads_that_may_be_moved_or_a_static_setting(scripts, tmp_path):
    way_of = scripts("compare_heads").way_of
    heads = Heads(8)
    heads.save_pretrained(tmp_path / "heads")
    assert way_of("greedy") == ("greedy", GREEDY)
    assert way_of("warm=0.6,0.95") == ("warm", Static(0.6, 0.95))
    name, moved = way_of(f"moved={tmp_path / 'heads'}:-0.4,1.5")
    assert name == "moved"
    assert moved.digest == heads.moved(-0.4, 1.5).digest != heads.digest
    assert way_of(f"as-they-are={tmp_path / 'heads'}")[1].digest == heads.digest


@pytest.mark.parametrize("text", ["warm=0.6,x", "heads", "=heads", "=0.6,0.95", "warm=", "heads=somewhere:0.1"])
def test_what_is_no_way_is_refused(scripts, problems, tmp_path, capsys, text):
    assert scripts("compare_heads").main(["model", str(tmp_path / "out"), text, "--on", str(problems)]) == 2
    said = capsys.readouterr().err
    assert text in said
    assert "NAME=HEADS:T,P" in said


@pytest.mark.parametrize(
    "ways", [["a=0.5,0.9", "a=0.7,0.9"], ["groups=0.5,0.9"], ["file=0.5,0.9"], ["greedy", "greedy"]]
)
def test_ways_have_names_of_their_own(scripts, problems, tmp_path, capsys, ways):
    assert scripts("compare_heads").main(["model", str(tmp_path / "out"), *ways, "--on", str(problems)]) == 2
    assert f"{ways[-1]}: another way or array has this name" in capsys.readouterr().err


def test_heads_of_another_model_are_refused_before_anything_is_drawn(scripts, tiny, problems, tmp_path, capsys):
    Heads(8).save_pretrained(tmp_path / "heads")
    ways = ["greedy", f"others={tmp_path / 'heads'}"]
    assert scripts("compare_heads").main([str(tiny), str(tmp_path / "out"), *ways, "--on", str(problems), *ON_CPU]) == 2
    assert "others: for hidden states of 8 numbers" in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


def test_each_group_has_its_shares(scripts):
    rewards = np.array([[1, 0], [0, 0], [1, 1]])
    found = scripts("compare_heads").by_group(rewards, ["a", "a", "b"])
    assert found == {"a": (25.0, 50.0), "b": (100.0, 100.0)}


def test_likelihood_heads_are_of_right_answers_and_stand_beside_others(scripts, tiny, problems, tmp_path, monkeypatch):
    likelihood, compare = scripts("likelihood"), scripts("compare_heads")
    full_run = load("full_run")

    def is_right(problem, text):
        return float(problem["group"] == "even")

    def answers(policy, some, n, heads, seed):
        drawn, _ = full_run.answer(policy, some, n, heads, seed)
        return drawn, np.array(
            [[is_right(problem, each.text) for each in group] for problem, group in zip(some, drawn, strict=True)]
        )

    monkeypatch.setattr(likelihood, "answer", answers)
    out = tmp_path / "out"
    few = ["--answers", "2", "--steps", "2", "--batch-tokens", "16"]
    assert likelihood.main([str(tiny), str(problems), str(out), *few, *ON_CPU]) == 0
    records = [json.loads(line) for line in (out / "right.jsonl").read_text().splitlines()]
    assert sorted(record["messages"][0]["content"] for record in records) == [f"{n} + 1 =" for n in (0, 0, 2, 2, 4, 4)]
    assert all(record["messages"][1]["role"] == "assistant" for record in records)

    ways = ["greedy", f"likelihood={out / 'heads'}", "warm=0.9,0.95"]
    called = [str(tiny), str(tmp_path / "compared"), *ways, "--answers", "2", "--on", str(problems), *ON_CPU]
    assert compare.main(called) == 0
    figures = json.loads((tmp_path / "compared.json").read_text())
    assert list(figures) == ["greedy", "likelihood", "warm"]
    assert figures["warm"]["temperature"] == pytest.approx(0.9)
    assert set(figures["likelihood"]["groups"]) == {"even", "odd"}
    rewards = np.load(tmp_path / "compared.npz")
    assert [rewards[name].shape for name in figures] == [(6, 1), (6, 2), (6, 2)]


def test_where_nothing_is_right_nothing_is_trained(scripts, tiny, problems, tmp_path, capsys):
    called = [str(tiny), str(problems), str(tmp_path / "out"), "--answers", "1", *ON_CPU]
    assert scripts("likelihood").main(called) == 2
    assert "none of 6 answers is right" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
