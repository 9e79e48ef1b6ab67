"""The control head: what a level does, and that every file of heads keeps it."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from builders import gguf_files as files

torch = pytest.importorskip("torch")
from autodeco.errors import InputError  # noqa: E402
from autodeco.export import cli  # noqa: E402
from autodeco.export.checkpoint import read_heads  # noqa: E402
from autodeco.export.control_ends import END_KEYS, ControlEnds  # noqa: E402
from autodeco.export.head_tensors import head_tensors  # noqa: E402
from autodeco.export.layout import open_layout  # noqa: E402
from autodeco.export.writer import write_sidecar  # noqa: E402
from autodeco.heads import Heads  # noqa: E402
from builders.inspecting import lines, run_inspect  # noqa: E402

ENDS = ControlEnds(0.2, 1.25, 0.5, 0.99, 0.25)
LAYOUTS = ("sidecar", "merged", "embedded")


def random_heads(hidden=64, seed=3) -> Heads:
    torch.manual_seed(seed)
    heads = Heads(hidden, control=ENDS)
    for parameter in heads.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return heads


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """A folder with model.gguf and heads/, which have a control head."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.gguf").write_bytes(files.model())
    random_heads().save_pretrained(tmp_path / "heads")
    return tmp_path


def with_argument(u: float) -> Heads:
    """Heads whose control head has the argument ``u`` of its sigmoid everywhere."""
    heads = Heads(8, control=ENDS)
    torch.nn.init.constant_(heads.control_head.mlp[2].bias, u)
    return heads


@pytest.mark.parametrize(
    ("u", "level"), [(0.0, 0.0), (0.5, 0.0), (-0.5, 0.0), (math.log(3), 1 / 3), (-math.log(3), -1 / 3), (9.0, 0.99967)]
)
def test_the_level_is_what_is_read_beyond_the_dead_zone(u, level):
    # 2 sigmoid(ln 3) - 1 = 0.5, and (0.5 - 0.25) / 0.75 = 1/3
    found = with_argument(u).level(torch.randn(3, 2, 8))
    torch.testing.assert_close(found, torch.full((3, 2), level), rtol=1e-4, atol=1e-6)


def test_levels_steer_between_the_ends():
    temperature, top_p = torch.tensor([0.5, 1.5, 0.5, 0.5, 1.5]), torch.tensor([0.9, 0.995, 0.9, 0.9, 0.995])
    level = torch.tensor([-1.0, 1.0, 1.0, -0.5, -0.5])
    t, p = random_heads().steered(temperature, top_p, level)
    torch.testing.assert_close(t, torch.tensor([0.1, 1.5, 1.25, 0.3, 0.9]))
    torch.testing.assert_close(p, torch.tensor([0.45, 0.995, 0.99, 0.675, 0.74625]))


def test_level_0_changes_no_bit():
    temperature, top_p = torch.rand(1000) * 2, torch.rand(1000)
    t, p = random_heads().steered(temperature, top_p, torch.zeros(1000))
    assert torch.equal(t, temperature)
    assert torch.equal(p, top_p)


def test_heads_without_a_control_head_read_no_level_and_steer_nothing():
    heads, hidden = Heads(8), torch.randn(5, 8)
    assert heads.level(hidden).tolist() == [0.0] * 5
    assert heads.steered(1.0, 0.5, -1.0) == (1.0, 0.5)
    with pytest.raises(InputError, match="steers both"):
        Heads(8, top_p=False, control=ENDS)


def test_what_heads_predict_is_the_same_without_their_control_head():
    heads = random_heads()
    hidden, logits = torch.randn(5, 64), torch.randn(5, 50)
    for one, other in zip(heads(hidden, logits), heads.without_control()(hidden, logits), strict=True):
        assert torch.equal(one, other)
    assert heads.without_control().control_head is None
    assert heads.control_head is not None


def test_the_digest_tells_other_ends_and_other_control_weights():
    heads = random_heads()
    again, other = random_heads(), random_heads()
    other.control = ControlEnds(**asdict(ENDS) | {"dead_zone": 0.5})
    moved = random_heads()
    with torch.no_grad():
        moved.control_head.mlp[2].bias += 1
    assert heads.digest == again.digest
    assert len({each.digest for each in (heads, other, moved, heads.without_control())}) == 4


def test_moved_heads_steer_as_before():
    heads, hidden = random_heads(), torch.randn(5, 64)
    assert torch.equal(heads.moved(0.5, 0.5).level(hidden), heads.level(hidden))


