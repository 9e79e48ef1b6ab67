"""Heads are read from every form they come in, and anything that is not whole is refused in one line."""

import json
import struct

import numpy as np
import pytest

from autodeco.errors import InputError
from autodeco.export.checkpoint import read_heads
from builders import gguf_files as files


@pytest.fixture
def folder(tmp_path):
    """folder(config, **{file name: bytes}) -> path of a checkpoint folder."""

    def write(config=None, contents=None):
        path = tmp_path / "checkpoint"
        path.mkdir(exist_ok=True)
        if config is not None:
            (path / "config.json").write_text(json.dumps(config))
        for name, data in (contents or {}).items():
            (path / name).write_bytes(data)
        return path

    return write


def heads_file(**options) -> dict[str, bytes]:
    return {"heads.safetensors": files.safetensors(files.head_arrays(**options))}


def refusal(path, hidden_size=None) -> str:
    with pytest.raises(InputError) as caught:
        read_heads(path, hidden_size)
    message = str(caught.value)
    assert "\n" not in message
    return message


CONFIG = {"model_type": "autodeco", "hidden_size": 64, "use_enhanced_features": True}


@pytest.mark.parametrize("extra", [1, 5])
def test_a_folder_gives_its_weights_and_the_width_tells_the_statistics(folder, extra):
    arrays = files.head_arrays(extra=extra)
    heads = read_heads(folder(None, {"anything.safetensors": files.safetensors(arrays)}))
    assert heads.hidden_size == 64
    assert heads.prob_stats is (extra == 5)
    for name, array in arrays.items():
        np.testing.assert_array_equal(heads.tensors[name], array)


def test_a_single_file_is_read(folder):
    heads = read_heads(folder(None, heads_file()) / "heads.safetensors")
    assert (heads.hidden_size, heads.has_temperature, heads.has_top_p) == (64, True, True)


