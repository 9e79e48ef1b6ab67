"""``autodeco generate`` on terminals, contexts, paths and bytes that are not what one would wish."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import autodeco
from autodeco import cli
from autodeco.base.opening import open_base
from autodeco.commands.generate import Prompt
from autodeco.commands.generate import open_model as open_for_generating
from autodeco.commands.serve import open_model as open_for_serving
from autodeco.serve.options import Served
from autodeco.settings.machine import Machine
from builders.commands import refused
from builders.word_models import HIDDEN, write_llama

EMOJI = "Write emoji: \U0001f600\U0001f600\U0001f600\U0001f600\U0001f600\U0001f600"
TABS = "a\tb\tc\td\te\tf\tg\t"


def generate(*arguments, stdin=b"", **environment) -> tuple[int, str, str]:
    """Exit code, output and errors, in the encoding of the terminal."""
    command = [sys.executable, "-m", "autodeco", "generate", "--threads", "1", "--temperature", "0", *arguments]
    encoding = environment.setdefault("PYTHONIOENCODING", "utf-8")
    run = subprocess.run(command, input=stdin, capture_output=True, check=False, env=os.environ | environment)
    return run.returncode, run.stdout.decode(encoding), run.stderr.decode(encoding)


@pytest.mark.parametrize("encoding", ["ascii"])
@pytest.mark.parametrize("shown", [False, True], ids=["plain", "shown"])
def test_a_terminal_that_cannot_show_a_letter_gets_a_question_mark(exported, encoding, shown):
    show = ["--heads", exported("f16"), "--show", "temperature"] if shown else []
    whole = generate("-n", "3", EMOJI, *show)
    assert whole[0] == 0
    assert not whole[1].isascii()
    code, text, errors = generate("-n", "3", EMOJI, *show, PYTHONIOENCODING=encoding)
    assert code == 0
    assert text == whole[1].encode(encoding, "replace").decode(encoding)
    assert "damaged" not in errors
    assert "Traceback" not in errors


def test_shown_text_keeps_its_tabs(exported):
    heads = ["--heads", exported("f16"), "-n", "8", TABS]
    plain = generate(*heads)[1]
    assert "\t" in plain
    assert generate(*heads, "--show", "top-p")[1] == plain, "no colours, so the same text"
    terminal = {"FORCE_COLOR": "1", "COLORTERM": "truecolor", "TERM": "xterm-256color"}
    colored = generate(*heads, "--show", "top-p", **terminal)[1]
    assert colored != plain
    assert re.sub("\x1b\\[[0-9;]*m", "", colored) == plain


@pytest.mark.parametrize("options", [{}, {"logits_all": True}], ids=["plain", "logits_all"])
def test_a_context_that_llama_cpp_rounds_up_can_be_filled(smollm2, exported, options):
    """To 256 at least; llama_cpp keeps the tokens of what was asked for, and fails behind them."""
    llm = autodeco.Llama(
        str(smollm2), exported("f16"), n_ctx=20, n_threads=1, n_threads_batch=1, verbose=False, **options
    )
    assert llm.n_ctx() == 256
    prompt = [5] * 60
    generator = llm.generate(prompt)
    assert len([token for token, _ in zip(generator, range(4), strict=False)]) == 4
    generator.close()
    assert llm.input_ids[:60].tolist() == prompt
    assert len(llm.input_ids) == 256
    if options:
        assert llm.scores.shape == (256, 49152)
    llm.close()


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A model of 2048 tokens, without a chat template."""
    return write_llama(tmp_path_factory.mktemp("model") / "words.gguf")


def test_a_chat_with_a_model_without_a_template_is_refused_before_the_model_is_opened(words):
    error = refused("generate", "--model", words, "--chat", "Hello")
    assert f"{words}: has no chat template; leave out --chat, and give the prompt as plain text" in error


def test_commands_are_not_given_to_a_model_without_a_template(words, tmp_path):
    pytest.importorskip("torch")
    autodeco.Heads(HIDDEN).save_pretrained(tmp_path / "heads")
    error = refused("control", words, "--init", tmp_path / "heads", "-o", tmp_path / "out", "--threads", 1)
    assert f"{words}: has no chat template, and commands are given in chats; take a model that has one" in error


def test_the_usual_context_is_no_more_than_the_model_was_trained_on(words, capfd):
    assert cli.main(["generate", "--model", str(words), "-n", "1", "--threads", "1", "Hello"]) == 0
    assert "n_ctx_train" not in capfd.readouterr().err
    assert "the model was trained on 2048 tokens" in refused("generate", "--model", words, "--context", 5000, "Hello")


def test_a_small_context_generates(exported):
    code, text, errors = generate("--context", "20", "--heads", exported("f16"), "-n", "40", "One two three four five")
    assert (code, "damaged" in errors) == (0, False)
    assert len(text) > 40


def test_paths_whose_bytes_are_no_text(smollm2, exported, tmp_path):
    names = [
        Path(os.fsdecode(os.fsencode(tmp_path) + name)) for name in (b"/model\xff.gguf", b"/\xfe.gguf", b"/m\xc3.gguf")
    ]
    model, heads, merged = names
    model.symlink_to(smollm2)
    heads.symlink_to(exported("f16"))
    merged.symlink_to(exported("f16", "merged"))
    options = {"n_ctx": 64, "n_threads": 1, "n_threads_batch": 1, "verbose": False}
    texts = []
    for given in ((smollm2, exported("f16")), (model, heads), (merged, None)):
        llm = autodeco.Llama(str(given[0]), given[1], **options)
        texts.append(llm("One two", max_tokens=3, temperature=0.0)["choices"][0]["text"])
        llm.close()
    assert texts[0] == texts[1] == texts[2]
    for path in (model, merged):
        open_base(path, **options).close()
    code, text, errors = generate("-m", model, "--heads", heads, "-n", "2", "One two")
    assert (code, "Traceback" in errors) == (0, False)
    assert text.strip()


def test_arguments_whose_bytes_are_no_text_are_told():
    for arguments, what in ((["a\udcff"], "the prompt"), (["x", "--chat", "--system", "a\udcff"], "--system")):
        code, _, errors = generate(*arguments)
        assert code == 2
        assert errors == f"autodeco: error: {what}: holds bytes that are no UTF-8; give it as UTF-8\n"
    code, _, errors = generate("-", stdin=b"a\xff")
    assert (code, errors) == (2, "autodeco: error: standard input: byte 1 is no UTF-8; save it as UTF-8\n")


def test_letters_in_arguments_are_read_in_a_locale_without_them():
    arguments = ("-n", "4", "--chat", "--system", "Sois bref, é è", "naïve 日本")
    expected = generate(*arguments)
    assert expected[0] == 0
    assert generate(*arguments, LC_ALL="C", PYTHONUTF8="0") == expected


def test_threads_are_those_of_prompts_too(smollm2):
    """llama_cpp.Llama reads prompts on all processors unless told otherwise."""
    machine = Machine(threads=1)
    llm = open_for_generating(Prompt(model=smollm2, context=256), machine)
    assert (llm.n_threads, llm.n_threads_batch) == (1, 1)
    llm.close()
    served, _ = open_for_serving(Served(model=smollm2, context=256), machine)
    assert (served.n_threads, served.n_threads_batch) == (1, 1)
    served.close()
