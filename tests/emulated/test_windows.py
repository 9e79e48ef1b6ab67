"""What holds of the Windows program alone: `make edge-windows`. It runs under Wine, which is not Windows."""

import json
import os
import re
import signal
import subprocess

import pytest

from builders.gguf_files import TENSOR_F32, gguf, model_keys, tensor
from builders.hostile_templates import REFUSED, with_template
from emulators import HERE, WINDOWS

SYSTEM = {"ADVAPI32.dll", "KERNEL32.dll", "SHELL32.dll", "USER32.dll", "msvcrt.dll"}  # which every Windows has
QUESTION = "Wieviel kostet süßes Brot in 東京? 🙂"
GREEDY = ["--temp", 0, "-n", 8, "-t", 1, "-c", 256, "--json"]
LINE = "autodeco-cli: error: the model's chat template refuses the messages ("


def test_the_program_is_one_file_for_any_windows():
    program = WINDOWS.command("autodeco-cli")[-1]
    told = subprocess.run(["x86_64-w64-mingw32-objdump", "-p", program], capture_output=True, text=True, check=True)
    assert "pei-x86-64" in told.stdout
    assert set(re.findall(r"DLL Name: (\S+)", told.stdout)) <= SYSTEM


@pytest.fixture(scope="module")
def named(smollm2, heads, tmp_path_factory):
    """Model and heads in a folder whose name has letters of no code page."""
    folder = tmp_path_factory.mktemp("Größe 東京 🙂")
    os.symlink(smollm2, folder / "modèle.gguf")
    os.symlink(heads["sidecar"], folder / "têtes.gguf")
    return ["-m", folder / "modèle.gguf", "--heads", folder / "têtes.gguf"]


def tokens(output: str) -> list[int]:
    return [json.loads(line)["token"] for line in output.splitlines()[:-1]]


def test_names_prompts_and_texts_are_utf_8(named, tmp_path):
    (tmp_path / "päckchen.txt").write_text(QUESTION, encoding="utf-8")
    here = HERE.run("autodeco-cli", *named, *GREEDY, "-p", QUESTION)
    for prompt in (["-p", QUESTION], ["-f", tmp_path / "päckchen.txt"]):
        there = WINDOWS.run("autodeco-cli", *named, *GREEDY, *prompt)
        assert there.returncode == 0, there.stderr
        assert "\r" not in there.stdout
        assert tokens(there.stdout) == tokens(here.stdout)


def test_what_a_pipe_brings_is_taken_as_it_is(named):
    """Its line breaks count as elsewhere, and Ctrl-Z ends nothing."""
    text = "Ein Brot.\r\n\x1aZwei?\r\n"
    here = HERE.run("autodeco-cli", *named, *GREEDY, "-f", "-", input=text)
    there = WINDOWS.run("autodeco-cli", *named, *GREEDY, "-f", "-", input=text)
    assert there.returncode == 0, there.stderr
    assert tokens(there.stdout) == tokens(here.stdout)


@pytest.mark.parametrize("layout", ["merged", "embedded"])
def test_one_file_holds_model_and_heads(heads, layout):
    options = ["-m", heads[layout], *GREEDY, "-p", "The capital of France is"]
    there = WINDOWS.run("autodeco-cli", *options)
    assert there.returncode == 0, there.stderr
    assert '"temperature"' in there.stdout
    assert tokens(there.stdout) == tokens(HERE.run("autodeco-cli", *options).stdout)


def test_a_talk_by_the_models_own_template(named):
    lines = f"{QUESTION}\r\nUnd hier?\r\n"
    here = HERE.run("autodeco-cli", *named, *GREEDY, "--chat", input=lines)
    there = WINDOWS.run("autodeco-cli", *named, *GREEDY, "--chat", input=lines)
    assert there.returncode == 0, there.stderr
    answers = [[json.loads(line).get("token") for line in one.stdout.splitlines()] for one in (there, here)]
    assert answers[0] == answers[1]
    assert answers[0].count(None) == 2


@pytest.mark.parametrize("name", ["loops", "macro", "text", "a reason"])
def test_a_hostile_template_is_refused_in_one_line(name, smollm2, tmp_path):
    source, reason = REFUSED[name]
    model = with_template(tmp_path / "model.gguf", smollm2, source)
    result = WINDOWS.run("autodeco-cli", "-m", model, "--chat", "-p", "one", "-n", 2, "-c", 64)
    assert result.returncode == 2
    assert result.stderr.startswith(f"{LINE}{reason}")
    assert result.stderr.count("\n") == 1


def test_the_size_of_a_file_beyond_four_gigabytes_is_known(tmp_path):
    """One with less than its header tells is refused as cut short, and this one is whole."""
    width = 5 * 2**28
    path = tmp_path / "large.gguf"
    path.write_bytes(gguf(model_keys(), [tensor("weight", [width], TENSOR_F32, 0)], b""))
    os.truncate(path, path.stat().st_size + 4 * width)
    result = WINDOWS.run("autodeco-cli", "-m", path, "-p", "one")
    assert result.returncode == 2
    assert "cut short" not in result.stderr
    assert "llama.cpp does not load this model" in result.stderr
    os.truncate(path, path.stat().st_size - 1)
    assert "cut short" in WINDOWS.run("autodeco-cli", "-m", path, "-p", "one").stderr


def test_an_interrupt_ends_the_answer_and_a_second_one_the_program(named):
    command = WINDOWS.command("autodeco-cli", *named, "-t", 1, "-c", 2048, "--ignore-eos", "-n", -1, "--json", "--chat")
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, env=os.environ | WINDOWS.environment
    ) as process:
        process.stdin.write(b"Tell me a long story.\n")
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        while b'"end":"interrupt"' not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=600) == 130
