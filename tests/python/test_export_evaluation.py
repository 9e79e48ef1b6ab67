"""What held-out problems said of heads, in their files: kept by every layout, shown in words, and never trusted."""

import contextlib
import json
from pathlib import Path

import pytest
from gguf import GGUFReader

from autodeco import native
from autodeco.errors import InputError
from autodeco.export import cli
from autodeco.export.evaluation import evaluation_of, read_run
from autodeco.export.gguf_file import read_gguf
from autodeco.export.schema import EVALUATION_KEYS
from builders import gguf_files as files
from builders.inspecting import lines, run_inspect

SENTENCE = "use these heads: pass@1 61.5% against 50.0% of T 0.4, P 0.95, +11.5 (+4.0 to +19.0) points"
VERDICT = {
    "target": "pass@1",
    "problems": 100,
    "samples": 16,
    "heads": 0.615,
    "greedy": 0.25,
    "static": 0.5,
    "static_setting": "T 0.4, P 0.95",
    "over_greedy": {"difference": 0.365, "low": 0.25, "high": 0.5},
    "over_static": {"difference": 0.115, "low": 0.04, "high": 0.19},
    "use_heads": True,
    "sentence": SENTENCE,
}
KEYS = {
    "autodeco.evaluation.verdict": SENTENCE,
    "autodeco.evaluation.target": "pass@1",
    "autodeco.evaluation.problems": 100,
    "autodeco.evaluation.samples": 16,
    "autodeco.evaluation.heads": 0.615,
    "autodeco.evaluation.greedy": 0.25,
    "autodeco.evaluation.static": 0.5,
    "autodeco.evaluation.static.setting": "T 0.4, P 0.95",
    "autodeco.evaluation.over_greedy.difference": 0.365,
    "autodeco.evaluation.over_greedy.low": 0.25,
    "autodeco.evaluation.over_greedy.high": 0.5,
    "autodeco.evaluation.over_static.difference": 0.115,
    "autodeco.evaluation.over_static.low": 0.04,
    "autodeco.evaluation.over_static.high": 0.19,
    "autodeco.evaluation.model.fingerprint": "sha256:other",
}


def write_run(folder: Path, model="sha256:other", **changed) -> Path:
    """Write what a run on rewards leaves beside its heads."""
    run = {"model": {"fingerprint": model}, "verdict": VERDICT | changed}
    (folder / "training.json").write_text(json.dumps(run))
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.gguf").write_bytes(files.model())
    heads = tmp_path / "heads"
    heads.mkdir()
    (heads / "model.safetensors").write_bytes(files.safetensors(files.head_arrays()))
    return tmp_path


