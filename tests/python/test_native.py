"""The compiled module: golden predictions, version check, one libllama."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from autodeco import native
from autodeco.errors import InputError
from autodeco.export import cli as export_cli
from builders import gguf_files as files
from builders.golden import GOLDEN


@pytest.fixture
def tiny_plain(tmp_path):
    """Golden heads without statistics, H 64 and V 1000, exported for a model of that shape."""
    (tmp_path / "base.gguf").write_bytes(files.model(hidden=64, vocab=1000))
    path = tmp_path / "heads.gguf"
    heads = GOLDEN / "tiny_plain.heads.safetensors"
    assert export_cli.main([str(heads), "--base", str(tmp_path / "base.gguf"), "--type", "f32", "-o", str(path)]) == 0
    return path


def check_golden(case, path, tolerance):
    inputs = load_file(GOLDEN / f"{case}.inputs.safetensors")
    expected = load_file(GOLDEN / f"{case}.expected.safetensors")
    temperature, top_p = native.predict(path, inputs["hidden"], inputs["logits"])
    assert temperature.dtype == top_p.dtype == np.float32
    np.testing.assert_allclose(temperature, expected["temperature"], rtol=0, atol=tolerance)
    np.testing.assert_allclose(top_p, expected["top_p"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("layout", ["sidecar", "merged", "embedded"])
def test_predictions_are_the_official_ones(exported, layout):
    check_golden("smollm2", exported("f32", layout), 1e-4)


def test_predictions_without_statistics_are_the_official_ones(tiny_plain):
    check_golden("tiny_plain", tiny_plain, 1e-4)


@pytest.mark.parametrize(("weight_type", "tolerance"), [("f16", 1e-3), ("bf16", 5e-3), ("q8_0", 2e-2)])
def test_predictions_with_smaller_weights_stay_close(exported, weight_type, tolerance):
    check_golden("smollm2", exported(weight_type), tolerance)


def test_many_rows_are_predicted_like_single_ones(exported):
    inputs = load_file(GOLDEN / "smollm2.inputs.safetensors")
    hidden, logits = np.tile(inputs["hidden"], (5, 1)), np.tile(inputs["logits"], (5, 1))
    together = native.predict(exported("f32"), hidden, logits)
    alone = native.predict(exported("f32"), hidden[17:18], logits[17:18])
    np.testing.assert_allclose([together[0][17], together[1][17]], [alone[0][0], alone[1][0]], atol=1e-6)


@pytest.mark.parametrize(
    ("hidden", "logits", "message"),
    [((2, 575), (2, 49152), "width 575, the heads are made for 576"),
     ((2, 576), (2, 49151), "width 49151, the heads are made for 49152"),
     ((2, 576), (3, 49152), "same n")],
)  # fmt: skip
def test_arrays_of_other_shapes_are_refused(exported, hidden, logits, message):
    with pytest.raises(ValueError, match=message):
        native.predict(exported("f32"), np.zeros(hidden), np.zeros(logits))


@pytest.mark.parametrize(
    ("where", "bad"), [("hidden", np.nan), ("hidden", np.inf), ("logits", np.nan), ("logits", np.inf)]
)
def test_arrays_that_are_no_numbers_are_refused(exported, where, bad):
    arrays = {"hidden": np.zeros((2, 576), np.float32), "logits": np.zeros((2, 49152), np.float32)}
    arrays[where][1, 300] = bad
    with pytest.raises(ValueError, match=r"1.* holds? NaN or"):
        native.predict(exported("f32"), **arrays)


def test_draws_from_rows_are_those_of_prediction_and_nucleus(exported):
    """Settings, heads and both, from rows with many draws, one and none."""
    inputs = load_file(GOLDEN / "smollm2.inputs.safetensors")
    hidden, logits = inputs["hidden"], inputs["logits"]
    temperatures, top_ps = native.predict(exported("f32"), hidden, logits)
    random = np.random.default_rng(3)
    n, most = 300, len(hidden)
    rows = np.sort(random.integers(0, most - 1, n))
    rows[-1] = most - 1
    by_t, by_p = random.random(n) < 0.6, random.random(n) < 0.6
    t, p = random.choice([0.0, 0.5, 1.5], n), random.choice([0.5, 1.0], n)
    u = random.random(n)
    heads = native.load_heads(exported("f32"))
    tokens, reported_t, reported_p, _ = native.draw_from_rows(heads, hidden, logits, rows, t, p, by_t, by_p, u)
    expected = native.nucleus_sample(
        logits, np.where(by_t, temperatures[rows] * t, t), np.where(by_p, top_ps[rows] * p, p), u, rows
    )
    assert np.mean(tokens == expected) > 0.99, "the exponentials of predicted temperatures differ in the last digit"
    assert len(set(tokens.tolist())) > 10
    np.testing.assert_allclose(reported_t, np.where(by_t, temperatures[rows], t), rtol=1e-6)
    np.testing.assert_allclose(reported_p, np.where(by_p, top_ps[rows], p), rtol=1e-6)


def test_noise_moves_the_logit_of_the_top_p_that_is_drawn_with_alone():
    """Of two tokens of 0.6 and 0.4, the second is in a nucleus of more than 0.6."""
    logits = np.log(np.array([[0.6, 0.4]], np.float32))
    p, noise = 0.5, np.linspace(-2, 2, 401)
    n = len(noise)
    setting = {"temperature": [1.0] * n, "top_p": [p] * n, "by_temperature_head": [False] * n}
    setting |= {"by_top_p_head": [False] * n, "u": [0.99] * n}
    rows = [0] * n
    tokens, _, told, _ = native.draw_from_rows(None, np.zeros((1, 4)), logits, rows, **setting, top_p_noise=noise)
    np.testing.assert_array_equal(tokens, (noise > np.log(0.6 / 0.4)).astype(int))
    np.testing.assert_array_equal(told, np.float32(p))
    for certain in (0.0, 1.0):  # have no logit
        setting["top_p"] = [certain] * n
        tokens, _, told, _ = native.draw_from_rows(None, np.zeros((1, 4)), logits, rows, **setting, top_p_noise=noise)
        np.testing.assert_array_equal(tokens, int(certain))
        np.testing.assert_array_equal(told, np.float32(certain))


def drawing(**changes):
    """Arguments for two draws from two rows."""
    two = np.zeros(2)
    given = {"heads": None, "hidden": np.zeros((2, 4)), "logits": np.zeros((2, 9)), "rows": [0, 1], "temperature": two}
    given |= {"top_p": two, "by_temperature_head": [False] * 2, "by_top_p_head": [False] * 2, "u": two}
    return native.draw_from_rows(**given | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"rows": [1, 0]}, "row 1: stands before a lower row"),
     ({"rows": [0, 2]}, "row 1: there is no such row"),
     ({"u": [0.0, 1.0]}, "row 1: u is outside"),
     ({"temperature": [-1.0, 1.0]}, "row 0: temperature"),
     ({"top_p": [1.0]}, "with the same n"),
     ({"hidden": np.zeros((1, 4))}, "with the same m"),
     ({"by_top_p_head": [False, True]}, "row 1: wants heads"),
     ({"logits": np.array([[0.0] * 9, [np.nan] * 9])}, "row 1: logits, temperature or top-p hold NaN"),
     ({"logits": np.full((2, 9), -np.inf)}, "row 0: every logit is -inf")],
)  # fmt: skip
def test_draws_that_cannot_be_made_are_refused(changes, message):
    assert [values.tolist() for values in drawing()[:3]] == [[0, 0], [0.0, 0.0], [0.0, 0.0]]
    with pytest.raises(ValueError, match=message):
        drawing(**changes)


def test_hidden_states_and_heads_of_draws_are_checked(exported):
    heads = native.load_heads(exported("f32"))
    sizes = {"hidden": np.zeros((2, 576)), "logits": np.zeros((2, 49152))}
    with pytest.raises(ValueError, match="made for a width of 576 and a vocabulary of 49152"):
        drawing(heads=heads)
    sizes["hidden"][1, 3] = np.inf
    assert drawing(heads=heads, **sizes)[0].tolist() == [0, 0], "nothing reads the state"
    with pytest.raises(ValueError, match="hidden state 1 holds NaN or inf"):
        drawing(heads=heads, by_temperature_head=[False, True], **sizes)


def test_the_spread_is_that_of_the_softmax():
    random = np.random.default_rng(4)
    for n, deviation in ((1, 1.0), (8, 0.0), (1000, 5.0), (151_936, 1.0), (151_936, 8.0)):
        logits = (deviation * random.standard_normal(n)).astype(np.float32)
        logits[: n // 5] = -np.inf
        p = np.exp(logits.astype(np.float64) - logits.max())
        p = p[p > 0] / p.sum()
        assert native.spread(logits) == pytest.approx((-(p @ np.log(p)), p.max()), rel=1e-5, abs=1e-6)
    for wrong in ([0.0, np.nan], [np.inf, 0.0], [-np.inf] * 3):
        with pytest.raises(ValueError, match=r"NaN|-inf"):
            native.spread(np.array(wrong, np.float32))


def test_a_missing_heads_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.gguf: no such heads file"):
        native.load_heads(tmp_path / "none.gguf")


def test_a_file_that_is_no_gguf_is_named(tmp_path):
    (tmp_path / "text.gguf").write_text("not a model\n" * 100)
    with pytest.raises(InputError, match=r"text\.gguf: .*GGUF"):
        native.load_heads(tmp_path / "text.gguf")


def test_a_model_without_heads_is_named(smollm2):
    with pytest.raises(InputError, match="holds no AutoDeco heads"):
        native.load_heads(smollm2)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_heads_file_is_refused(exported, tmp_path, kept):
    data = exported("f32").read_bytes()
    (tmp_path / "short.gguf").write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(InputError, match=r"short\.gguf: .*cut short"):
        native.load_heads(tmp_path / "short.gguf")


def test_nan_weights_are_refused(exported, tmp_path):
    data = bytearray(exported("f32").read_bytes())
    data[-32:-28] = np.float32(np.nan).tobytes()  # the last bias, before the padding of the file
    (tmp_path / "nan.gguf").write_bytes(data)
    with pytest.raises(InputError, match="holds NaN or infinite weights"):
        native.load_heads(tmp_path / "nan.gguf")


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_exactly_one_libllama_is_mapped(smollm2, exported):
    mapped = run_python(f"""