def test_saved_heads_read_back_the_same(inputs):
    heads, again, hidden = random_heads(), Heads.from_pretrained("heads"), torch.randn(7, 64)
    assert again.control == ENDS
    assert torch.equal(again.level(hidden), heads.level(hidden))
    assert heads.level(hidden).abs().max() > 0.1
    assert again.digest == heads.digest
    config = json.loads((inputs / "heads" / "config.json").read_text())
    assert (config["enable_control_head"], config["control"]) == (True, asdict(ENDS))


def test_heads_without_control_are_written_as_ever(tmp_path):
    """Byte for byte, in version 1."""
    random_heads().without_control().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert not {"control", "enable_control_head"} & config.keys()
    (tmp_path / "model.gguf").write_bytes(files.model())
    base = open_layout(tmp_path / "model.gguf")
    write_sidecar(tmp_path / "heads.gguf", head_tensors(read_heads(tmp_path), "f16"), base)
    layout = open_layout(tmp_path / "heads.gguf")
    assert layout.gguf.u32("autodeco.version") == 1
    assert layout.control is None
    assert not [key for key in layout.gguf.keys if key.startswith("autodeco.control")]


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_file_keeps_the_control_head(inputs, layout, kind):
    given = ["heads", "--base", "model.gguf", "--layout", layout, "--type", kind, "--sampling", "none"]
    assert cli.main([*given, "-o", "out.gguf"]) == 0
    opened = open_layout("out.gguf")
    assert opened.control == ENDS
    assert opened.heads.u32("autodeco.version") == 2
    assert {name: opened.heads.f32(key) for name, key in END_KEYS.items()} == pytest.approx(asdict(ENDS))
    read, hidden = Heads.from_pretrained("out.gguf"), torch.randn(9, 64)
    close = {"f32": 0, "f16": 1e-2, "bf16": 5e-2, "q8_0": 1e-2}[kind]
    torch.testing.assert_close(read.level(hidden), random_heads().level(hidden), rtol=0, atol=close)


@pytest.mark.parametrize("layout", ["merged", "embedded"])
def test_splitting_gives_the_control_head_back(inputs, layout):
    given = ["heads", "--base", "model.gguf", "--sampling", "none"]
    assert cli.main([*given, "-o", "sidecar.gguf"]) == 0
    assert cli.main([*given, "--layout", layout, "-o", "both.gguf"]) == 0
    assert cli.main(["--split", "both.gguf", "-o", "parts"]) == 0
    assert (inputs / "parts" / "heads.gguf").read_bytes() == (inputs / "sidecar.gguf").read_bytes()
    assert (inputs / "parts" / "base.gguf").read_bytes() == (inputs / "model.gguf").read_bytes()


def test_heads_out_of_a_gguf_are_exported_again(inputs):
    assert cli.main(["heads", "--base", "model.gguf", "--type", "f32", "-o", "first.gguf"]) == 0
    assert cli.main(["first.gguf", "--base", "model.gguf", "--type", "f32", "-o", "second.gguf"]) == 0
    assert (inputs / "first.gguf").read_bytes() == (inputs / "second.gguf").read_bytes()


def test_export_and_inspect_say_what_a_control_head_does(inputs, capsys):
    assert cli.main(["heads", "--base", "model.gguf", "-o", "out.gguf"]) == 0
    assert "temperature, top-p and control heads, f16, for Tiny" in capsys.readouterr().out
    assert run_inspect("out.gguf") == 0
    said = lines(capsys)
    assert said["control head"] == "yes, levels up to 0.25 count as none"
    assert said["at level -1"] == "T x 0.2, P x 0.5"
    assert said["at level 1"] == "T 1.25, P 0.99, or more"


def refused(**changes) -> str:
    path = "heads/config.json"
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    config |= {"control": config["control"] | changes}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    with pytest.raises(InputError) as caught:
        Heads.from_pretrained("heads")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("low_temperature_factor", 1.5, "from 0 to 1"),
        ("low_temperature_factor", -0.1, "from 0 to 1"),
        ("high_temperature", 2, "above 0 and below 2"),
        ("high_temperature", float("nan"), "above 0 and below 2"),
        ("high_temperature", 10**400, "above 0 and below 2"),
        ("low_top_p_factor", float("inf"), "from 0 to 1"),
        ("high_top_p", 0.99999999999, "above 0 and below 1"),  # 1 in float32
        ("dead_zone", 1.0, "from 0 to below 1"),
        ("dead_zone", True, "expected a number"),
        ("dead_zone", "0.1", "expected a number"),
        ("more", 0.1, "its control must hold"),
    ],
)
def test_a_folder_with_impossible_ends_is_refused(inputs, name, value, said):
    assert said in refused(**{name: value})


