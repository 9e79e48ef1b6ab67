"""The heads reproduce the official implementation and refuse checkpoints that do not fit."""

import json
import math
from pathlib import Path

import pytest

from builders import gguf_files as files

torch = pytest.importorskip("torch")
from safetensors.torch import load_file, save_file  # noqa: E402

from autodeco import Heads  # noqa: E402
from autodeco.errors import InputError  # noqa: E402
from autodeco.export import cli as export_cli  # noqa: E402
from autodeco.heads import prob_stats  # noqa: E402
from builders.golden import GOLDEN  # noqa: E402

CASES = ["smollm2", "tiny_plain"]


@pytest.mark.parametrize("case", CASES)
def test_heads_reproduce_the_official_outputs(case):
    heads = Heads.from_pretrained(GOLDEN / f"{case}.heads.safetensors")
    inputs = load_file(GOLDEN / f"{case}.inputs.safetensors")
    expected = load_file(GOLDEN / f"{case}.expected.safetensors")
    temperature, top_p = heads(inputs["hidden"], inputs["logits"])
    torch.testing.assert_close(temperature, expected["temperature"], rtol=1e-5, atol=0)
    torch.testing.assert_close(top_p, expected["top_p"], rtol=1e-5, atol=0)


def test_the_width_of_the_top_p_head_says_whether_there_are_statistics():
    assert Heads.from_pretrained(GOLDEN / "smollm2.heads.safetensors").prob_stats
    assert not Heads.from_pretrained(GOLDEN / "tiny_plain.heads.safetensors").prob_stats


def test_the_statistics_of_a_small_distribution_by_hand():
    # q = (1/2, 1/4, 1/8, 1/8) at T = 1
    logits = torch.log(torch.tensor([4.0, 2.0, 1.0, 1.0]))
    largest, entropy, variance, top5 = prob_stats(logits, torch.tensor(1.0)).tolist()
    assert largest == pytest.approx(0.5)
    assert entropy == pytest.approx(1.75 * math.log(2))
    assert variance == pytest.approx((0.25**2 + 2 * 0.125**2) / 3)  # unbiased: over V - 1
    assert top5 == pytest.approx(1.0)


def test_any_leading_shape_gives_the_same_values():
    heads = Heads.from_pretrained(GOLDEN / "tiny_plain.heads.safetensors")
    inputs = load_file(GOLDEN / "tiny_plain.inputs.safetensors")
    flat = heads(inputs["hidden"], inputs["logits"])
    folded = heads(inputs["hidden"].reshape(3, 4, -1), inputs["logits"].reshape(3, 4, -1))
    for one, other in zip(flat, folded, strict=True):
        torch.testing.assert_close(other, one.reshape(3, 4))
    one_token = heads(inputs["hidden"][5], inputs["logits"][5])
    torch.testing.assert_close(one_token[0], flat[0][5])


def test_untrained_heads_decode_at_temperature_1_and_top_p_095():
    temperature, top_p = Heads(16)(torch.randn(7, 16), torch.randn(7, 50))
    torch.testing.assert_close(temperature, torch.ones(7))
    torch.testing.assert_close(top_p, torch.full((7,), 0.95))


def test_the_temperature_reaches_the_top_p_head_without_gradient():
    heads = Heads(16)
    torch.nn.init.normal_(heads.top_p_head.mlp[2].weight)
    heads(torch.randn(7, 16), torch.randn(7, 50))[1].sum().backward()
    assert heads.temp_head.mlp[2].bias.grad is None
    assert heads.top_p_head.mlp[2].bias.grad is not None


@pytest.mark.parametrize("options", [{}, {"prob_stats": False}, {"temperature": False}, {"top_p": False}])
def test_saved_heads_read_back_the_same(tmp_path, options):
    heads = Heads(16, **options)
    heads.base_config = {"base_model_name_or_path": "some/model", "vocab_size": 50}
    for parameter in heads.parameters():
        torch.nn.init.normal_(parameter)
    heads.save_pretrained(tmp_path / "heads")
    again = Heads.from_pretrained(tmp_path / "heads")
    hidden, logits = torch.randn(5, 16), torch.randn(5, 50)
    for one, other in zip(heads(hidden, logits), again(hidden, logits), strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=0)
    assert again.base_config == heads.base_config
    config = json.loads((tmp_path / "heads" / "config.json").read_text())
    assert config["model_type"] == "autodeco"
    assert config["hidden_size"] == 16
    assert config["use_enhanced_features"] is options.get("prob_stats", True)
    assert config["enable_temperature_head"] is options.get("temperature", True)
    assert config["enable_top_p_head"] is options.get("top_p", True)


