"""What comes from files drives no terminal: one function in Python, one in C++, every program that prints it."""

import re
import shutil
import subprocess
import warnings

import pytest

import autodeco
from autodeco import cli as autodeco_cli
from autodeco.errors import InputError
from autodeco.export import cli as export_cli
from autodeco.settings.program import Parser
from autodeco.terminal import one_line
from builders import gguf_files
from builders.compiled import compiled

# text, and what a terminal may be shown of it
LINES = {
    "plain words": "plain words",
    "two  blanks": "two  blanks",
    "Größe 模型 🦙": "Größe 模型 🦙",
    "\x1b[2J\x1b[31mred": "?[2J?[31mred",
    "\x1b]0;title\x07": "?]0;title?",
    "\x9b31mC1": "?31mC1",
    "back\x08\x08\x7f": "back???",
    "over\rwritten": "over written",
    "a\nb\r\nc\x0bd\x0ce\x85f\u2028g\u2029h": "a b c d e f g h",
    "  \n around \n  ": "around",
    "a \n\n  b": "a b",
    "tab\there": "tab here",
    "NUL\x00byte": "NUL?byte",
    "turned \u202egnp.exe\u202c": "turned ?gnp.exe?",
    "isolated \u2066x\u2069": "isolated ?x?",
    "zero\u200bwidth\ufeff\u2060": "zero?width??",
    "soft\xadhyphen": "soft?hyphen",
    "no\xa0break\u3000wide": "no break wide",
    "tag\U000e0041": "tag?",
    "private \ue000 \U0010fffe": "private ? ?",
    "no letter \uffff \ufdd0": "no letter ? ?",
    "\x1cfile\x1eseparators\x1f": "file separators",
    "Arabic \u0600 sign": "Arabic ? sign",
    "": "",
    "\x1b": "?",
}
DRIVES = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
HOSTILE = [
    "\x1b[2J\x1b]0;owned\x07name",
    "\x9b2Jname",
    "na\rme\x08\x08",
    "\u202eeman\u202c",
    "line\nautodeco: error: forged",
]


@pytest.mark.parametrize("text", LINES, ids=ascii)
def test_a_text_becomes_one_line(text):
    assert one_line(text) == LINES[text]
    assert one_line(one_line(text)) == one_line(text)


def test_halves_of_surrogate_pairs_and_other_objects_become_one_line():
    assert one_line("bytes \udcff\ud800") == "bytes ??"
    assert one_line(ValueError("a\nb")) == "a b"


def test_every_letter_is_printable_afterwards():
    for start in range(0, 0x110000, 4096):
        assert one_line("x" + "".join(map(chr, range(start, start + 4096))) + "x").isprintable()


def test_an_input_error_is_one_line_that_drives_no_terminal():
    assert str(InputError("a\x1b[2J\nb")) == "a?[2J b"
    assert InputError("a\x1bb").args == ("a?b",)


