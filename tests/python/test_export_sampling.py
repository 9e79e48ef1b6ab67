"""What programs without AutoDeco are told: `general.sampling.*`, the card's section and a preset of llama.cpp."""

import json
import re
from dataclasses import replace
from pathlib import Path

import llama_cpp
import numpy as np
import pytest

from autodeco import native
from autodeco.base.opening import default_model
from autodeco.export import cli
from autodeco.export.evaluation import Evaluation
from autodeco.export.layout import open_layout
from autodeco.export.sampling import LETTERS, ORDER, Sampling, of_evaluation
from autodeco.llama.head_accuracy import hidden_states
from builders import gguf_files as files
from builders.golden import GOLDEN
from builders.inspecting import lines, run_inspect
from builders.stock_presets import read_preset

ARGUMENTS = Path(__file__).parents[2] / "build" / "llama.cpp" / "common" / "arg.cpp"
EVALUATION = Evaluation(
    *("use these heads: pass@1 61.5%", "pass@1", 100, 16, 0.615, 0.25, 0.5, "T 0.4, P 0.95"),
    *(0.365, 0.25, 0.5, 0.115, 0.04, 0.19, "sha256:" + "0" * 64),
)
SEQUENCE = "penalties;dry;top_n_sigma;temperature;top_k;typ_p;top_p;min_p;xtc"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder, made current, with model.gguf, which has settings of its own, and heads with a verdict."""
    monkeypatch.chdir(tmp_path)
    own = [files.key("general.sampling.temp", files.F32, 0.6), files.key("general.sampling.top_k", files.I32, 20)]
    (tmp_path / "model.gguf").write_bytes(files.model(extra_keys=own))
    (tmp_path / "heads").mkdir()
    (tmp_path / "heads" / "model.safetensors").write_bytes(files.safetensors(files.head_arrays()))
    return tmp_path


def write_verdict(folder, evaluation=EVALUATION):
    """The verdict as a run of training on rewards leaves it."""
    found = vars(evaluation)
    over = {
        name: {"difference": found[name], **{end: found[f"{name}_{end}"] for end in ("low", "high")}} for name in OVER
    }
    verdict = {name: found[name] for name in SAME} | over | {"sentence": evaluation.verdict}
    run = {"verdict": verdict, "model": {"fingerprint": evaluation.model}}
    (folder / "heads" / "training.json").write_text(json.dumps(run))


OVER = ("over_greedy", "over_static")
SAME = ("target", "problems", "samples", "heads", "greedy", "static", "static_setting")


def export(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


def settings(path) -> dict:
    gguf = open_layout(path).gguf
    return {key.rpartition(".")[2]: gguf.get(key) for key in gguf.keys if key.startswith("general.sampling.")}


@pytest.mark.parametrize("layout", ["merged", "embedded"])
def test_files_with_the_model_have_the_best_static_setting(folder, layout, capsys):
    write_verdict(folder)
    assert export("heads", "--base", "model.gguf", "--layout", layout, "-o", "both.gguf") == 0
    expected = {"sequence": SEQUENCE, "temp": 0.4, "top_p": 0.95, "top_k": 0, "min_p": 0.0}
    assert settings("both.gguf") == pytest.approx(expected)
    said = "without AutoDeco: T 0.4, P 0.95, the best static setting of 100 held-out problems"
    assert said in capsys.readouterr().out
    assert run_inspect("both.gguf") == 0
    assert lines(capsys)["without AutoDeco"] == "T 0.4, P 0.95"
    assert export("--split", "both.gguf", "-o", "parts") == 0
    assert (folder / "parts" / "base.gguf").read_bytes() == (folder / "model.gguf").read_bytes()


def test_a_sidecar_has_no_settings(folder):
    write_verdict(folder)
    assert export("heads", "--base", "model.gguf", "-o", "heads.gguf") == 0
    assert settings("heads.gguf") == {}


def test_greedy_decoding_is_a_setting_where_it_does_best():
    assert of_evaluation(EVALUATION) == Sampling(0.4, 0.95, "the best static setting of 100 held-out problems")
    better = of_evaluation(replace(EVALUATION, greedy=0.55))
    assert (better.temperature, better.top_p) == (0.0, 1.0)
    assert of_evaluation(replace(EVALUATION, static_setting="greedy")) == better
    assert of_evaluation(None) is None


@pytest.mark.parametrize(
    "text", ["T 11, P 0.9", "T 1, P 0", "T 1, P 1.5", "T 1e999, P 1", "T 1.2.3, P 1", "mine", "T -1, P 1"]
)
def test_a_setting_that_is_none_is_not_taken(text):
    assert of_evaluation(replace(EVALUATION, static_setting=text)) is None


def test_a_setting_can_be_given_or_left_out(folder):
    arguments = ("heads", "--base", "model.gguf", "--layout", "embedded", "-o", "both.gguf", "--sampling")
    assert export(*arguments, "0.7,0.9") == 0
    assert settings("both.gguf") == pytest.approx(
        {"sequence": SEQUENCE, "temp": 0.7, "top_p": 0.9, "top_k": 0, "min_p": 0.0}
    )
    assert export(*arguments, "none") == 0
    assert settings("both.gguf") == pytest.approx({"temp": 0.6, "top_k": 20})  # the model's own


@pytest.mark.parametrize("text", ["0.7", "0.7,", "a,b", "0.7,0.9,1", "nan,1", "0.7,2"])
def test_a_wrong_setting_is_told_in_one_line(folder, capsys, text):
    assert export("heads", "--base", "model.gguf", "--layout", "merged", "--sampling", text) == 2
    assert capsys.readouterr().err == (
        f"autodeco-export: error: --sampling {text}: give temperature and top-p, such as 0.7,0.95, or none\n"
    )


def test_a_model_that_does_not_run_is_exported_without_settings_and_this_is_said(folder, capsys):
    assert export("heads", "--base", "model.gguf", "--layout", "embedded", "-o", "both.gguf") == 0
    said = capsys.readouterr().out
    assert "note: no setting for programs without AutoDeco: model.gguf: " in said
    assert settings("both.gguf") == pytest.approx({"temp": 0.6, "top_k": 20})


def test_without_a_verdict_it_is_the_mean_of_the_heads_and_stock_llama_cpp_reads_it(folder, capsys):
    heads, model = GOLDEN / "smollm2.heads.safetensors", default_model()
    assert export(heads, "--base", model, "--layout", "embedded", "-o", "both.gguf") == 0
    hidden, logits = hidden_states(open_layout(model))
    temperature, top_p = (float(np.mean(values)) for values in native.predict("both.gguf", hidden, logits))
    found = settings("both.gguf")
    assert found["temp"] == pytest.approx(temperature, abs=0.006)
    assert found["top_p"] == pytest.approx(top_p, abs=0.006)
    assert f"the mean of the heads over {len(hidden)} hidden states of the model" in capsys.readouterr().out
    stock = llama_cpp.Llama("both.gguf", vocab_only=True, verbose=False)
    said = {key: value for key, value in stock.metadata.items() if key.startswith("general.sampling.")}
    stock.close()
    assert said.pop("general.sampling.sequence") == SEQUENCE
    assert {key: float(value) for key, value in said.items()} == pytest.approx(
        {f"general.sampling.{name}": found[name] for name in ("temp", "top_p", "top_k", "min_p")}
    )


@pytest.mark.parametrize(
    ("layout", "stock"),
    [("sidecar", "model.gguf"), ("merged", "parts/base.gguf"), ("embedded", "model_autodeco.gguf")],
)
def test_the_card_and_the_preset_tell_the_setting(folder, layout, stock):
    write_verdict(folder)
    assert export("heads", "--base", "model.gguf", "--layout", layout, "--card") == 0
    assert not (folder / "preset.ini").exists()  # llama.cpp downloads nothing else of a repository that has it there
    found = read_preset((folder / "llama.cpp" / "preset.ini").read_text())
    assert found == {
        "default": {"version": "1"},
        Path(stock).stem: {
            "model": stock,
            "temp": "0.4",
            "top-p": "0.95",
            "top-k": "0",
            "min-p": "0",
            "sampler-seq": "edstkypmx",
        },
    }
    text = (folder / "README.md").read_text()
    options = "--temp 0.4 --top-p 0.95 --top-k 0 --min-p 0 --sampler-seq edstkypmx"
    assert f"```sh\nllama-server -m {stock} {options}\n```\n" in text
    assert "\n\n\n" not in text
    assert "the best static setting of 100 held-out problems" in text
    assert ("`general.sampling.*`" in text) == (layout != "sidecar")
    assert ("refuse this file" in text) == (layout == "merged")
    assert ("run this file as the plain model" in text) == (layout == "embedded")
    if ARGUMENTS.exists():
        known = set(re.findall(r'"--([a-z-]+)"', ARGUMENTS.read_text()))
        assert found[Path(stock).stem].keys() <= known


def test_the_letters_of_the_order_are_those_of_its_names():
    source = ARGUMENTS.with_name("sampling.cpp")
    if not source.exists():
        pytest.skip("llama.cpp's source is not fetched")
    letters = dict(re.findall(r"case COMMON_SAMPLER_TYPE_(\w+):\s+return '(\w)';", source.read_text()))
    names = dict(re.findall(r"case COMMON_SAMPLER_TYPE_(\w+):\s+return \"(\w+)\";", source.read_text()))
    assert "".join(letters[kind] for name in ORDER for kind in names if names[kind] == name) == LETTERS


def test_a_preset_that_is_there_is_not_replaced(folder, capsys):
    write_verdict(folder)
    (folder / "llama.cpp").mkdir()
    (folder / "llama.cpp" / "preset.ini").write_text("mine")
    assert export("heads", "--base", "model.gguf", "--card") == 2
    assert "llama.cpp/preset.ini: is there already; remove it" in capsys.readouterr().err
    assert not (folder / "README.md").exists()


@pytest.mark.parametrize("name", ["a;b.gguf", "a#b.gguf", "a\nb.gguf", " a.gguf"])
def test_a_name_that_a_preset_cannot_have_gets_none(name):
    assert Sampling(0.4, 0.95, "found").preset(name) is None


def test_a_section_has_letters_that_it_may_have():
    text = Sampling(0.4, 0.95, "found").preset("My [model]: été.gguf")
    assert read_preset(text)["My__model____t_"]["model"] == "My [model]: été.gguf"
