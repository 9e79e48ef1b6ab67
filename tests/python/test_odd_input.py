"""Whatever a user types, a file of settings says or a program passes on: a value within its limits, or one line and
exit code 2; never a traceback."""

import argparse
import importlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autodeco.cli import VERBS, main
from autodeco.errors import InputError
from autodeco.evaluation.settings import Settings as EvaluationSettings
from autodeco.export import cli as export_cli
from autodeco.settings.options import Options, checked, declared, kind_of_one
from builders import gguf_files as files
from builders import odd_values as odd
from builders.compiled import compiled

GOOD = {
    "demo": ["-o", "out"],
    "rollout": ["model.gguf", "--problems", "problems.jsonl", "-o", "out"],
    "collect": ["model.gguf", "--data", "data.jsonl", "-o", "out"],
    "train": ["traces", "-o", "out"],
    "reward": ["model.gguf", "--problems", "problems.jsonl", "-o", "out"],
    "control": ["model.gguf", "--init", "heads.safetensors", "-o", "out"],
    "generate": ["hello", "-m", "model.gguf"],
    "serve": ["model.gguf", "--port", "0"],
    "eval": ["model.gguf", "--tasks", "problems.jsonl", "-o", "out"],
    "bench": ["model.gguf"],
    "inspect": ["model.gguf"],
    "tune": ["model.gguf", "--tasks", "problems.jsonl", "-o", "out"],
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with small files of every kind; the model is one that no weights are in."""
    monkeypatch.chdir(tmp_path)
    Path("model.gguf").write_bytes(files.model())
    Path("heads.safetensors").write_bytes(files.safetensors(files.head_arrays()))
    Path("data.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n", encoding="utf-8")
    Path("problems.jsonl").write_text(json.dumps({"prompt": "a", "answer": "b"}) + "\n", encoding="utf-8")
    Path("text.txt").write_text("hello", encoding="utf-8")
    Path("folder").mkdir()
    return tmp_path


def refused(capsys, program, *arguments: str) -> str:
    """The one line that a command line ends with."""
    try:
        code = program(list(arguments))
    except SystemExit as ended:  # argparse
        code = ended.code
    out, err = capsys.readouterr()
    told = f"{[argument[:80] for argument in arguments]}: {code}, {out[-200:]!r}, {err[-500:]!r}"
    assert code == 2, told
    assert err.count("\n") == 1, told
    assert ": error: " in err, told
    assert err.rstrip("\n").isprintable() or not err.isascii(), told
    assert len(err) < 4000, told
    return err


def every_option() -> dict:
    """All options of all commands, by class and name: their type and the limits of their values."""
    for verb in VERBS:
        importlib.import_module(f"autodeco.commands.{verb}")
    found, kinds = {}, [Options, EvaluationSettings]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if kind is not Options:
            found |= {(kind.__name__, name): (one, item.metadata["check"]) for name, one, item in declared(kind)}
    return found


def test_every_option_takes_a_sound_value_or_says_in_one_line_what_is_wrong():
    options, taken = every_option(), 0
    assert len(options) > 100
    for (_, name), (kind, limits) in options.items():
        for value in odd.VALUES:
            try:
                found = checked(name, value, kind, **limits)
            except InputError as error:
                line = str(error)
                if "\n" in line or len(line) > 1000:
                    raise AssertionError(f"{name}: {line[:2000]}") from error
                continue
            taken += 1
            for one in found if isinstance(found, tuple) else [found]:
                assert one is None or type(one) is kind_of_one(kind) or isinstance(one, Path), (name, found)
                if isinstance(one, float | int):
                    assert math.isfinite(one), name
                    assert abs(one) < 2**63 or isinstance(one, float), name
                    assert abs(one) <= 1e30, name
                    assert limits["least"] is None or one >= limits["least"]
                    assert limits["most"] is None or one <= limits["most"]
    assert taken > 500


# one reader reads the files of all of them: with SLOW=1 they are all asked
READING = [
    pytest.param(verb, marks=[pytest.mark.slow] * (verb not in ("generate", "reward", "train")))
    for verb in VERBS
    if verb not in ("demo", "inspect")
]


@pytest.mark.parametrize("verb", READING)
def test_every_file_of_settings_is_read_or_refused_in_one_line(verb, place, capsys):
    for content in [*(text.encode() for text in odd.YAML), *odd.BYTES]:
        Path("settings.yaml").write_bytes(content)
        refused(capsys, main, verb, *GOOD[verb], "--config", "settings.yaml")


def every_argument(verb: str):
    """Each option of a verb and each odd value for it, as the arguments that give it."""
    parser = argparse.ArgumentParser()
    importlib.import_module(f"autodeco.commands.{verb}").add_arguments(parser)
    for action in parser._actions:
        if action.nargs == 0 or isinstance(action, argparse._HelpAction):
            continue
        values = odd.NUMBERS if action.type in (int, float) else odd.PATHS if action.type is Path else odd.TEXTS
        for value in values:
            if not action.option_strings:
                yield [value, *GOOD[verb][1:]]
            elif action.nargs == "+":
                yield [*GOOD[verb], action.option_strings[-1], value]
            else:
                yield [*GOOD[verb], f"{action.option_strings[-1]}={value}"]


@pytest.mark.slow
@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("demo", "inspect")])
def test_every_argument_of_a_command_can_be_odd(verb, place, capsys):
    """The model has no weights, and the traces are not there: nothing can end well."""
    count = 0
    for arguments in every_argument(verb):
        refused(capsys, main, verb, *arguments)
        count += 1
    assert count > 20


@pytest.mark.parametrize("option", ["heads", "--base", "-o", "--split", "--quantize", "--type", "--layout", "--name"])
def test_every_argument_of_exporting_can_be_odd(option, place, capsys):
    for value in [*odd.PATHS, *odd.TEXTS]:
        arguments = ["heads.safetensors", "--base", "model.gguf", f"{option}={value}"]
        if option == "heads":
            arguments = [value, "--base", "model.gguf"]
        elif option == "--split":
            arguments = [f"--split={value}", "-o", "parts"]
        elif option in ("-o", "--name"):  # which may be good: then the model is not
            arguments = ["heads.safetensors", "--base", "text.txt", option, value]
        elif value == "" and option != "--base":
            continue  # as if it were not given
        refused(capsys, export_cli.main, *arguments)
    assert not list(place.glob("*.autodeco"))


def python(*arguments, **streams) -> subprocess.CompletedProcess:
    """A command in a process whose standard streams the shell or the test has put elsewhere."""
    environment = os.environ | streams.pop("environment", {})
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, stdout=-1, stderr=-1, check=False, **streams)


def shell(line: str) -> tuple[int, str]:
    """Exit code and error output of a line of the shell, in which P is Python."""
    line = line.replace("P ", f"{sys.executable} ")
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, errors="replace")
    assert "Traceback" not in result.stderr, result.stderr
    assert "Exception ignored" not in result.stderr, result.stderr
    return result.returncode, result.stderr


@pytest.mark.parametrize("command", ["P -m autodeco inspect model.gguf", "P -m autodeco --help", "autodeco-export"])
@pytest.mark.parametrize(("to", "told"), [("> /dev/full", "the disk is full"), (">&-", "standard output is closed")])
def test_output_that_cannot_be_written_is_told(place, command, to, told):
    if command == "autodeco-export":
        command = "P -c 'import sys; from autodeco.export.cli import main; sys.exit(main(sys.argv[1:]))' --help"
    code, err = shell(f"{command} {to}")
    assert code == 2
    assert told in err
    assert err.count("\n") == 1


def test_closed_streams_are_no_place_for_other_files(place):
    """The next file that is opened would get the number of a stream that is closed."""
    assert shell("P -m autodeco inspect model.gguf <&- > out.txt") == (0, "")
    assert shell("P -m autodeco inspect model.gguf 2>&- > out.txt") == (0, "")
    assert shell("P -m autodeco inspect model.gguf <&- >&- 2>&-") == (2, "")
    code, err = shell("P -m autodeco generate -m model.gguf <&-")
    assert code == 2
    assert err.count("\n") == 1
    assert "hello" in Path("text.txt").read_text(encoding="utf-8")


EVERY_HELP = """
from contextlib import suppress
from autodeco.cli import VERBS, main
for verb in VERBS:
    with suppress(SystemExit):
        code = main([verb, "--help"])
        raise RuntimeError(f"{verb}: {code}")
"""


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["ascii", "C"],
)
def test_a_terminal_without_a_letter_shows_another(place, environment):
    Path("model.gguf").write_bytes(files.model(name="Modell \u20ac \U0001f600"))
    result = python("-m", "autodeco", "inspect", "model.gguf", environment=environment)
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"Modell ? ?" in result.stdout
    result = python("-c", EVERY_HELP, environment=environment)
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.count(b"usage: autodeco ") == len(VERBS)


def test_a_path_that_is_no_utf_8_is_a_path(place):
    name = os.fsdecode(b"\xff\xfe.gguf")
    Path(name).write_bytes(files.model())
    result = python("-m", "autodeco", "inspect", name)
    assert (result.returncode, result.stderr) == (0, b"")
    for arguments in (
        ["generate", "-m", name, "hello"],
        ["collect", name, "--data", "data.jsonl", "-o", name + "traces"],
        ["train", name, "-o", "out"],
        ["train", "traces", "-o", name],
    ):
        result = python("-m", "autodeco", *arguments)
        assert result.returncode == 2, result.stderr
        assert result.stderr.count(b"\n") == 1, result.stderr


@pytest.mark.parametrize(
    ("streams", "told"),
    [
        ("-n 3 > /dev/full", "standard output cannot be written: No space left on device"),
        ("-n 3 --json > /dev/full", "standard output cannot be written: No space left on device"),
        ("--help > /dev/full", "standard output cannot be written: No space left on device"),
        ("--version > /dev/full", "standard output cannot be written: No space left on device"),
        ("-n 3 >&-", "standard output is closed"),
        ("-n 3 <&- >&-", "standard output is closed"),
    ],
)
def test_the_program_without_python_ends_with_an_error_where_it_cannot_write(smollm2, streams, told):
    program, what = compiled("autodeco-cli"), "" if "--" in streams[:3] else f"-m '{smollm2}' -p hello"
    code, err = shell(f"{program} {what} {streams}")
    assert code == 2
    assert err == f"autodeco-cli: error: {told}\n" or err.startswith(f"autodeco-cli: error: {told}; give it a place")


def test_the_program_without_python_reads_what_there_is_and_no_more(smollm2, tmp_path):
    program = compiled("autodeco-cli")
    for streams, told in (
        ("-f - <&-", "the prompt is empty"),
        ("-f - < /", "the prompt is empty"),
        ("-f /dev/zero", "/dev/zero: larger than any prompt"),
        (f"-f '{tmp_path}'", f"{tmp_path}: cannot be read"),
        (f"-f '{tmp_path}/none'", f"{tmp_path}/none: cannot be read"),
    ):
        assert shell(f"{program} -m '{smollm2}' {streams}") == (2, f"autodeco-cli: error: {told}\n")
    assert shell(f"{program} -m '{smollm2}' -p hello -n 2 2>&- > /dev/null") == (0, "")