import autodeco
llm = autodeco.Llama({str(smollm2)!r}, {str(exported("f32"))!r}, verbose=False, n_ctx=64)
llm("one", max_tokens=2)
libraries = {{line.split()[-1] for line in open("/proc/self/maps") if "libllama" in line}}
print(*libraries, sep="\\n")
""")
    assert len(mapped.split()) == 1, mapped


def test_importing_and_generating_needs_neither_torch_nor_transformers(smollm2, exported):
    assert run_python(f"""
import sys
from pathlib import Path
sys.modules["torch"] = sys.modules["transformers"] = None  # importing either raises ImportError
import autodeco
import autodeco.cli
llm = autodeco.Llama({str(smollm2)!r}, {str(exported("f32"))!r}, verbose=False, n_ctx=64)
print(llm("one", max_tokens=2, temperature=0)["usage"]["completion_tokens"])
""").split() == ["2"]


def test_damaged_heads_files_never_crash_the_reader(tiny_plain):
    program = Path(__file__).parent / "programs" / "damaged_heads.py"
    result = subprocess.run(
        [sys.executable, program, tiny_plain, "4000", "1400"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert 2000 < int(result.stdout) < 4000  # most are refused; a changed letter of a name is none of our business


def test_what_the_fuzzer_found_is_read_or_refused():
    corpus = sorted((Path(__file__).parents[1] / "fuzz" / "corpus").iterdir())
    refused = {}
    for file in corpus:
        try:
            native.load_heads(file)
        except InputError as error:
            refused[file.name] = str(error)
    assert all(name in message for name, message in refused.items())
    assert 0 < len(corpus) - len(refused) < len(refused)  # a few are heads