def test_a_head_that_is_off_predicts_1():
    hidden, logits = torch.randn(5, 16), torch.randn(5, 50)
    assert Heads(16, temperature=False)(hidden, logits)[0].tolist() == [1.0] * 5
    assert Heads(16, top_p=False)(hidden, logits)[1].tolist() == [1.0] * 5
    with pytest.raises(InputError, match="at least one"):
        Heads(16, temperature=False, top_p=False)


def test_heads_are_found_among_the_shards_of_a_merged_checkpoint(tmp_path):
    heads = load_file(GOLDEN / "tiny_plain.heads.safetensors")
    first = {name: tensor.bfloat16() for name, tensor in heads.items() if name.startswith("temp_head")}
    second = {name: tensor.bfloat16() for name, tensor in heads.items() if name.startswith("top_p_head")}
    save_file(first | {"llm.model.norm.weight": torch.ones(64)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file(second, tmp_path / "model-00002-of-00002.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 64, "use_enhanced_features": False}))
    read = Heads.from_pretrained(tmp_path).state_dict()
    assert read["top_p_head.mlp.0.weight"].dtype == torch.float32
    torch.testing.assert_close(read["top_p_head.mlp.0.weight"], heads["top_p_head.mlp.0.weight"], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"enable_top_p_head": "yes"}, "enable_top_p_head: 'yes', expected true or false"),
        ({"hidden_size": 32}, "has 16 columns but the hidden size is said to be 32"),
        ({"use_enhanced_features": False}, "use_enhanced_features is false"),
        ({"hidden_size": "big"}, "hidden_size: 'big', expected a whole number"),
        ([], "JSON object"),
    ],
)
def test_a_config_that_contradicts_the_tensors_is_refused(tmp_path, config, message):
    Heads(16).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=message):
        Heads.from_pretrained(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    tensors = load_file(GOLDEN / "tiny_plain.heads.safetensors")
    tensors["temp_head.mlp.2.weight"][0, 3] = value
    save_file(tensors, tmp_path / "bad.safetensors")
    with pytest.raises(InputError, match=r"temp_head\.mlp\.2\.weight holds 1 NaN or infinite"):
        Heads.from_pretrained(tmp_path / "bad.safetensors")


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("temp_head.mlp.0.bias", torch.zeros(255), r"temp_head\.mlp\.0\.bias has shape \[255\], expected \[256\]"),
        ("top_p_head.mlp.0.weight", torch.zeros(256, 67), "has 67 columns, a hidden size of 64 needs 65 or 69"),
        ("top_p_head.mlp.0.weight", torch.zeros(256), r"top_p_head\.mlp\.0\.weight has shape \[256\]"),
        ("temp_head.mlp.2.bias", torch.zeros(1, dtype=torch.int64), "is I64; save the heads as F32, F16 or BF16"),
        ("temp_head.mlp.2.bias", None, r"temp_head\.mlp\.2\.bias is missing"),
    ],
)
def test_wrong_shapes_and_types_are_refused(tmp_path, name, tensor, message):
    tensors = load_file(GOLDEN / "tiny_plain.heads.safetensors")
    tensors[name] = tensor
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, tmp_path / "bad.safetensors")
    with pytest.raises(InputError, match=message):
        Heads.from_pretrained(tmp_path / "bad.safetensors")


def test_files_that_are_no_heads_are_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        Heads.from_pretrained(tmp_path / "absent")
    whole = (GOLDEN / "tiny_plain.heads.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cut off"):
        Heads.from_pretrained(tmp_path / "cut.safetensors")
    save_file({"llm.model.norm.weight": torch.ones(4)}, tmp_path / "base.safetensors")
    with pytest.raises(InputError, match="holds no temp_head or top_p_head"):
        Heads.from_pretrained(tmp_path / "base.safetensors")