def in_cpp(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([compiled("autodeco-cli"), *arguments], capture_output=True, check=False)


@pytest.mark.parametrize("text", [text for text in LINES if text and "\0" not in text], ids=ascii)
def test_the_program_in_cpp_shows_the_same_line(text):
    """By its error for a file of that name, which is missing."""
    result = in_cpp("-m", f"no {text} file", "-p", "x")
    assert result.returncode == 2
    line = result.stderr.decode()
    assert line.endswith("\n")
    assert line.startswith("autodeco-cli: error: " + one_line(f"no {text} file: "))
    assert not DRIVES.search(line[:-1])


def test_the_program_in_cpp_shows_no_bytes_that_are_no_text():
    for broken in (b"\xff\xfe", b"\xc3", b"\xe2\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf", b"a\x80b"):
        result = subprocess.run(
            [compiled("autodeco-cli"), b"-m", b"no " + broken, b"-p", b"x"], capture_output=True, check=False
        )
        shown = result.stderr.decode()  # which fails for what is no UTF-8
        assert "?" in shown
        assert result.returncode == 2


def clean(*streams: str) -> None:
    for stream in streams:
        assert not DRIVES.search(stream), ascii(stream)
        assert "\nautodeco: error: forged" not in stream


@pytest.fixture(params=HOSTILE, ids=ascii)
def files(request, tmp_path):
    """A model and heads whose every text says that name, merged too, and a model that is another one."""
    name = request.param
    extra = [gguf_files.key(f"general.{key}", 8, name) for key in ("author", "license", "url", "description")]
    model, other, heads = tmp_path / "model.gguf", tmp_path / "other.gguf", tmp_path / "heads.safetensors"
    model.write_bytes(gguf_files.model(name=name, extra_keys=extra))
    other.write_bytes(gguf_files.model(name=name + "2", seed=5))
    heads.write_bytes(gguf_files.safetensors(gguf_files.head_arrays()))
    return model, other, heads, name


def run(program, capfd, *arguments) -> tuple[int, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        try:
            code = program.main([str(argument) for argument in arguments])
        except SystemExit as stopped:
            code = stopped.code
    out, err = capfd.readouterr()
    clean(out, err)
    return code, out + err


def test_hostile_names_in_files_through_every_command(files, tmp_path, capfd):
    model, other, heads, name = files
    sidecar, merged = tmp_path / "sidecar.gguf", tmp_path / "merged.gguf"
    shown = one_line(name)
    code, said = run(export_cli, capfd, heads, "--base", model, "--layout", "sidecar", "-o", sidecar)
    assert (code, shown in said) == (0, True)
    code, said = run(export_cli, capfd, heads, "--base", model, "--layout", "merged", "-o", merged)
    assert (code, shown in said) == (0, True)
    # a note of another model, and a card
    (tmp_path / "card").mkdir()
    card = ("--name", name, "--author", name, "--card")
    code, said = run(export_cli, capfd, sidecar, "--base", other, "-o", tmp_path / "card" / "again.gguf", *card)
    assert code == 0
    assert "may choose badly" in said
    clean((tmp_path / "card" / "README.md").read_text())
    for file in (model, sidecar, merged):
        code, said = run(autodeco_cli, capfd, "inspect", file, "--tensors")
        assert (code, shown in said) == (0, True)
    code, said = run(autodeco_cli, capfd, "inspect", sidecar, "--base", other)
    assert code == 1
    assert shown in said
    # none of these is a language model that runs: refused in a line
    for command in (["generate", "-m", merged, "x"], ["generate", "-m", other, "--heads", sidecar, "x"]):
        code, said = run(autodeco_cli, capfd, *command)
        assert code == 2
    for arguments in (["-m", merged], ["-m", other, "--heads", sidecar], ["-m", merged, "--verbose"]):
        result = subprocess.run(
            [compiled("autodeco-cli"), *map(str, arguments), "-p", "x"], capture_output=True, check=False
        )
        assert result.returncode == 2
        clean(result.stdout.decode(), result.stderr.decode())


@pytest.mark.parametrize("name", [name for name in HOSTILE if "\n" not in name], ids=ascii)
def test_hostile_names_of_files_through_every_command(name, tmp_path, capfd):
    model, heads, text = (tmp_path / f"{name}.{end}" for end in ("gguf", "safetensors", "txt"))
    model.write_bytes(gguf_files.model())
    heads.write_bytes(gguf_files.safetensors(gguf_files.head_arrays()))
    text.write_text("no model")
    output = tmp_path / f"{name}.heads.gguf"
    assert run(export_cli, capfd, heads, "--base", model, "-o", output)[0] == 0
    assert run(autodeco_cli, capfd, "inspect", output)[0] == 0
    for command in (
        ["inspect", text],
        ["generate", "-m", text, "x"],
        ["generate", "-m", model, "--heads", text, "x"],
        ["collect", text, "--data", text, "-o", tmp_path / "traces"],
        ["rollout", text, "--data", text, "-o", tmp_path / "rollouts.jsonl"],
        ["eval", text, "--data", text, "-o", tmp_path / "report"],
        ["train", text, "-o", tmp_path / "heads"],
        ["reward", "--model", text],
        [name],
        ["inspect", output, f"--{name}"],
    ):
        assert run(autodeco_cli, capfd, *command)[0] == 2, command
    for command in ([text, "--base", model], [heads, "--base", text], [heads, "--base", model, f"--{name}"]):
        assert run(export_cli, capfd, *command)[0] == 2


def test_what_a_library_user_is_shown_of_files(smollm2, exported, tmp_path):
    """Warnings and errors of ``autodeco.Llama``, which Python prints by itself."""
    hostile = HOSTILE[0]
    sidecar = tmp_path / "sidecar.gguf"
    data = exported("f16").read_bytes()
    name = autodeco.export.layout.open_layout(exported("f16")).base_name.encode()
    assert data.count(name) >= 1
    sidecar.write_bytes(data.replace(name, hostile.encode()[: len(name)].ljust(len(name), b"\x1b")))
    other = tmp_path / "other.gguf"
    shutil.copy(smollm2, other)
    with other.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    with pytest.warns(UserWarning, match="may choose badly") as warned:
        autodeco.Llama(str(other), sidecar, n_ctx=32, n_threads=1, n_threads_batch=1, verbose=False).close()
    clean(*(str(warning.message) for warning in warned))
    assert "\x1b" not in str(warned[0].message)


def test_a_template_that_refuses_says_so_in_one_line():
    from autodeco.base.chat_template import Renderer

    renderer = Renderer("{{ raise_exception('no \x1b[2J\n way') }}", "", "")
    with pytest.raises(InputError, match=r"refuses the messages \(no \?\[2J way\)"):
        renderer([{"role": "user", "content": "x"}], True, None)


def test_wrong_arguments_are_told_in_one_line(capfd):
    with pytest.raises(SystemExit):
        Parser(prog="program").error("unknown \x1b[2J\n argument")
    assert capfd.readouterr().err == "program: error: unknown ?[2J argument; see --help\n"
