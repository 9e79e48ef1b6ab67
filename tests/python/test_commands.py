"""The commands as a user types them, in a process of their own."""

import json
import subprocess
import sys

import pytest

from autodeco import __version__
from autodeco.export import cli as export_cli
from builders import gguf_files as files
from builders.commands import autodeco, refused


def test_it_tells_its_version():
    assert autodeco("--version").stdout == f"autodeco {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "program"),
    [
        ((), "autodeco"),
        (("frob",), "autodeco"),
        (("bench", "-n", "x"), "autodeco bench"),
        (("inspect", "x", "--y"), "autodeco"),
    ],
)
def test_a_wrong_argument_is_told_in_one_line(arguments, program):
    result = autodeco(*arguments)
    assert result.returncode == 2
    assert result.stderr.startswith(f"{program}: error: ")
    assert result.stderr.endswith("; see --help\n")
    assert result.stderr.count("\n") == 1


def test_generate_streams_text_and_sums_up(smollm2, exported):
    arguments = ["generate", "-m", smollm2, "--heads", exported(), "-n", 12, "--seed", 1, "--threads", 1]
    result = autodeco(*arguments, "The capital of France is")
    assert result.returncode == 0, result.stderr
    assert "Paris" in result.stdout
    assert "12 tokens; temperature 0." in result.stderr
    assert autodeco(*arguments, stdin="The capital of France is").stdout == result.stdout


def test_generate_colours_tokens_without_changing_the_text(smollm2, exported, monkeypatch):
    both = exported("f16", "embedded")
    arguments = ["generate", "-m", both, "-n", 8, "--seed", 1, "--threads", 1, "One, two, three,"]
    plain = autodeco(*arguments)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "truecolor")
    colored = autodeco(*arguments, "--show", "top-p")
    assert "\x1b[38;2;" in colored.stdout
    assert "top-p:" in colored.stderr
    without_escapes = "".join(part.split("m", 1)[-1] for part in ("m" + colored.stdout).split("\x1b["))
    assert without_escapes == plain.stdout


def test_generate_chats(smollm2, exported):
    result = autodeco(
        "generate", "-m", smollm2, "--heads", exported(), "--chat", "--system", "Be brief.", "-n", 8, "Say hello."
    )
    assert result.returncode == 0, result.stderr
    assert "ello" in result.stdout


def test_generate_names_what_is_wrong(smollm2, exported, tmp_path):
    assert "none.gguf: no such file" in refused("generate", "-m", tmp_path / "none.gguf", "hello")
    (tmp_path / "text.gguf").write_text("hello")
    assert "text.gguf: not a GGUF file" in refused("generate", "-m", tmp_path / "text.gguf", "hello")
    assert "none.gguf: " in refused("generate", "-m", smollm2, "--heads", tmp_path / "none.gguf", "hello")
    assert "holds heads only" in refused("generate", "-m", exported(), "hello")
    assert "nothing to --show" in refused("generate", "-m", smollm2, "--show", "top-p", "hello")
    assert "the prompt is empty" in refused("generate", "-m", smollm2)
    assert "fills the context" in refused("generate", "-m", smollm2, "--context", 64, "word " * 300)
    assert "a folder" in refused("generate", "-m", tmp_path, "hello")
    assert "a folder, no heads file" in refused("generate", "-m", smollm2, "--heads", tmp_path, "hello")
    assert "trained on 8192 tokens" in refused("generate", "-m", smollm2, "--context", 2_000_000_000, "hello")
    short = tmp_path / "short.gguf"
    short.write_bytes(smollm2.read_bytes()[:50_000_000])
    assert "short.gguf: " in refused("generate", "-m", short, "hello")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-n", 0], "max-tokens 0: must be at least 1"),
        (["--temperature", -1], "temperature -1.0: must be between 0.0"),
        (["--temperature", "nan"], "temperature nan"),
        (["--top-p", -1], "top-p -1.0"),
        (["--top-k", -1], "top-k -1"),
        (["--min-p", 2], "min-p 2.0: must be between 0.0 and 1.0"),
        (["--repeat-penalty", 0], "repeat-penalty 0.0"),
        (["--context", -5], "context -5"),
        (["--threads", 0], "threads 0: must be between 1 and 512"),
        (["--threads", 100_000], "threads 100000"),
        (["--gpu-layers", -2], "gpu-layers -2"),
        (["--seed", 2**32], "seed 4294967296"),
    ],
    ids=str,
)
def test_generate_names_values_that_make_no_sense(smollm2, exported, arguments, message):
    assert message in refused("generate", "-m", smollm2, "--heads", exported(), *arguments, "hello")


