"""Texts hold every token whole: long ones, and letters that are spread over several."""

import ctypes
import io
import json
from unittest.mock import Mock

import llama_cpp
import pytest
from rich.console import Console

import autodeco
from autodeco.base.opening import open_base
from autodeco.base.token_bytes import TokenBytes, WholeTokenizer
from autodeco.batch import Answer, Sampling, generate, shared
from autodeco.batch.request import requests
from autodeco.commands.demo_comparison import show_answer
from autodeco.errors import InputError
from autodeco.evaluation.answer_logs import answer_row
from autodeco.evaluation.methods import AUTODECO
from autodeco.llama.decoding import Decoding
from autodeco.llama.streaming import stream
from autodeco.reports.token_texts import texts_by_decoding, texts_of
from builders.scripted import byte_tokens, forcing, say_in_batches, tokens_of

LETTERS = "né 漢字 🦙!"
PROMPT = "A ruler: "
END = 2  # <|im_end|>


@pytest.fixture(scope="module")
def long(llm):
    """The tokens that llama-cpp-python has no room for, each followed by a short one."""
    long = list(tokens_of(llm, lambda piece: len(piece) > 32))
    assert len(long) == 47
    return [
        token for pair in zip(long, llm.tokenize(b" a b c d e f g", add_bos=False) * 7, strict=False) for token in pair
    ]


@pytest.fixture(scope="module")
def long_text(llm, long):
    return b"".join(piece(llm, token) for token in long).decode()


def piece(llm, token):
    buffer = ctypes.create_string_buffer(4096)
    length = llama_cpp.llama_token_to_piece(llm._model.vocab, token, buffer, 4096, 0, False)
    return buffer.raw[:length]


def test_every_token_of_a_vocabulary_is_whole(llm):
    tokens = range(llm.n_vocab())
    assert [llm.detokenize([token]) for token in tokens] == [piece(llm, token) for token in tokens]
    assert llm.tokenizer().detokenize([END], special=True) == b"<|im_end|>"
    with pytest.raises(InputError, match=r"token 49152 is outside the vocabulary of 49152"):
        llm.detokenize([llm.n_vocab()])


def test_stock_models_of_ours_have_whole_tokens_too(smollm2, long, long_text):
    base = open_base(smollm2, vocab_only=True)
    assert base.detokenize(long).decode() == long_text
    base.close()
    for use in (lambda: base.detokenize(long), lambda: base.tokenize(b"a")):
        with pytest.raises(InputError, match="was closed; open it again"):
            use()


def test_completions_and_streams_hold_long_tokens(llm, long, long_text):
    long, long_text = long[:24], llm.detokenize(long[:24]).decode()
    settings = {"max_tokens": 24, "seed": 1, "temperature": 0.0}
    whole = llm(PROMPT, logits_processor=forcing(long), **settings)["choices"][0]
    assert whole["text"] == long_text
    streamed = llm(PROMPT, logits_processor=forcing(long), stream=True, **settings)
    assert "".join(chunk["choices"][0]["text"] for chunk in streamed) == long_text
    chat = [{"role": "user", "content": PROMPT}]
    answer = llm.create_chat_completion(chat, logits_processor=forcing([*long, END]), **settings | {"max_tokens": 30})
    assert answer["choices"][0]["message"]["content"] == long_text
    tokens = stream(llm, llm.tokenize(PROMPT.encode()), 24, 1, logits_processor=forcing(long))
    assert "".join(text for _, text in tokens) == long_text


@pytest.mark.parametrize("heads", ["both", "none"])
def test_batches_hold_long_tokens(llm, long, long_text, monkeypatch, heads):
    say_in_batches(monkeypatch, [*long, END])
    for answer in generate(llm, [PROMPT], n=2, sampling=Sampling(heads=heads), max_tokens=99, slots=2):
        assert (answer.text, answer.finish) == (long_text, "end")


def test_answers_that_share_beginnings_hold_long_tokens(llm, long, long_text, monkeypatch):
    script = iter([*long, END])
    monkeypatch.setattr(shared, "draw_rows", lambda *args: [(next(script), 1.0, 1.0, 0, 0.0)])
    wanted = requests(llm, [PROMPT], 1, Sampling(heads="none"), 99)
    assert [answer.text for answer in shared.answer(llm, wanted, None, 1)] == [long_text]