def export(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


def found(path) -> dict:
    fields = GGUFReader(path).fields
    return {name: field.contents() for name, field in fields.items() if name.startswith("autodeco.evaluation.")}


def test_the_verdict_of_a_run_is_kept_by_every_layout_and_every_export_of_it(folder, capsys):
    write_run(folder / "heads")
    for layout in ("sidecar", "merged", "embedded"):
        assert export("heads", "--base", "model.gguf", "--layout", layout, "-o", f"{layout}.gguf") == 0
        assert f"held-out problems said: {SENTENCE}" in capsys.readouterr().out
    assert export("sidecar.gguf", "--type", "q8_0", "-o", "again.gguf") == 0
    assert export("sidecar.gguf", "--base", "model.gguf", "--layout", "merged", "-o", "merged-again.gguf") == 0
    assert export("embedded.gguf", "--layout", "merged", "-o", "merged-third.gguf") == 0
    assert export("merged.gguf", "--layout", "embedded", "-o", "embedded-again.gguf") == 0
    assert export("--split", "embedded-again.gguf", "-o", "embedded-parts") == 0
    assert export("--split", "merged.gguf", "-o", "parts") == 0
    for name in ("sidecar", "merged", "again", "merged-again", "merged-third", "parts/heads", "embedded-parts/heads"):
        keys = found(f"{name}.gguf")
        assert keys == pytest.approx(KEYS), name
    assert Path("parts/base.gguf").read_bytes() == files.model()
    assert evaluation_of(read_gguf("again.gguf")) == evaluation_of(read_gguf("sidecar.gguf"))


def test_heads_without_a_verdict_have_no_such_keys(folder, capsys):
    for made in (None, {"model": {}, "result": {}}):
        if made is not None:
            (folder / "heads" / "training.json").write_text(json.dumps(made))
        assert export("heads", "--base", "model.gguf", "-o", "sidecar.gguf") == 0
        assert found("sidecar.gguf") == {}
        assert "held-out" not in capsys.readouterr().out
        assert evaluation_of(read_gguf("sidecar.gguf")) is None
        assert run_inspect("sidecar.gguf") == 0
        assert "verdict" not in lines(capsys)


def test_the_program_s_reader_takes_files_with_and_without_them(folder):
    assert export("heads", "--base", "model.gguf", "-o", "without.gguf") == 0
    write_run(folder / "heads")
    assert export("heads", "--base", "model.gguf", "-o", "with.gguf") == 0
    assert found("with.gguf")
    for name in ("without.gguf", "with.gguf"):
        assert native.load_heads(name).has_top_p


@pytest.mark.parametrize("layout", ["sidecar", "merged", "embedded"])
def test_inspect_says_it_in_plain_words(folder, capsys, layout):
    write_run(folder / "heads")
    assert export("heads", "--base", "model.gguf", "--layout", layout, "-o", "heads.gguf") == 0
    capsys.readouterr()
    assert run_inspect("heads.gguf") == 0
    said = lines(capsys)
    assert said["verdict"] == SENTENCE
    assert said["measured"] == "pass@1 of 100 held-out problems, 16 answers to each"
    assert said["these heads"] == "61.5%"
    assert said["greedy decoding"] == "25.0%; the heads are +36.5 points (+25.0 to +50.0)"
    assert said["best static"] == "T 0.4, P 0.95: 50.0%; the heads are +11.5 points (+4.0 to +19.0)"
    assert said["measured with"] == "another file of the model"


def test_what_answered_is_not_called_another_file_if_it_is_the_same(folder, capsys):
    assert run_inspect("model.gguf") == 0
    write_run(folder / "heads", model=lines(capsys)["fingerprint"])
    assert export("heads", "--base", "model.gguf", "-o", "heads.gguf") == 0
    capsys.readouterr()
    assert run_inspect("heads.gguf") == 0
    assert "measured with" not in lines(capsys)


def test_the_card_shows_it_as_text(folder):
    write_run(folder / "heads", sentence="use | <b> these")
    assert export("heads", "--base", "model.gguf", "--card") == 0
    text = Path("README.md").read_text(encoding="utf-8")
    assert "\n## What held-out problems say\n\n| | |\n|---|---|\n| verdict | use \\| \\<b\\> these |\n" in text
    assert "| best static | T 0.4, P 0.95: 50.0%; the heads are +11.5 points (+4.0 to +19.0) |\n" in text
    assert "\n\n\n" not in text
    Path("README.md").unlink()
    Path("llama.cpp/preset.ini").unlink()
    (folder / "heads" / "training.json").unlink()
    assert export("heads", "--base", "model.gguf", "--card") == 0
    assert "held-out" not in Path("README.md").read_text(encoding="utf-8")


WRONG = {
    "a text for a number": {"heads": "0.6"},
    "a boolean for a number": {"greedy": True},
    "no number": {"heads": float("nan")},
    "an infinite one": {"static": float("inf")},
    "more than float32 holds": {"heads": 1e300},
    "a negative value": {"heads": -0.1},
    "a fraction of problems": {"problems": 10.5},
    "no problems": {"problems": 0},
    "more than u32 holds": {"samples": 2**32},
    "control characters": {"sentence": "\x1b[2Juse these heads"},
    "two lines": {"sentence": "use these heads\n# and more"},
    "a huge text": {"static_setting": "T" * 100_000},
    "an empty text": {"target": " "},
    "a text of another type": {"sentence": ["use"]},
    "an interval the wrong way round": {"over_static": {"difference": 0.1, "low": 0.2, "high": 0.0}},
    "no interval": {"over_static": {"difference": 0.1}},
    "a number for a comparison": {"over_greedy": 3},
}


@pytest.mark.parametrize("case", WRONG)
def test_a_verdict_that_cannot_be_is_refused_in_one_line_and_no_file_is_written(folder, capsys, case):
    write_run(folder / "heads", **WRONG[case])
    with pytest.raises(InputError, match=r"training\.json: its .*; remove it, or fetch it again$"):
        read_run(folder / "heads")
    assert export("heads", "--base", "model.gguf", "-o", "sidecar.gguf") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert len(error) < 300
    assert error.strip().isprintable()
    assert not Path("sidecar.gguf").exists()


@pytest.mark.parametrize("made", ["[]", "{", '{"verdict": 3, "model": {}}', '{"verdict": {}, "model": []}', "\xff"])
def test_a_file_of_a_run_that_is_none_is_refused(folder, made):
    (folder / "heads" / "training.json").write_bytes(made.encode("latin-1"))
    with pytest.raises(InputError, match=r"training\.json: "):
        read_run(folder / "heads")


HOSTILE = {
    "a text for a number": ("heads", files.STRING, "61%"),
    "a float for a count": ("problems", files.F32, 100.0),
    "no number": ("over_static_low", files.F32, float("nan")),
    "control characters": ("verdict", files.STRING, "\x1b[2Jgone"),
    "a huge text": ("verdict", files.STRING, "x" * 1_000_000),
    "not UTF-8": ("verdict", files.STRING, b"\xff\xfe\x1b"),
    "an array": ("static_setting", files.STRING, ["T", "P"]),
    "nothing": ("static_setting", None, None),
}


def rewritten(path: str, changed: str, kind: int | None, value) -> bytes:
    """The file at ``path`` with another value of the key ``changed``, or without it."""
    data, gguf = Path(path).read_bytes(), read_gguf(path)
    keys = [data[found.start : found.end] for name, found in gguf.keys.items() if name != changed]
    keys += [files.key(changed, kind, value)] if kind is not None else []
    tensors = [files.tensor(info.name, info.shape, info.kind, info.offset) for info in gguf.tensors.values()]
    return files.gguf(keys, tensors, data[gguf.data_offset :])


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_keys_are_refused_before_anything_is_printed(folder, capsys, case):
    name, kind, value = HOSTILE[case]
    write_run(folder / "heads")
    assert export("heads", "--base", "model.gguf", "-o", "heads.gguf") == 0
    Path("evil.gguf").write_bytes(rewritten("heads.gguf", EVALUATION_KEYS[name], kind, value))
    capsys.readouterr()
    assert run_inspect("evil.gguf") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("autodeco: error: evil.gguf: ")
    assert shown.err.count("\n") == 1
    assert shown.err.strip().isprintable()
    assert len(shown.err) < 300
    assert export("evil.gguf", "-o", "again.gguf") == 2
    assert not Path("again.gguf").exists()
    with contextlib.suppress(InputError):  # what runs heads shows none of this, and may refuse it
        assert native.load_heads("evil.gguf").has_top_p