def test_generate_warns_of_the_heads_of_another_model_in_one_line(smollm2, tmp_path):
    (tmp_path / "other.gguf").write_bytes(files.model(hidden=576, vocab=49152))
    (tmp_path / "other.safetensors").write_bytes(files.safetensors(files.head_arrays(hidden=576)))
    heads = tmp_path / "heads.gguf"
    arguments = [tmp_path / "other.safetensors", "--base", tmp_path / "other.gguf", "-o", heads]
    assert export_cli.main([str(argument) for argument in arguments]) == 0
    result = autodeco("generate", "-m", smollm2, "--heads", heads, "-n", 2, "hello")
    assert result.returncode == 0, result.stderr
    warning, summary = result.stderr.splitlines()
    assert warning.startswith(f"autodeco: warning: {heads}: the heads were exported for Tiny")
    assert summary.startswith("2 tokens; ")


def test_inspect_names_what_is_wrong_before_it_says_anything(smollm2, exported, tmp_path):
    (tmp_path / "text.gguf").write_text("hello")
    for arguments, message in (
        ([tmp_path / "none.gguf"], "none.gguf: cannot be read"),
        ([tmp_path], "cannot be read (Is a directory)"),
        ([tmp_path / "text.gguf"], "text.gguf: not a GGUF file"),
        ([exported(), "--base", tmp_path / "none.gguf"], "none.gguf: cannot be read"),
        ([exported(), "--base", exported("f32")], "holds no model"),
        ([smollm2, "--base", smollm2], "holds no heads to compare"),
    ):
        assert message in refused("inspect", *arguments)
        assert autodeco("inspect", *arguments).stdout == ""


def test_a_missing_optional_package_is_named(tmp_path):
    code = "import sys; sys.modules['torch'] = None; from autodeco.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "train", tmp_path, "-o", tmp_path / "heads"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == "autodeco: error: this needs the package torch: pip install 'autodeco[train]'\n"


def test_bench_measures_in_turn_and_writes_json(smollm2, exported, tmp_path):
    output = tmp_path / "bench.json"
    arguments = ["--heads", exported(), "-n", 4, "--rounds", 2, "--threads", 1, "-o", output]
    result = autodeco("bench", smollm2, *arguments)
    assert result.returncode == 0, result.stderr
    figures = json.loads(output.read_text())
    assert {name: len(rates) for name, rates in figures["tokens_per_second"].items()} == {
        "stock_static": 2,
        "stock_defaults": 2,
        "autodeco": 2,
    }
    assert figures["ratio_over_static"] == pytest.approx(
        figures["median"]["autodeco"] / figures["median"]["stock_static"], rel=1e-3
    )
    assert "has no heads" in refused("bench", smollm2)
    assert "tokens 0" in refused("bench", smollm2, "--heads", exported(), "-n", 0)
    assert "rounds 0" in refused("bench", smollm2, "--heads", exported(), "--rounds", 0)
    assert "threads -1" in refused("bench", smollm2, "--heads", exported(), "--threads", -1)
    assert "cannot be written" in refused("bench", smollm2, "--heads", exported(), "-o", tmp_path / "none" / "x.json")