def test_bf16_is_widened_exactly(folder):
    arrays = files.head_arrays()
    heads = read_heads(folder(None, {"h.safetensors": files.safetensors(arrays, bf16=True)}))
    for name, array in arrays.items():
        expected = (array.view(np.uint32) & 0xFFFF0000).view(np.float32)
        np.testing.assert_array_equal(heads.tensors[name], expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_f16_and_f64_are_read(folder, dtype):
    arrays = {name: array.astype(dtype) for name, array in files.head_arrays().items()}
    heads = read_heads(folder(None, {"h.safetensors": files.safetensors(arrays)}))
    np.testing.assert_array_equal(
        heads.tensors["temp_head.mlp.0.weight"], arrays["temp_head.mlp.0.weight"].astype("f4")
    )


def test_the_official_merged_checkpoint_gives_its_heads_and_leaves_the_model(folder):
    arrays = files.head_arrays()
    model = {"llm.model.embed_tokens.weight": np.ones((10, 64), np.float32)}
    first = dict(list(arrays.items())[:4])
    second = dict(list(arrays.items())[4:])
    shards = {"model-1.safetensors": {**model, **first}, "model-2.safetensors": second}
    index = {"weight_map": {name: shard for shard, held in shards.items() for name in held}}
    path = folder(
        CONFIG,
        {name: files.safetensors(held) for name, held in shards.items()}
        | {
            "model.safetensors.index.json": json.dumps(index).encode(),
            "left-over.safetensors": b"a file the index does not name is not read",
        },
    )
    heads = read_heads(path, 64)
    assert set(heads.tensors) == set(arrays)
    np.testing.assert_array_equal(heads.tensors["top_p_head.mlp.2.bias"], arrays["top_p_head.mlp.2.bias"])


@pytest.mark.parametrize("name", ["../heads.safetensors", "/etc/passwd", "sub/heads.safetensors", ".."])
def test_an_index_does_not_lead_out_of_its_folder(folder, name):
    index = {"weight_map": {"temp_head.mlp.0.weight": name}}
    path = folder(CONFIG, {"model.safetensors.index.json": json.dumps(index).encode()})
    assert "leads out of the folder" in refusal(path)


@pytest.mark.parametrize("name", ["a\0b", "\0", "\ud800", "a\n.safetensors", "\x1b[31m", "n" * 300])
def test_an_index_names_files_that_can_be(folder, name):
    index = {"weight_map": {"temp_head.mlp.0.weight": name}}
    told = refusal(folder(CONFIG, {"model.safetensors.index.json": json.dumps(index).encode()}))
    assert "is no name of a file" in told or "cannot be read (File name too long)" in told
    assert told.isprintable()


def test_a_tensor_the_index_promises_and_the_file_lacks_is_named(folder):
    index = {"weight_map": dict.fromkeys([*files.head_arrays(), "temp_head.mlp.4.weight"], "heads.safetensors")}
    path = folder(CONFIG, heads_file() | {"model.safetensors.index.json": json.dumps(index).encode()})
    assert "'temp_head.mlp.4.weight' that the index promises" in refusal(path)


@pytest.mark.parametrize("head", ["temperature", "top_p"])
def test_one_head_alone_works(folder, head):
    other = "top_p" if head == "temperature" else "temperature"
    heads = read_heads(folder(CONFIG, heads_file(**{other: False})))
    assert (heads.has_temperature, heads.has_top_p) == (head == "temperature", head == "top_p")
    assert heads.hidden_size == 64
    assert heads.prob_stats is (head == "top_p")


@pytest.mark.parametrize("extra", [1, 5])
def test_a_top_p_head_alone_takes_the_hidden_size_from_the_model(folder, extra):
    heads = read_heads(folder(None, heads_file(temperature=False, extra=extra)), 64)
    assert (heads.hidden_size, heads.prob_stats) == (64, extra == 5)


def test_a_top_p_head_alone_without_any_hint_is_refused(folder):
    assert "put config.json with hidden_size" in refusal(folder(None, heads_file(temperature=False)))


def test_a_head_that_the_config_switches_off_is_left_out_with_a_note(folder):
    heads = read_heads(folder(CONFIG | {"enable_top_p_head": False}, heads_file()))
    assert not heads.has_top_p
    assert heads.notes == ("config.json says enable_top_p_head: false, so the top_p_head is left out",)


CONFIG_LIES = {
    "statistics that are not there": (
        CONFIG,
        {"extra": 1},
        "use_enhanced_features is true but top_p_head.mlp.0.weight",
    ),
    "no statistics where they are": (CONFIG | {"use_enhanced_features": False}, {}, "has 69 columns (with statistics)"),
    "another hidden size": (CONFIG | {"hidden_size": 128}, {}, "has 64 columns but the hidden size is said to be 128"),
    "a hidden size that is no number": (
        CONFIG | {"hidden_size": "64"},
        {},
        "hidden_size: '64', expected a whole number",
    ),
    "a switch that is no switch": (
        CONFIG | {"enable_top_p_head": 1},
        {},
        "enable_top_p_head: 1, expected true or false",
    ),
    "a head that is missing": (CONFIG | {"enable_top_p_head": True}, {"top_p": False}, "there is no top_p_head"),
}


@pytest.mark.parametrize("case", CONFIG_LIES)
def test_a_config_that_the_weights_contradict_is_refused(folder, case):
    config, options, expected = CONFIG_LIES[case]
    assert expected in refusal(folder(config, heads_file(**options)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinite_weights_are_refused(folder, value):
    arrays = files.head_arrays()
    arrays["top_p_head.mlp.0.weight"][7, 3] = value
    path = folder(None, {"h.safetensors": files.safetensors(arrays)})
    assert "top_p_head.mlp.0.weight holds 1 NaN or infinite" in refusal(path)


def test_a_missing_tensor_is_named(folder):
    arrays = files.head_arrays()
    del arrays["temp_head.mlp.2.bias"]
    path = folder(None, {"h.safetensors": files.safetensors(arrays)})
    assert "temp_head.mlp.2.bias is missing" in refusal(path)


def test_an_unknown_tensor_is_named(folder):
    arrays = files.head_arrays() | {"temp_head.mlp.4.weight": np.ones((1, 1), np.float32)}
    path = folder(None, {"h.safetensors": files.safetensors(arrays)})
    assert "'temp_head.mlp.4.weight' is not part of AutoDeco heads" in refusal(path)


def test_a_file_without_heads_is_passed_over_in_a_folder_and_refused_alone(folder):
    other = files.safetensors({"optimizer.step": np.ones(1, np.float32)})
    path = folder(None, heads_file() | {"optimizer.safetensors": other})
    assert set(read_heads(path).tensors) == set(files.head_arrays())
    assert "holds no temp_head or top_p_head" in refusal(path / "optimizer.safetensors")


def test_a_tensor_in_two_files_is_refused(folder):
    data = files.safetensors(files.head_arrays())
    assert "in another file of the folder too" in refusal(folder(None, {"a.safetensors": data, "b.safetensors": data}))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("temp_head.mlp.0.weight", (128, 64)),
        ("temp_head.mlp.0.bias", (255,)),
        ("top_p_head.mlp.2.weight", (256, 1)),
        ("top_p_head.mlp.2.bias", (1, 1)),
    ],
)
def test_a_misshapen_tensor_is_named_with_its_shape(folder, name, shape):
    arrays = files.head_arrays() | {name: np.zeros(shape, np.float32)}
    message = refusal(folder(None, {"h.safetensors": files.safetensors(arrays)}))
    assert f"{name} has shape {list(shape)}" in message


@pytest.mark.parametrize("extra", [2, 4, 6])
def test_another_number_of_statistics_is_refused(folder, extra):
    assert f"has {64 + extra} columns" in refusal(folder(None, heads_file(extra=extra)))


def test_a_folder_without_safetensors_and_a_missing_path_are_refused(folder, tmp_path):
    assert "holds no *.safetensors" in refusal(folder())
    assert "No such file" in refusal(tmp_path / "absent")


@pytest.mark.parametrize("config", ["[1]", "{", '{"a": 1, "a": 2}', "[" * 100_000, "\xff"])
def test_a_broken_config_is_refused(folder, config):
    path = folder(None, heads_file())
    (path / "config.json").write_text(config, encoding="latin-1")
    assert "config.json" in refusal(path)


def test_every_cut_of_a_safetensors_file_is_refused(folder):
    path = folder() / "h.safetensors"
    data = files.safetensors(files.head_arrays())
    for length in (0, 4, 7, 8, 9, 500, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        assert "not a safetensors file" in (message := refusal(path)) or "cut off" in message


F32 = "F32"
LIES = {
    "an offset past the end": {"data_offsets": [0, 1 << 60], "shape": [1 << 58], "dtype": F32},
    "a shape that does not fill its bytes": {"data_offsets": [0, 256], "shape": [65], "dtype": F32},
    "a shape of 2^60 x 0": {"data_offsets": [0, 256], "shape": [1 << 60, 0], "dtype": F32},
    "a negative extent": {"data_offsets": [0, 256], "shape": [-64], "dtype": F32},
    "an extent that is no number": {"data_offsets": [0, 256], "shape": ["64"], "dtype": F32},
    "a shape that is true": {"data_offsets": [0, 4], "shape": [True], "dtype": F32},
    "an unknown dtype": {"data_offsets": [0, 256], "shape": [64], "dtype": "F31"},
    "offsets the wrong way": {"data_offsets": [256, 0], "shape": [64], "dtype": F32},
    "overlapping offsets": {"data_offsets": [0, 256], "shape": [64], "dtype": F32},
    "no offsets": {"shape": [64], "dtype": F32},
    "a list": [1, 2],
}


@pytest.mark.parametrize("case", LIES)
def test_a_safetensors_header_that_lies_is_refused(folder, case):
    data = files.safetensors(files.head_arrays(), about={"temp_head.mlp.9.weight": LIES[case]})
    assert "fetch the file again" in refusal(folder(None, {"h.safetensors": data}))


def test_an_integer_tensor_is_refused(folder):
    arrays = files.head_arrays() | {"temp_head.mlp.2.bias": np.zeros(1, np.int64)}
    assert "is I64" in refusal(folder(None, {"h.safetensors": files.safetensors(arrays)}))


def test_a_header_length_of_2_to_the_60_is_refused_without_reading(folder):
    path = folder(None, {"h.safetensors": struct.pack("<Q", 1 << 60) + b"{}"})
    assert "said to be" in refusal(path)


def test_heads_far_larger_than_any_are_refused_before_they_are_read(folder):
    entry = {"dtype": "F32", "shape": [256, 1 << 17], "data_offsets": [0, 256 << 19]}
    text = json.dumps({"temp_head.mlp.0.weight": entry}).encode()
    path = folder() / "h.safetensors"
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + (256 << 19))  # sparse: takes no room
    assert "far more than a head" in refusal(path)
