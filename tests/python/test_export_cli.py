"""autodeco-export and `autodeco inspect`: what a user types, reads, and is told when it cannot work."""

import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from autodeco.export import cli, progress, writer
from autodeco.export.layout import open_layout
from builders import gguf_files as files
from builders.inspecting import lines, run_inspect


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """A folder, made current, with model.gguf and heads.safetensors."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.gguf").write_bytes(files.model())
    (tmp_path / "heads.safetensors").write_bytes(files.safetensors(files.head_arrays()))
    return tmp_path


@pytest.fixture
def fails(capsys, inputs):
    """fails(*arguments) -> the one line on stderr; checks the exit code and that no file appeared."""

    def check(*arguments):
        before = sorted(inputs.rglob("*"))
        assert cli.main([str(argument) for argument in arguments]) == 2
        message = capsys.readouterr().err
        assert message.startswith("autodeco-export: error: ")
        assert message.count("\n") == 1
        assert sorted(inputs.rglob("*")) == before
        return message

    return check


def test_sidecar_is_the_default_and_its_name_is_the_model_s(inputs, capsys):
    assert cli.main(["heads.safetensors", "--base", "model.gguf"]) == 0
    assert open_layout("model_f16_heads.autodeco").kind == "sidecar"
    said = capsys.readouterr().out
    assert "wrote model_f16_heads.autodeco (0.1 MB): temperature and top-p heads, f16, for Tiny" in said
    assert "autodeco.Llama('model.gguf', 'model_f16_heads.autodeco')" in said


def test_merge_and_split(inputs, capsys):
    assert cli.main(["heads.safetensors", "--base", "model.gguf", "--layout", "merged", "--type", "q8_0"]) == 0
    assert open_layout("model_merged.autodeco").kind == "merged"
    assert cli.main(["--split", "model_merged.autodeco", "-o", "parts"]) == 0
    assert (inputs / "parts" / "base.gguf").read_bytes() == (inputs / "model.gguf").read_bytes()
    assert open_layout("parts/heads.gguf").kind == "sidecar"
    assert "byte for byte" in capsys.readouterr().out


def test_heads_in_gguf_are_exported_to_another_type_and_layout(inputs):
    def run(*arguments):
        assert cli.main(list(arguments)) == 0

    run("heads.safetensors", "--base", "model.gguf", "--type", "f32", "-o", "f32.gguf")
    run("f32.gguf", "--type", "q8_0", "-o", "q8_0.gguf")
    run("f32.gguf", "--base", "model.gguf", "--layout", "merged", "--type", "f32", "-o", "merged.gguf")
    run("merged.gguf", "--type", "q8_0", "-o", "again.gguf")
    run("heads.safetensors", "--base", "model.gguf", "--type", "q8_0", "-o", "direct.gguf")
    direct = (inputs / "direct.gguf").read_bytes()
    assert (inputs / "q8_0.gguf").read_bytes() == direct
    assert (inputs / "again.gguf").read_bytes() == direct


def test_what_the_file_says_about_itself(inputs):
    about = ["--name", "Mine", "--author", "Me", "--license", "mit", "--url", "https://example.org"]
    for kind in ("sidecar", "merged", "embedded"):
        assert cli.main(["heads.safetensors", "--base", "model.gguf", "--layout", kind, "-o", "out.gguf", *about]) == 0
        layout = open_layout("out.gguf")
        found = [layout.gguf.get(f"general.{key}") for key in ("name", "author", "license", "url")]
        assert found == ["Mine", "Me", "mit", "https://example.org"]
        assert layout.base_name == "Tiny"


def test_missing_files(fails):
    assert "absent.gguf: cannot be read (No such file" in fails("heads.safetensors", "--base", "absent.gguf")
    assert "absent: cannot be read (No such file" in fails("absent", "--base", "model.gguf")
    assert "absent.gguf" in fails("--split", "absent.gguf", "-o", "parts")


def test_what_is_not_given_is_named(fails):
    assert "give HEADS and --base" in fails()
    assert "needs a model: give it with --base" in fails("heads.safetensors")
    assert "say where base.gguf and heads.gguf go: -o DIR" in fails("--split", "model.gguf")
    assert "takes no HEADS" in fails("heads.safetensors", "--split", "model.gguf", "-o", "parts")


def test_a_base_that_is_no_gguf(fails):
    assert "heads.safetensors: not a GGUF file" in fails("heads.safetensors", "--base", "heads.safetensors")


def test_heads_that_are_a_model_and_a_base_that_is_heads(fails, inputs):
    assert "model.gguf: holds no AutoDeco heads" in fails("model.gguf", "--base", "model.gguf")
    assert cli.main(["heads.safetensors", "--base", "model.gguf", "-o", "sidecar.gguf"]) == 0
    assert "sidecar.gguf: holds heads but no model" in fails("heads.safetensors", "--base", "sidecar.gguf")
    assert "sidecar.gguf: holds heads but no model" in fails("sidecar.gguf", "--layout", "merged")


def test_heads_of_another_width(fails, inputs):
    (inputs / "wide.gguf").write_bytes(files.model(hidden=96))
    message = fails("heads.safetensors", "--base", "wide.gguf")
    assert "heads.safetensors: the heads are for a hidden size of 64, wide.gguf has 96" in message


def test_heads_of_another_vocabulary(fails, inputs):
    (inputs / "other.gguf").write_bytes(files.model(vocab=999))
    assert cli.main(["heads.safetensors", "--base", "model.gguf", "-o", "sidecar.gguf"]) == 0
    message = fails("sidecar.gguf", "--base", "other.gguf", "-o", "out.gguf")
    assert "a vocabulary of 1000 tokens, other.gguf has 999" in message


def test_truncated_heads(fails, inputs):
    data = (inputs / "heads.safetensors").read_bytes()
    (inputs / "cut.safetensors").write_bytes(data[:-100])
    assert "cut.safetensors: cut off" in fails("cut.safetensors", "--base", "model.gguf")


def test_nan_weights(fails, inputs):
    arrays = files.head_arrays()
    arrays["temp_head.mlp.2.weight"][0, 9] = np.nan
    (inputs / "nan.safetensors").write_bytes(files.safetensors(arrays))
    assert "nan.safetensors: temp_head.mlp.2.weight holds 1 NaN" in fails("nan.safetensors", "--base", "model.gguf")


def test_an_output_that_cannot_be_written_is_told_before_the_model_is_read(fails):
    arguments = ["heads.safetensors", "--base", "model.gguf"]
    message = fails(*arguments, "--check", "-o", "no/out.gguf")
    assert "no/out.gguf: cannot be written, there is no folder no; make it first" in message
    for path in ("heads.safetensors", "model.gguf"):
        assert f"{path}: is read to make the new file; choose another -o" in fails(*arguments, "-o", path)


def test_a_device_is_not_replaced_by_a_file(inputs, fails):
    os.mkfifo("pipe")
    for layout in ("sidecar", "merged", "embedded"):
        message = fails("heads.safetensors", "--base", "model.gguf", "--layout", layout, "-o", "pipe")
        assert "pipe: is no file, so none is put in its place; choose another -o" in message


@pytest.mark.parametrize("arguments", [["--type", "q4"], ["--nonsense"], ["--layout"]])
def test_a_wrong_argument_is_told_in_one_line(inputs, capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main(["heads.safetensors", "--base", "model.gguf", *arguments])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("autodeco-export: error: ")
    assert error.endswith("; see --help\n")
    assert error.count("\n") == 1


def test_an_output_that_is_a_folder_gets_the_file_by_its_usual_name(inputs):
    (inputs / "out").mkdir()
    assert cli.main(["heads.safetensors", "--base", "model.gguf", "--layout", "merged", "-o", "out"]) == 0
    assert [path.name for path in (inputs / "out").iterdir()] == ["model_merged.autodeco"]


def test_a_terminal_is_shown_how_far_it_has_come(inputs, capsys, monkeypatch):
    arguments = ["heads.safetensors", "--base", "model.gguf", "--layout", "merged"]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert cli.main(arguments) == 0
    assert "model_merged.autodeco:   0%" in capsys.readouterr().err


def test_the_growth_of_a_file_that_another_program_writes_is_shown(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "LOOKS_PER_SECOND", 50)
    with progress.growth_bar("converting", tmp_path / "part", 1000):
        time.sleep(0.1)
        (tmp_path / "part").write_bytes(bytes(500))
        time.sleep(0.5)
    assert "converting:  50%" in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["sidecar", "merged", "embedded"])
def test_a_full_disk_leaves_no_file_and_the_old_one_intact(inputs, layout):
    (inputs / "out.gguf").write_bytes(b"the old file")
    code = "import sys; from autodeco.export.cli import main; sys.exit(main(sys.argv[1:]))"
    limit = 60_000  # below the size of the heads, so that writing fails half-way
    result = subprocess.run(
        [sys.executable, "-c", code, "heads.safetensors", "--base", "model.gguf", "--layout", layout, "-o", "out.gguf"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2, result.stderr
    assert "out.gguf: cannot be written (File too large); check the folder and the free space" in result.stderr
    assert result.stderr.count("\n") == 1
    assert (inputs / "out.gguf").read_bytes() == b"the old file"
    assert sorted(os.listdir()) == ["heads.safetensors", "model.gguf", "out.gguf"]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_leaves_no_file_and_the_old_one_intact(inputs, monkeypatch, sent, code):
    (inputs / "out.gguf").write_bytes(b"the old file")

    def interrupted(*_):
        assert any(name.endswith(".part") for name in os.listdir()), "nothing was being written"
        os.kill(os.getpid(), sent)
        signal.pause()

    monkeypatch.setattr(writer, "copy_range", interrupted)
    assert cli.main(["heads.safetensors", "--base", "model.gguf", "--layout", "merged", "-o", "out.gguf"]) == code
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert (inputs / "out.gguf").read_bytes() == b"the old file"
    assert sorted(os.listdir()) == ["heads.safetensors", "model.gguf", "out.gguf"]


def test_inspect_says_what_each_kind_of_file_is(inputs, capsys):
    for layout in ("sidecar", "merged", "embedded"):
        assert cli.main(["heads.safetensors", "--base", "model.gguf", "--layout", layout, "-o", f"{layout}.gguf"]) == 0
    capsys.readouterr()
    assert run_inspect("model.gguf") == 0
    plain = lines(capsys)
    assert plain["kind"] == "a model without heads"
    assert (plain["hidden size"], plain["vocabulary"], plain["name"]) == ("64", "1000", "Tiny")
    assert run_inspect("sidecar.gguf") == 0
    sidecar = lines(capsys)
    assert sidecar["kind"] == "heads for a model (sidecar)"
    assert sidecar["top-p head"] == "yes, with probability statistics"
    assert sidecar["base fingerprint"] == plain["fingerprint"]
    assert run_inspect("merged.gguf") == 0
    assert lines(capsys)["base file"].startswith(f"{len(files.model())} bytes at offset ")


def test_inspect_compares_heads_with_a_model(inputs, capsys):
    (inputs / "other.gguf").write_bytes(files.model(seed=3, name="Other"))
    (inputs / "wide.gguf").write_bytes(files.model(hidden=96))
    assert cli.main(["heads.safetensors", "--base", "model.gguf", "-o", "sidecar.gguf"]) == 0
    capsys.readouterr()
    assert run_inspect("sidecar.gguf", "--base", "model.gguf") == 0
    assert lines(capsys)["fits"] == "yes: exported for model.gguf"
    assert run_inspect("sidecar.gguf", "--base", "other.gguf") == 1
    assert lines(capsys)["fits"].startswith("by shape only: sidecar.gguf: the heads were exported for Tiny")
    assert run_inspect("sidecar.gguf", "--base", "wide.gguf") == 1
    assert "hidden size of 64" in lines(capsys)["fits"]


def test_inspect_refuses_bad_files_in_one_line(inputs, capsys):
    for name, data in (("text.gguf", b"hello"), ("cut.gguf", files.model()[:500])):
        (inputs / name).write_bytes(data)
        assert run_inspect(name) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"autodeco: error: {name}: ")
        assert error.count("\n") == 1


def test_inspect_prints_no_control_characters_of_the_file(inputs, capsys):
    (inputs / "evil.gguf").write_bytes(files.model(name="\x1b[2Jgone [bold]"))
    assert run_inspect("evil.gguf") == 0
    assert "?[2Jgone [bold]" in capsys.readouterr().out