def test_a_letter_comes_with_the_last_of_its_tokens(llm):
    tokens, pieces = byte_tokens(llm, LETTERS), TokenBytes(llm.model, special=True)
    expected = ["n", "", "é", " ", "", "", "漢", "", "", "字", " ", "", "", "", "🦙", "!"]
    assert texts_of(pieces[token] for token in tokens) == expected
    assert texts_of([b"a\xff", b"\xf0\x9f", b"b", b"\xe6\xbc"]) == ["a\ufffd", "", "\ufffdb", ""]

    def decode(some):
        return b"".join(pieces[token] for token in some).decode("utf-8", "replace")

    assert texts_by_decoding(tokens, decode) == expected
    ordinary = llm.tokenize("Llamas (🦙) eat 5 漢字 dishes".encode(), add_bos=False)
    assert "".join(texts_by_decoding(ordinary, decode)) == decode(ordinary)
    own = byte_tokens(llm, "\ufffd\ufffd") + tokens[:1]  # a text may hold the mark of broken letters itself
    assert "".join(texts_by_decoding(own, decode)) == "\ufffd\ufffdn"


def test_an_answer_of_a_hugging_face_model_ends_in_a_whole_letter(llm):
    model = pytest.importorskip("autodeco.hugging_face.model", exc_type=ImportError)
    pieces = TokenBytes(llm.model, special=True)
    theirs = Mock(chat_template=None, bos_token=None, eos_token=None, bos_token_id=None)
    theirs.decode = lambda some, **_: b"".join(map(pieces.__getitem__, some)).decode("utf-8", "replace")
    tokenizer = model.HuggingFaceTokenizer(theirs, {END})
    tokens = byte_tokens(llm, "né🦙")
    for length in range(1, len(tokens) + 1):
        assert tokenizer.answer_text(tokens[:length]) == "né🦙".encode()[:length].decode("utf-8", "ignore")
    assert tokenizer.answer_text([*tokens, END]) == "né🦙"


def test_a_users_own_tokenizer_stays(smollm2):
    class Own(llama_cpp.llama_tokenizer.BaseLlamaTokenizer):
        def tokenize(self, text, add_bos=True, special=True):
            return [5]

        def detokenize(self, tokens, prev_tokens=None, special=False):
            return b"own"

    llm = autodeco.Llama(str(smollm2), tokenizer=Own(), n_ctx=64, verbose=False)
    assert llm.detokenize([7]) == b"own"
    assert isinstance(llm.tokenizer(), WholeTokenizer)
    llm.close()


def test_the_rows_of_an_evaluation_hold_letters_and_long_tokens(llm, long):
    tokens = [*byte_tokens(llm, "字🦙"), long[0], END]
    answer = Answer("", "end", Decoding.from_rows([(token, 0.5, 0.9, 1, 1.0) for token in tokens]))
    row = answer_row(answer, True, TokenBytes(llm.model, special=True), AUTODECO)
    assert row["token_texts"] == ["", "", "字", "", "", "", "🦙", piece(llm, long[0]).decode(), "<|im_end|>"]


def test_the_report_of_a_training_holds_letters(llm, tmp_path, monkeypatch):
    report = pytest.importorskip("autodeco.training.report", exc_type=ImportError)
    pieces = TokenBytes(llm.model, special=True)
    run = Mock(directory=tmp_path)
    run.model.token_texts = lambda tokens: texts_of(pieces[token] for token in tokens)
    monkeypatch.setattr(report, "draw_report", lambda directory: None)
    tokens = [byte_tokens(llm, "漢"), byte_tokens(llm, "🦙")[:2], byte_tokens(llm, "é")]  # the second ends too early
    record = [index for index, some in enumerate(tokens) for _ in some]
    values = [0.5] * len(record)
    report.write_report(
        run,
        {
            "token": [token for some in tokens for token in some],
            "temperature": values,
            "top_p": values,
            "record": record,
        },
    )
    assert json.loads((tmp_path / "predictions.json").read_text())["text"] == ["", "", "漢", "", "", "", "é"]


def test_a_comparison_shows_letters(llm):
    tokens = [*byte_tokens(llm, "字"), END]
    answer = Answer("字", "end", Decoding.from_rows([(token, 0.5, 0.9, 1, 1.0) for token in tokens]))
    console = Console(file=io.StringIO(), width=200, color_system=None)
    show_answer(console, "AutoDeco", answer_row(answer, True, TokenBytes(llm.model, special=True), AUTODECO))
    assert console.file.getvalue().split() == ["AutoDeco", "right", "0.50", "0.50", "字", "0.50", "<|im_end|>", "0.50"]