def test_a_folder_that_lacks_what_a_control_head_needs_is_refused(inputs):
    config = json.loads((inputs / "heads" / "config.json").read_text())
    arrays = {name: tensor.numpy() for name, tensor in random_heads().state_dict().items()}

    def why(config: dict, arrays: dict[str, np.ndarray]) -> str:
        (inputs / "heads" / "config.json").write_text(json.dumps(config))
        (inputs / "heads" / "model.safetensors").write_bytes(files.safetensors(arrays))
        with pytest.raises(InputError) as caught:
            read_heads("heads")
        return str(caught.value)

    assert "but not what it steers to" in why({k: v for k, v in config.items() if k != "control"}, arrays)
    assert "its control must hold" in why(config | {"control": None}, arrays)
    one = {name: array for name, array in arrays.items() if not name.startswith("top_p")}
    assert "a control head steers both" in why(config | {"enable_top_p_head": False}, one)
    cut = {name: array for name, array in arrays.items() if name != "control_head.mlp.2.bias"}
    assert "control_head.mlp.2.bias is missing" in why(config, cut)
    none = {name: array for name, array in arrays.items() if not name.startswith("control")}
    assert "enable_control_head: true but there is no control_head" in why(config, none)
    wide = arrays | {"control_head.mlp.0.weight": np.zeros((256, 65), np.float32)}
    assert "control_head.mlp.0.weight has shape [256, 65]" in why(config, wide)
    bad = arrays | {"control_head.mlp.2.bias": np.full(1, np.nan, np.float32)}
    assert "control_head.mlp.2.bias holds 1 NaN" in why(config, bad)


def test_a_control_head_that_is_switched_off_is_left_out(inputs):
    path = inputs / "heads" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"enable_control_head": False}))
    heads = read_heads("heads")
    assert not heads.has_control
    assert heads.control is None
    assert heads.notes == ("config.json says enable_control_head: false, so the control_head is left out",)


def lying(path, old: bytes, new: bytes) -> str:
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))
    with pytest.raises(InputError) as caught:
        read_heads(path)
    return str(caught.value)


def f32(name: str, value: float) -> bytes:
    return files.key(f"autodeco.control.{name}", files.F32, value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            files.key("autodeco.version", files.U32, 2),
            files.key("autodeco.version", files.U32, 1),
            "is not in schema version 1",
        ),
        (
            files.key("autodeco.version", files.U32, 2),
            files.key("autodeco.version", files.U32, 3),
            "schema version 3, this program reads 1 and 2",
        ),
        (f32("dead_zone", 0.25), f32("dead_zonf", 0.25), "the key autodeco.control.dead_zone is missing"),
        (f32("dead_zone", 0.25), f32("dead_zone", float("nan")), "dead_zone is nan"),
        (f32("high_temperature", 1.25), f32("high_temperature", 2.5), "high_temperature is 2.5"),
        (f32("dead_zone", 0.25), files.key("autodeco.control.dead_zone", files.U32, 0), "is not a float of 32 bits"),
        (
            files.string("autodeco.control_head.2.bias"),
            files.string("notdeco_.control_head.2.bias"),
            "autodeco.control_head.2.bias is missing",
        ),
    ],
)
def test_a_sidecar_that_lies_about_its_control_head_is_refused(inputs, old, new, said):
    assert cli.main(["heads", "--base", "model.gguf", "-o", "out.gguf"]) == 0
    assert said in lying(inputs / "out.gguf", old, new)


def test_version_2_without_a_control_head_is_refused(inputs):
    random_heads().without_control().save_pretrained("plain")
    assert cli.main(["plain", "--base", "model.gguf", "-o", "out.gguf"]) == 0
    one, two = (files.key("autodeco.version", files.U32, version) for version in (1, 2))
    assert "the key autodeco.control.low_temperature_factor is missing" in lying(inputs / "out.gguf", one, two)


def test_a_control_head_is_not_written_without_its_ends(inputs):
    tensors = list(head_tensors(read_heads("heads"), "f16"))
    with pytest.raises(ValueError, match="written together"):
        write_sidecar(inputs / "out.gguf", tensors, open_layout("model.gguf"))
    assert not (inputs / "out.gguf").exists()
