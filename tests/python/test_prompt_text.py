"""Prompts from files and pipes, and vocabularies that end every text with a token: the same rule everywhere."""

import json
import subprocess
import sys

import pytest

import autodeco
from autodeco.base.opening import open_base
from autodeco.base.tokenizer import Tokenizer
from autodeco.batch import requests
from autodeco.batch.request import AS_THE_MODEL_SAYS
from autodeco.data.prompt_text import prompt_text
from autodeco.errors import InputError
from builders.compiled import compiled

PROMPT = "The capital of France is"
CHAT = [{"role": "user", "content": "Hello."}]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", ""),
        (b"a", "a"),
        (b"a\n", "a"),
        (b"a\r\n", "a"),
        (b"a\n\n", "a\n"),
        (b"a\r\n\r\n", "a\n"),
        (b" a \n", " a "),
        (b"a\r\nb\r\n", "a\nb"),
        (b"a\rb\r", "a\rb\r"),
        (b"\n", ""),
        (b"\xef\xbb\xbfa\n", "a"),
        (b"\xef\xbb\xbf\xef\xbb\xbfa", "\ufeffa"),
        ("é🦙\n".encode(), "é🦙"),
    ],
)
def test_one_line_break_at_the_end_is_the_files_not_the_prompts(content, text):
    assert prompt_text(content, "it") == text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\xffb", "prompt.txt: byte 1 is no UTF-8; save it as UTF-8"),
        ("a".encode("utf-16-le"), None),
        (b"\xff\xfea\x00", "prompt.txt: is UTF-16; save it as UTF-8"),
        (b"\xfe\xff\x00a", "prompt.txt: is UTF-16; save it as UTF-8"),
    ],
)
def test_what_is_no_utf_8_is_refused(content, message):
    if message is None:
        assert prompt_text(content, "prompt.txt") == "a\x00"
        return
    with pytest.raises(InputError, match=message):
        prompt_text(content, "prompt.txt")


def generated(smollm2, content, *arguments):
    command = [sys.executable, "-m", "autodeco", "generate", "-m", smollm2, "-n", "6", "--temperature", "0", *arguments]
    return subprocess.run(command, input=content, capture_output=True, check=False)


@pytest.mark.parametrize("chat", [[], ["--chat"]])
def test_a_piped_prompt_is_the_one_that_is_typed(smollm2, chat):
    typed = generated(smollm2, b"", *chat, "One.\nTwo:").stdout
    assert len(typed) > 3
    for content in (b"One.\nTwo:\n", b"\xef\xbb\xbfOne.\r\nTwo:\r\n"):
        assert generated(smollm2, content, *chat).stdout == typed
        assert generated(smollm2, content, *chat, "-").stdout == typed
    refused = generated(smollm2, b"a\xff", *chat)
    assert (refused.returncode, refused.stdout) == (2, b"")
    assert b"standard input: byte 1 is no UTF-8" in refused.stderr


NO_UTF_8 = [b"a\xff", b"\xef\xbb\xbfab\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\xe2\x80x"]


@pytest.mark.parametrize("content", NO_UTF_8, ids=ascii)
@pytest.mark.parametrize("how", ["file", "standard input", "talk"])
def test_the_standalone_program_refuses_it_in_the_same_words(smollm2, tmp_path, content, how):
    file = tmp_path / "prompt.txt"
    file.write_bytes(content)
    name = str(file) if how == "file" else "standard input"
    with pytest.raises(InputError) as told:
        prompt_text(content, name)
    options = {"file": ["-f", file], "standard input": ["-f", "-"], "talk": ["--chat"]}[how]
    command = [compiled("autodeco-cli"), "-m", smollm2, "-c", "256", *options]
    result = subprocess.run(command, input=content + b"\n", capture_output=True, check=False)
    assert (result.returncode, result.stdout) == (2, b"")
    assert result.stderr.decode() == f"autodeco-cli: error: {told.value}\n"


@pytest.fixture(scope="module")
def ending(smollm2, tmp_path_factory):
    """SmolLM2 with a vocabulary that ends every text with a token: the key of another one, as long, renamed."""
    data = smollm2.read_bytes()
    key, false, true = b"tokenizer.ggml.add_bos_token\x07\0\0\0", b"\0", b"\1"
    assert data.count(key + false) == 1
    path = tmp_path_factory.mktemp("ending") / "ending.gguf"
    path.write_bytes(data.replace(key + false, key.replace(b"bos", b"eos") + true))
    return path


def test_no_prompt_is_ended_by_the_vocabulary(ending, smollm2):
    counts = []
    for path in (ending, smollm2):
        llm = autodeco.Llama(str(path), n_ctx=256, n_threads=1, n_threads_batch=1, verbose=False)
        assert llm._model.add_eos_token() == (path == ending)
        assert llm.tokenize(b"a") == ([81, 2] if path == ending else [81])
        used = [llm(PROMPT, max_tokens=1)["usage"]["prompt_tokens"]]
        for chat_format in ("chat_template.default", "llama-2", "chatml-function-calling"):
            llm.chat_format = chat_format
            used.append(llm.create_chat_completion(CHAT, max_tokens=1)["usage"]["prompt_tokens"])
        for prompt in (PROMPT, CHAT):
            used.append(len(requests(llm, [prompt], 1, AS_THE_MODEL_SAYS, 1)[0].prompt))
            used.append(len(Tokenizer(llm).prompt_ids(prompt)))
        counts.append(used)
        llm.close()
    assert counts[0] == counts[1]


@pytest.mark.parametrize("chat", [[], ["--chat"]])
def test_no_prompt_of_the_standalone_program_is_ended_either(ending, smollm2, chat):
    counts = []
    for path in (ending, smollm2):
        command = [
            compiled("autodeco-cli"),
            "-m",
            path,
            "-t",
            "1",
            "-c",
            "512",
            "--json",
            "-n",
            "1",
            "-p",
            PROMPT,
            *chat,
        ]
        output = subprocess.check_output(command, text=True)
        counts.append(json.loads(output.splitlines()[-1])["prompt_tokens"])
    llm = open_base(smollm2, n_ctx=64)
    prompt = [{"role": "user", "content": PROMPT}] if chat else PROMPT
    assert counts == [len(Tokenizer(llm).prompt_ids(prompt))] * 2
    llm.close()
