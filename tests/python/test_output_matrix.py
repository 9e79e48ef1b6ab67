"""The output matrix of a GGUF, and what each architecture does to the logits after it."""

import gguf
import numpy as np
import pytest

from autodeco.base.output_matrix import read_output_matrix
from autodeco.errors import InputError
from builders.models import HIDDEN, VOCAB, write_model


@pytest.fixture
def hidden():
    return np.random.default_rng(1).standard_normal((3, HIDDEN)).astype(np.float16)


@pytest.mark.parametrize("tied", [True, False])
def test_tied_or_not_the_right_matrix_is_used(tmp_path, hidden, tied):
    path, weight = write_model(tmp_path / "model.gguf", tied=tied)
    matrix = read_output_matrix(path)
    assert (matrix.vocab_size, matrix.hidden_size) == (VOCAB, HIDDEN)
    np.testing.assert_array_equal(matrix.dequantize(), weight)
    np.testing.assert_allclose(matrix.logits(hidden), hidden.astype(np.float32) @ weight.T, rtol=1e-5, atol=1e-5)


def test_a_quantized_matrix_is_dequantized(tmp_path):
    path, weight = write_model(tmp_path / "model.gguf", weight_type=gguf.GGMLQuantizationType.Q8_0)
    # Q8_0 rounds to 127 steps of the largest value of a block.
    assert np.abs(read_output_matrix(path).dequantize() - weight).max() <= np.abs(weight).max() / 127


@pytest.mark.parametrize(
    ("architecture", "keys", "expected"),
    [
        ("llama", [("logit_scale", 3.0)], lambda z: z),  # not read by llama.cpp
        ("command-r", [("logit_scale", 0.0625)], lambda z: z * 0.0625),
        ("cohere2", [("logit_scale", 0.25)], lambda z: z * 0.25),
        ("granite", [("logit_scale", 8.0)], lambda z: z / 8),
        ("granitemoe", [("logit_scale", 8.0)], lambda z: z / 8),
        ("minicpm", [("logit_scale", 9.0)], lambda z: z / 9),
        ("minicpm", [], lambda z: z / (256 / HIDDEN)),
        ("minicpm3", [], lambda z: z * (256 / HIDDEN)),
        ("gemma2", [("final_logit_softcapping", 5.0)], lambda z: 5 * np.tanh(z / 5)),
        ("gemma2", [], lambda z: 30 * np.tanh(z / 30)),
        ("gemma3", [], lambda z: z),
        ("gemma3", [("final_logit_softcapping", 5.0)], lambda z: 5 * np.tanh(z / 5)),
        ("grok", [], lambda z: z * 0.5773502691896257),
        (
            "grok",
            [("logit_scale", 2.0), ("final_logit_softcapping", 5.0)],
            lambda z: 5 * np.tanh(2 * z / 5),
        ),
    ],
)
def test_scale_and_softcap_are_those_of_the_architecture(tmp_path, hidden, architecture, keys, expected):
    path, weight = write_model(tmp_path / "model.gguf", architecture, keys)
    plain = hidden.astype(np.float32) @ weight.T
    np.testing.assert_allclose(read_output_matrix(path).logits(hidden), expected(plain), rtol=1e-4, atol=1e-4)


def test_a_bias_is_added(tmp_path, hidden):
    path, weight = write_model(tmp_path / "model.gguf", "qwen2", tied=False, bias=True)
    expected = hidden.astype(np.float32) @ weight.T + np.arange(VOCAB)
    np.testing.assert_allclose(read_output_matrix(path).logits(hidden), expected, rtol=1e-5, atol=1e-5)


def test_a_bias_that_llama_cpp_leaves_out_is_left_out(tmp_path, hidden):
    path, weight = write_model(tmp_path / "model.gguf", "qwen2vl", tied=False, bias=True)
    np.testing.assert_allclose(read_output_matrix(path).logits(hidden), hidden @ weight.T, atol=1e-4)


def test_files_that_hold_no_model_are_refused(tmp_path):
    with pytest.raises(InputError, match="absent"):
        read_output_matrix(tmp_path / "absent.gguf")
    (tmp_path / "text.gguf").write_text("not a model")
    with pytest.raises(InputError, match="text"):
        read_output_matrix(tmp_path / "text.gguf")
    path, _ = write_model(tmp_path / "model.gguf")
    (tmp_path / "cut.gguf").write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="cut"):
        read_output_matrix(tmp_path / "cut.gguf")
    writer = gguf.GGUFWriter(tmp_path / "empty.gguf", "llama")
    writer.add_embedding_length(HIDDEN)
    writer.add_vocab_size(VOCAB)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match="has no output"):
        read_output_matrix(tmp_path / "empty.gguf")


def test_one_part_of_a_split_model_is_refused(tmp_path):
    path, _ = write_model(tmp_path / "model-00001-of-00002.gguf", split=2)
    with pytest.raises(InputError, match="split model"):
        read_output_matrix(path)


def test_a_type_that_cannot_be_dequantized_is_refused(tmp_path):
    path, _ = write_model(tmp_path / "model.gguf")
    data = bytearray(path.read_bytes())
    at = data.index(b"token_embd.weight") + len(b"token_embd.weight") + 4 + 2 * 8
    assert data[at : at + 4] == bytes(4)  # F32
    data[at : at + 4] = int(gguf.GGMLQuantizationType.I32).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(InputError, match="cannot dequantize"):
        read_output_matrix(path)
