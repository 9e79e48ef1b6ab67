"""autodeco-cli, as `make strict` builds it: against autodeco.Llama, and with all that a user can do wrong."""

import json
import re
import resource
import signal
import subprocess
from pathlib import Path

import pytest

import autodeco
from autodeco.data.prompt_text import prompt_text
from autodeco.errors import InputError
from autodeco.export.layout import open_layout
from builders.compiled import compiled

STORY = "Once upon a time, in a small village by the sea,"
PIPED = [
    STORY.encode(),
    f"{STORY}\n".encode(),
    f"{STORY}\r\n".encode(),
    f"\ufeff{STORY}".encode(),
    "\ufeffOne.\r\n\r\nTwo: \t\r\n\n".encode(),
    f"\n {STORY}\r".encode(),
]
QUESTION = "What is the capital of France?"


def cli(*arguments, **options) -> subprocess.CompletedProcess:
    """A run of the program with one thread, 512 tokens of context and a fixed seed, which ``arguments`` override."""
    command = [str(argument) for argument in (compiled("autodeco-cli"), "-t", 1, "-c", 512, "-s", 1, *arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **options)


def lines_of(*arguments, **options) -> tuple[list[dict], dict]:
    """The tokens and the summary that --json prints."""
    result = cli("--json", *arguments, **options)
    assert result.returncode == 0, result.stderr
    *tokens, summary = map(json.loads, result.stdout.splitlines())
    return tokens, summary


@pytest.fixture(scope="module")
def llm(smollm2, exported):
    """autodeco.Llama with llama.cpp's own default for flash attention, which llama-cpp-python turns off."""
    model = autodeco.Llama(
        str(smollm2), exported("f32"), n_ctx=512, n_threads=1, n_threads_batch=1, flash_attn=True, verbose=False
    )
    yield model
    model.close()


@pytest.fixture(scope="module")
def with_heads(smollm2, exported) -> list:
    return ["-m", smollm2, "--heads", exported("f32")]


@pytest.mark.parametrize("settings", [{"temp": 0.0}, {"temp": 1.0, "seed": 7}, {"temp": 1.5, "top_p": 2.0, "seed": 11}])
def test_it_draws_what_python_draws(with_heads, llm, settings):
    n = 24
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    tokens, summary = lines_of(*with_heads, "-p", STORY, "-n", n, "--ignore-eos", *arguments)
    llm.reset()
    llm.set_seed(settings.get("seed", 0))
    generator = llm.generate(
        llm.tokenize(STORY.encode()), temp=settings["temp"], top_p=settings.get("top_p", 1.0), top_k=0, min_p=0.0
    )
    expected = [next(generator) for _ in range(n)]
    generator.close()
    assert [token["token"] for token in tokens] == expected
    assert [token["temperature"] for token in tokens] == pytest.approx(llm.decoding.temperature[:n].tolist(), abs=1e-4)
    assert [token["top_p"] for token in tokens] == pytest.approx(llm.decoding.top_p[:n].tolist(), abs=1e-4)
    assert "".join(token["text"] for token in tokens) == llm.detokenize(expected).decode()
    assert summary["end"] == "limit"
    assert summary["tokens"] == n


@pytest.mark.parametrize("layout", ["merged", "embedded"])
def test_a_file_that_brings_its_heads_needs_none_beside_it(with_heads, exported, layout):
    both = exported("f32", layout)
    arguments = ["-p", STORY, "-n", 12, "--seed", 3]
    assert lines_of("-m", both, *arguments)[0] == lines_of(*with_heads, *arguments)[0]


def test_chat_uses_the_models_template(with_heads, llm):
    tokens, summary = lines_of(*with_heads, "--chat", "-p", QUESTION, "-n", 16, "--temp", 0)
    answer = llm.create_chat_completion([{"role": "user", "content": QUESTION}], temperature=0, max_tokens=16)
    assert "".join(token["text"] for token in tokens) == answer["choices"][0]["message"]["content"]
    assert summary["prompt_tokens"] == answer["usage"]["prompt_tokens"]


def test_a_system_message_goes_before_the_prompt(with_heads):
    arguments = [*with_heads, "--chat", "-p", "Who are you?", "-n", 12, "--temp", 0]
    plain = cli(*arguments).stdout
    assert "Captain" in cli(*arguments, "--system", "You are a pirate.").stdout
    assert "Captain" not in plain


def test_a_talk_keeps_what_was_said_and_decodes_it_once(with_heads):
    messages = "Hi, I am Bob.\nRepeat what I said.\n"
    result = cli("--json", *with_heads, "--chat", "-n", 24, "--temp", 0, input=messages)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    first, second = [line for line in lines if "end" in line]
    answer = "".join(line["text"] for line in lines[lines.index(first) + 1 : -1])
    assert "Bob" in answer
    # the second prompt adds one message and the template around it to what the context holds
    assert second["prompt_tokens"] < 32 < first["prompt_tokens"] + second["prompt_tokens"]


def test_a_talk_forgets_its_beginning_when_the_context_is_full(with_heads):
    messages = "".join(f"Tell me a story about the number {i}.\n" for i in range(4))
    result = cli("-c", 256, "--json", *with_heads, "--chat", "-n", 60, "--temp", 0, "--ignore-eos", input=messages)
    assert result.returncode == 0, result.stderr
    ends = [json.loads(line)["end"] for line in result.stdout.splitlines() if '"end"' in line]
    assert len(ends) == 4
    assert ends[0] == "limit"


def test_the_context_ends_an_answer(with_heads):
    tokens, summary = lines_of(*with_heads, "-c", 256, "-p", STORY, "-n", -1, "--ignore-eos", "--temp", 0)
    assert summary["end"] == "context"
    assert summary["prompt_tokens"] + len(tokens) == 256


def test_a_context_that_llama_cpp_rounds_up_takes_prompts_that_fill_it(with_heads):
    """Of a context of 16 llama.cpp makes one of 256 tokens, and takes 16 in a batch."""
    few = [*with_heads, "-p", "word " * 200, "-n", 4, "--temp", 0]
    tokens, summary = lines_of(*few, "-c", 16)
    assert summary["prompt_tokens"] > 200
    assert [token["token"] for token in tokens] == [token["token"] for token in lines_of(*few, "-b", 16)[0]]


def test_a_stop_text_ends_an_answer_and_is_not_shown(with_heads):
    full = cli(*with_heads, "-p", STORY, "-n", 24, "--temp", 0).stdout
    stop = full.split()[5]
    cut = cli(*with_heads, "-p", STORY, "-n", 24, "--temp", 0, "--stop", "unlikely,text", "--stop", stop).stdout
    assert cut == full[: full.index(stop)] + "\n"


@pytest.mark.parametrize("content", PIPED, ids=lambda content: "")
def test_a_prompt_from_a_file_or_standard_input(with_heads, tmp_path, content):
    file = tmp_path / "prompt.txt"
    file.write_bytes(content)
    arguments = [*with_heads, "-n", 8, "--temp", 0]
    expected = lines_of(*arguments, "-p", prompt_text(content, "it"))
    with file.open() as piped:
        read = [lines_of(*arguments, "-f", file), lines_of(*arguments, "-f", "-", stdin=piped)]
    for tokens, summary in read:
        assert tokens == expected[0]
        assert summary["prompt_tokens"] == expected[1]["prompt_tokens"]


def test_a_prompt_in_utf_16_or_without_anything_is_refused(smollm2, tmp_path):
    file = tmp_path / "prompt.txt"
    for content, message in (("a".encode("utf-16"), "is UTF-16; save it as UTF-8"), (b"\xef\xbb\xbf\r\n", "is empty")):
        file.write_bytes(content)
        result = cli("-m", smollm2, "-f", file)
        assert result.returncode == 2
        assert message in result.stderr


def test_a_talk_on_lines_of_another_system_is_the_same(with_heads, tmp_path):
    def said(**options):
        result = cli("--json", *with_heads, "--chat", "-n", 8, "--temp", 0, **options)
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        return [line.get("token", line.get("prompt_tokens")) for line in lines]

    expected = said(input="Hi, I am Bob.\n\nRepeat what I said.\n")
    assert len(expected) == 18
    lines = tmp_path / "lines.txt"
    lines.write_bytes(b"\xef\xbb\xbfHi, I am Bob.\r\n\r\nRepeat what I said.\r\n")
    with lines.open() as piped:
        assert said(stdin=piped) == expected


def test_show_colours_tokens_by_temperature(with_heads):
    shown = cli(*with_heads, "-p", STORY, "-n", 8, "--temp", 0, "--show").stdout
    plain = cli(*with_heads, "-p", STORY, "-n", 8, "--temp", 0).stdout
    pieces = shown.rstrip("\n").split("\x1b[0m")
    assert len(pieces) == 9
    assert "".join(piece.partition("m")[2] for piece in pieces) == plain.rstrip("\n")
    assert len({piece.partition("m")[0] for piece in pieces}) > 4


def test_stats_go_to_standard_error(with_heads):
    result = cli(*with_heads, "-p", STORY, "-n", 8, "--ignore-eos", "--stats")
    assert "tokens/s" not in result.stdout
    assert "answer: 8 tokens" in result.stderr
    assert "peak memory" in result.stderr


def test_without_heads_the_settings_are_the_values(smollm2, llm):
    tokens, _ = lines_of("-m", smollm2, "-p", STORY, "-n", 8, "--temp", 0)
    assert all(token.keys() == {"token", "text"} for token in tokens)
    assert len(tokens) == 8


def test_heads_of_another_file_of_the_same_shape_run_with_a_warning(with_heads, smollm2, tmp_path):
    other = tmp_path / "other.gguf"
    data = bytearray(smollm2.read_bytes())
    data[-1] ^= 1
    other.write_bytes(data)
    result = cli("-m", other, "--heads", with_heads[3], "-p", STORY, "-n", 2)
    assert result.returncode == 0
    warning = rf"autodeco-cli: warning: {re.escape(str(with_heads[3]))}: the heads were exported for Smollm2 .* "
    warning += rf"\(sha256:\w{{12}}\), {re.escape(str(other))} is another file \(sha256:\w{{12}}\); .*\n"
    assert re.fullmatch(warning, result.stderr)
    assert cli(*with_heads, "-p", STORY, "-n", 2).stderr == ""


def rewritten(path: Path, to: Path, name: bytes, skip: int, value: bytes) -> Path:
    """A copy of a GGUF with ``value`` in the place of what stands ``skip`` bytes behind the ``name`` in its header."""
    data = bytearray(path.read_bytes())
    at = data.index(len(name).to_bytes(8, "little") + name) + 8 + len(name) + skip
    assert data[at : at + len(value)] != value
    data[at : at + len(value)] = value
    to.write_bytes(data)
    return to


# What is written over. Behind a key stands its type (4 bytes). Behind a tensor stand the number of its dimensions (4),
# these (8 each), its type (4) and its offset (8).
SIZE, HELD = b"autodeco.base_model.file_size", b"autodeco.base_gguf"
TOLD = "is not a merged file as it was written: autodeco.base_model.file_size is"
LIES = {
    "the model is larger than the file": ((SIZE, 4, (1 << 40).to_bytes(8, "little")), TOLD),
    "the model is smaller than its header": ((SIZE, 4, (100).to_bytes(8, "little")), TOLD),
    "its size is of another type": ((SIZE, 0, (12).to_bytes(4, "little")), "is of type f64, expected u64"),
    "its header is not the first tensor": ((HELD, 16, (65536).to_bytes(8, "little")), "is at offset 65536 where 0"),
    "its header is numbers": ((HELD, 12, (0).to_bytes(4, "little")), "tensor token_embd.weight is at offset"),
}


@pytest.mark.parametrize(("lie", "said"), LIES.values(), ids=LIES)
def test_a_merged_file_that_lies_is_refused_here_and_in_python(lie, said, exported, tmp_path):
    path = rewritten(exported("f32", "merged"), tmp_path / "lying.gguf", *lie)
    result = cli("-m", path, "-p", "x")
    assert result.returncode == 2
    assert result.stderr.startswith(f"autodeco-cli: error: {path}: ")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    with pytest.raises(InputError, match=r"lying\.gguf: "):
        open_layout(path)


def test_a_merged_file_is_told_by_its_model_and_not_by_what_it_says_of_it(with_heads, exported, tmp_path):
    """The fingerprint among its keys is that of another model; the model in it is the one that the heads are for."""
    path = rewritten(exported("f32", "merged"), tmp_path / "m.gguf", b"autodeco.base_model.fingerprint", 19, b"0" * 12)
    result = cli("-m", path, *with_heads[2:], "-p", STORY, "-n", 2)
    assert result.returncode == 0
    assert result.stderr == ""


def test_an_embedded_file_whose_model_was_changed_since_is_warned_about(exported, tmp_path):
    whole = exported("f32", "embedded")
    quiet = cli("-m", whole, "-p", STORY, "-n", 2)
    assert (quiet.returncode, quiet.stderr) == (0, "")
    data = whole.read_bytes()
    assert 0 < data.index(b"Smollm2 135M 8k") < data.index(b"autodeco.heads")
    (tmp_path / "changed.gguf").write_bytes(data.replace(b"Smollm2 135M 8k", b"Smollm2 135M 9k", 1))
    told = cli("-m", tmp_path / "changed.gguf", "-p", STORY, "-n", 2)
    assert told.returncode == 0
    assert told.stdout == quiet.stdout
    assert "another file" in told.stderr
    assert told.stderr.endswith("they run, but may choose badly\n")
    assert told.stderr.count("\n") == 1


WRONG = {
    "missing model": (["-m", "none.gguf", "-p", "x"], "none.gguf: cannot be opened"),
    "no model at all": (["-p", "x"], "-m MODEL.gguf is needed"),
    "not a GGUF": (["-m", __file__, "-p", "x"], "test_cli_edge.py: is not a valid GGUF file"),
    "a folder": (["-m", "/", "-p", "x"], "/: is not a"),
    "heads as a model": (["-m", "HEADS", "-p", "x"], "holds heads only; give the base model"),
    "missing heads": (["-m", "MODEL", "--heads", "none.gguf", "-p", "x"], "none.gguf: cannot be opened"),
    "a model as heads": (["-m", "MODEL", "--heads", "MODEL", "-p", "x"], "holds no AutoDeco heads"),
    "heads of another model": (["-m", "MODEL", "--heads", "OTHER", "-p", "x"], "heads are made for hidden states of"),
    "show without heads": (["-m", "MODEL", "-p", "x", "--show"], "has no heads, so there is nothing to --show"),
    "no prompt": (["-m", "MODEL"], "give a prompt"),
    "empty prompt": (["-m", "MODEL", "-p", ""], "the prompt is empty"),
    "missing prompt file": (["-m", "MODEL", "-f", "none.txt"], "none.txt: cannot be read"),
    "two prompts": (["-m", "MODEL", "-f", "none.txt", "-p", "x"], "-p or -f, not both"),
    "a long prompt": (["-m", "MODEL", "-c", "256", "-p", "word " * 300], "the context holds 256: raise --ctx-size"),
    "a huge context": (["-m", "MODEL", "-c", "2000000000", "-p", "x"], "take a smaller --ctx-size"),
    "an unknown option": (["-m", "MODEL", "-p", "x", "--nonsense"], "nonsense"),
    "no number": (["-m", "MODEL", "-p", "x", "-n", "many"], "many"),
    "a negative temperature": (["-m", "MODEL", "-p", "x", "--temp", "-1"], "--temp must be 0 or more"),
    "a temperature that is none": (["-m", "MODEL", "-p", "x", "--temp", "nan"], "nan"),
    "matrices shared by GPUs": (
        ["-m", "MODEL", "-p", "x", "--split-mode", "tensor"],
        "cannot sample in its graph with it",
    ),
    "an unknown way to share": (
        ["-m", "MODEL", "-p", "x", "--split-mode", "rows"],
        "--split-mode is layer, row or none",
    ),
    "a share that is none": (["-m", "MODEL", "-p", "x", "--tensor-split", "1,x"], "--tensor-split must be numbers"),
    "a share below 0": (["-m", "MODEL", "-p", "x", "--tensor-split", "1,-1"], "--tensor-split must be numbers"),
    "no shares": (["-m", "MODEL", "-p", "x", "--tensor-split", "0,0"], "--tensor-split gives no GPU anything"),
    "too many shares": (
        ["-m", "MODEL", "-p", "x", "--tensor-split", ",".join("1" * 999)],
        "more numbers than llama.cpp",
    ),
    "a main GPU of layers": (
        ["-m", "MODEL", "-p", "x", "--main-gpu", "1"],
        "--main-gpu needs --split-mode none or row",
    ),
    "a main GPU below 0": (["-m", "MODEL", "-p", "x", "--main-gpu", "-1"], "--main-gpu must be 0 or more"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message, smollm2, exported, tmp_path, other_heads):
    files = {"MODEL": smollm2, "HEADS": exported("f32"), "OTHER": other_heads}
    result = cli(*[files.get(argument, argument) for argument in arguments], cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("autodeco-cli: error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


LIMITS = {"address space": resource.RLIMIT_AS, "data": resource.RLIMIT_DATA}


@pytest.fixture(scope="module", params=LIMITS.values(), ids=LIMITS)
def short_of_memory(request, with_heads):
    """short_of_memory(megabytes) -> a run that may have so many megabytes, of one of the two kinds."""

    def run(megabytes: int) -> subprocess.CompletedProcess:
        def limit():
            resource.setrlimit(request.param, (megabytes * 2**20,) * 2)

        return cli(*with_heads, "-p", STORY, "-n", 4, preexec_fn=limit)

    return run


@pytest.fixture(scope="module")
def needed(short_of_memory) -> int:
    """How many megabytes a run needs, to 4."""
    too_little, enough = 4, 1024
    while enough - too_little > 4:
        middle = (too_little + enough) // 2
        if short_of_memory(middle).returncode == 0:
            enough = middle
        else:
            too_little = middle
    return enough


@pytest.mark.parametrize("missing", [8, 32, 64])
def test_too_little_memory_is_one_line_and_exit_code_2(missing, needed, short_of_memory):
    result = short_of_memory(max(needed - missing, 16))
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("autodeco-cli: error: ")
    assert "memory" in result.stderr
    assert result.stderr.count("\n") == 1


def started(*arguments) -> subprocess.Popen:
    command = [
        str(argument)
        for argument in (compiled("autodeco-cli"), "-t", 1, "-c", 2048, "--ignore-eos", "-n", -1, *arguments)
    ]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)


def test_an_interrupt_ends_the_answer(with_heads):
    with started("--json", *with_heads, "-p", STORY) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(rest.splitlines()[-1])["end"] == "interrupt"


def test_a_talk_goes_on_behind_an_interrupted_answer(with_heads):
    with started("--json", *with_heads, "--chat") as process:
        for _ in range(2):
            process.stdin.write(b"Tell me a long story.\n")
            process.stdout.readline()
            process.send_signal(signal.SIGINT)
            while b'"end":"interrupt"' not in process.stdout.readline():
                pass
        process.stdin.close()
        assert process.wait(timeout=60) == 0


def test_two_interrupts_end_the_program(with_heads):
    with started("--json", *with_heads, "--chat") as process:
        process.stdin.write(b"Tell me a long story.\n")
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        while b'"end":"interrupt"' not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130


def test_prompts_without_tokens_are_refused(smollm2, tmp_path):
    """By a template that renders nothing, whose length in the file is that of the model's own."""
    said = smollm2.read_bytes()
    template = open_layout(smollm2).gguf.get("tokenizer.chat_template").encode()
    mute = tmp_path / "mute.gguf"
    mute.write_bytes(said.replace(template, b"{#" + b" " * (len(template) - 4) + b"#}", 1))
    for arguments in (["-p", QUESTION], ["--json", "-f", "-"], []):
        result = cli("-m", mute, "--chat", *arguments, input=QUESTION + "\n")
        assert result.returncode == 2
        assert "the prompt has no tokens, and nothing predicts a first one" in result.stderr
        assert result.stdout == ""
    for arguments in (["-p", ""], ["-f", "/dev/null"]):
        result = cli("-m", smollm2, *arguments)
        assert (result.returncode, result.stderr) == (2, "autodeco-cli: error: the prompt is empty\n")
