"""What benchmarks/gpu/judge.py writes of answers that were drawn before."""

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from builders.gpu_scripts import FOLDER, load


@pytest.fixture
def judge(monkeypatch):
    """The script; its processes are asked for nothing."""
    monkeypatch.syspath_prepend(FOLDER)
    module = load("judge")

    def no_jobs(jobs):
        assert jobs == []
        return iter(())

    monkeypatch.setattr(module, "Workers", lambda *_: workers(no_jobs))
    return module


def workers(results):
    return contextlib.nullcontext(SimpleNamespace(results=results))


def test_what_was_drawn_before_is_judged_and_no_folder_is_told(judge, tmp_path, monkeypatch, capsys):
    for group, family in (("test", "sums"), ("unseen", "primes")):
        rows = [
            {"prompt": [{"role": "user", "content": f"{group} {i}"}], "answer": "1", "family": family} for i in (1, 2)
        ]
        (tmp_path / f"{group}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    out.mkdir()
    np.savez(
        out / "rewards.npz",
        **{
            "warm": np.array([[1, 0], [0, 0], [1, 1], [0, 1]], np.float32),
            "cost warm": np.array([10.0, 1000, 7]),
            "pairs warm": np.array([[0.2, 0.9], [0.4, 0.7]]),
            "greedy": np.array([[1], [1], [0], [0]], np.float32),
            "cost greedy": np.array([2.5, 100, 4]),
        },
    )
    files = [str(tmp_path / name) for name in ("test.jsonl", "unseen.jsonl")]
    options = ["--heads", f"warm={tmp_path / 'warm.gguf'}", "--settings", "0", "--derived", "--answers", "2"]
    monkeypatch.setattr("sys.argv", ["judge.py", str(tmp_path / "model.gguf"), *files, "-o", str(out), *options])
    judge.main()
    text = (out / "judged.json").read_text()
    assert str(tmp_path) not in text
    found = json.loads(text)
    assert found["seconds"] == 12.5
    assert found["settings"]["model"] == "model.gguf"
    assert found["settings"]["problems"] == "test.jsonl unseen.jsonl"
    assert found["settings"]["heads"] == "warm=warm.gguf"
    warm, greedy = found["figures"]["warm"], found["figures"]["greedy"]
    assert warm["test"] == {"pass@1": 25, "pass@2": 50, "families": {"sums": {"pass@1": 25, "pass@2": 50}}}
    assert (warm["unseen"]["pass@1"], greedy["test"]["pass@1"], greedy["unseen"]["pass@1"]) == (75, 100, 0)
    assert (warm["tokens_per_second"], warm["finished"], warm["temperature"]) == (100, 0.875, pytest.approx(0.3))
    assert found["differences"]["warm"]["greedy"]["unseen"]["pass@1"][0] == 75


def test_a_setting_keeps_its_stroke(judge):
    given = SimpleNamespace(settings=["0", "0.2/0.95"], each=None, output=Path("/some/where/out"))
    assert judge.settings(given) == {"settings": "0 0.2/0.95", "each": "None", "output": "out"}


def test_ways_without_heads_are_drawn_with_the_first_heads(judge, tmp_path):
    way = judge.Way
    sampling = judge.Sampling()
    one, two = (way(name, sampling, tmp_path / name) for name in ("one", "two"))
    statics = [judge.static(text) for text in ("0", "0.2/0.95")]
    assert judge.together([one, two, *statics]) == [[one, *statics], [two]]
    assert judge.together(statics) == [statics]
    assert judge.together([]) == []


def test_answers_are_the_same_drawn_together_and_alone(judge, smollm2, exported):
    arguments = SimpleNamespace(model=smollm2, gpu_layers=0, threads=1, answers=3, max_tokens=6, slots=12)
    worker = judge.Worker(arguments)
    problems = [{"prompt": f"{i} and {i} is", "answer": str(2 * i)} for i in range(4)]
    ways = [judge.Way("heads", judge.Sampling(), exported()), judge.static("0"), judge.static("0.7/0.9")]
    both = worker.answer(ways, problems, 5)
    for way, part in zip(ways, both, strict=True):
        (alone,) = worker.answer([way], problems, 5)
        assert part.rewards.shape == alone.rewards.shape == (4, 1 if way.name == "greedy" else 3)
        assert (part.rewards == alone.rewards).all()
        assert (part.tokens, part.finished) == (alone.tokens, alone.finished)
    (ours,), (theirs,) = both[0].pairs, worker.answer(ways[:1], problems, 5)[0].pairs
    assert ours.shape == theirs.shape
    assert np.sort(ours[:, 0]) == pytest.approx(np.sort(theirs[:, 0]), abs=1e-3)
    assert not both[1].pairs


def test_parts_that_were_drawn_are_not_drawn_again(judge, tmp_path):
    args = SimpleNamespace(output=tmp_path, part=2)
    groups = {"test": [{"family": "sums"}] * 4}
    ways = [judge.static("0.2/0.95"), judge.static("0.6")]
    asked = []

    def stopped_after(number):
        def results(jobs):
            for i, some, problems, start in jobs[:number]:
                asked.append(([way.name for way in some], start))
                rewards = np.full((len(problems), 2), start / 2, np.float32)
                yield i, start, [judge.Part(rewards, 10 * (1 + place), 3) for place in range(len(some))]

        return SimpleNamespace(results=results)

    judge.Judge(args, groups, stopped_after(1)).all(ways)
    again = judge.Judge(args, groups, stopped_after(2))
    assert not again.rewards
    again.all(ways)
    names = [way.name for way in ways]
    assert asked == [(names, 0), (names, 2)]
    assert [again.rewards[name].tolist() for name in names] == [[[0, 0]] * 2 + [[1, 1]] * 2] * 2
    assert [again.figures_of(name)["tokens"] for name in names] == [20, 40]
    whole = judge.Judge(args, groups, stopped_after(0))
    assert list(whole.rewards) == names


def test_parts_of_another_size_are_other_answers(judge, tmp_path):
    ways, asked = [judge.static("0.6")], []

    def results(jobs):
        asked.append([job[3] for job in jobs])
        i, some, problems, start = jobs[0]
        yield i, start, [judge.Part(np.zeros((len(problems), 2), np.float32), 10, 3) for _ in some]

    for part in (2, 1, 2):
        args = SimpleNamespace(output=tmp_path, part=part)
        judge.Judge(args, {"test": [{"family": "sums"}] * 4}, SimpleNamespace(results=results)).all(ways)
        (tmp_path / "rewards.npz").unlink(missing_ok=True)
    assert asked == [[0, 2], [0, 1, 2, 3], [0, 2]]  # and what is kept is of the last size alone