def checkpoint(folder: Path, contents: dict[str, bytes], **config) -> Path:
    """A checkpoint folder of the files ``contents``, with config.json if it is to say anything."""
    folder.mkdir()
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_top_p_head_alone_is_not_read_with_an_assumed_width(tmp_path):
    heads = {"heads.safetensors": files.safetensors(files.head_arrays(temperature=False, extra=1))}
    with pytest.raises(InputError, match=r"does not tell the hidden size; put config\.json"):
        Heads.from_pretrained(checkpoint(tmp_path / "unsaid", heads))
    read = Heads.from_pretrained(checkpoint(tmp_path / "said", heads, hidden_size=64))
    assert (read.hidden_size, read.prob_stats, read.temp_head) == (64, False, None)


def test_two_files_with_the_same_tensor_are_refused(tmp_path):
    contents = {f"{seed}.safetensors": files.safetensors(files.head_arrays(seed=seed)) for seed in (1, 2)}
    with pytest.raises(InputError, match=r"2\.safetensors: .* is in another file of the folder too"):
        Heads.from_pretrained(checkpoint(tmp_path / "heads", contents))


def test_the_index_says_which_files_are_read(tmp_path):
    arrays = files.head_arrays(seed=1)
    index = {"weight_map": dict.fromkeys(arrays, "first.safetensors")}
    contents = {
        "first.safetensors": files.safetensors(arrays),
        "second.safetensors": files.safetensors(files.head_arrays(seed=2)),
        "model.safetensors.index.json": json.dumps(index).encode(),
    }
    weights = Heads.from_pretrained(checkpoint(tmp_path / "heads", contents)).state_dict()
    for name, array in arrays.items():
        assert weights[name].tolist() == array.tolist()


def test_a_tensor_of_a_head_that_no_head_has_is_refused(tmp_path):
    arrays = files.head_arrays() | {"temp_head.mlp.4.weight": files.head_arrays()["temp_head.mlp.2.weight"]}
    with pytest.raises(InputError, match=r"'temp_head\.mlp\.4\.weight' is not part of AutoDeco heads"):
        Heads.from_pretrained(checkpoint(tmp_path / "heads", {"heads.safetensors": files.safetensors(arrays)}))


def test_a_file_of_something_else_beside_the_heads_is_passed_over(tmp_path):
    arrays = files.head_arrays()
    contents = {
        "model.safetensors": files.safetensors(arrays),
        "resume.safetensors": files.safetensors({f"average.{name}": array for name, array in arrays.items()}),
    }
    heads = Heads.from_pretrained(checkpoint(tmp_path / "heads", contents))
    assert heads.state_dict()["temp_head.mlp.2.bias"].tolist() == arrays["temp_head.mlp.2.bias"].tolist()


@pytest.mark.parametrize("layout", ["sidecar", "merged", "embedded"])
@pytest.mark.parametrize(("weight_type", "tolerance"), [("f32", 0), ("f16", 1e-3), ("bf16", 1e-2), ("q8_0", 1e-2)])
def test_heads_are_read_from_a_gguf(tmp_path, layout, weight_type, tolerance):
    arrays, path = files.head_arrays(), tmp_path / "out.gguf"
    (tmp_path / "model.gguf").write_bytes(files.model(hidden=64, vocab=1000))
    (tmp_path / "heads.safetensors").write_bytes(files.safetensors(arrays))
    arguments = [tmp_path / "heads.safetensors", "--base", tmp_path / "model.gguf", "--layout", layout]
    assert export_cli.main([*map(str, arguments), "--type", weight_type, "-o", str(path)]) == 0
    heads = Heads.from_pretrained(path)
    assert (heads.hidden_size, heads.prob_stats, heads.base_config) == (64, True, {"vocab_size": 1000})
    for name, tensor in heads.state_dict().items():
        assert tensor.dtype == torch.float32
        # of values spread by 0.05, the largest 0.2: half a step of each type
        torch.testing.assert_close(tensor, torch.from_numpy(arrays[name]), rtol=tolerance / 2, atol=tolerance / 10)


def test_a_damaged_gguf_is_refused_as_exporting_refuses_it(tmp_path, exported):
    (tmp_path / "cut.gguf").write_bytes(exported("f32").read_bytes()[:-100])
    with pytest.raises(InputError, match=r"cut\.gguf: cut off"):
        Heads.from_pretrained(tmp_path / "cut.gguf")
