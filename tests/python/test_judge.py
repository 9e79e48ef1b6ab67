"""What benchmarks/gpu/judge.py writes of answers that were drawn before."""

import contextlib
import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "gpu"


@pytest.fixture
def judge(monkeypatch):
    """The script; its processes are asked for nothing."""
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("judge", FOLDER / "judge.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "judge", module)
    spec.loader.exec_module(module)

    def no_jobs(jobs):
        assert jobs == []
        return iter(())

    monkeypatch.setattr(module, "Workers", lambda *_: contextlib.nullcontext(SimpleNamespace(results=no_jobs)))
    return module


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
