"""Completions end where they should, whole or streamed, however their text is spread over tokens."""

import random
from unittest.mock import patch

import llama_cpp
import numpy as np
import pytest
from llama_cpp import llama_chat_format

import autodeco
from autodeco.base.token_bytes import TokenBytes
from autodeco.batch import Sampling, generate, shared
from autodeco.batch.request import requests
from autodeco.errors import InputError
from autodeco.llama.answer_text import AnswerText
from builders.scripted import byte_tokens, forcing, say_in_batches

PROMPT = "Once upon a time"
END = 2  # <|im_end|>
LETTERS = "né漢🦙!"


@pytest.fixture(scope="module", params=["heads", "no heads"])
def small(request, smollm2, exported):
    """A model with the least context that llama.cpp makes, 256 tokens."""
    heads = exported("f32") if request.param == "heads" else None
    model = autodeco.Llama(str(smollm2), heads, n_ctx=256, n_threads=1, n_threads_batch=1, verbose=False)
    yield model
    model.close()


def said(llm, prompt, tokens, **settings):
    """(text, finish, tokens) of a completion that samples ``tokens``, the same whole and streamed."""
    settings = {"temperature": 0.0, **settings}
    whole = llm(prompt, logits_processor=forcing(tokens), **settings)
    chunks = list(llm(prompt, logits_processor=forcing(tokens), stream=True, **settings))
    choice = whole["choices"][0]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == choice["text"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"][0]["finish_reason"] == choice["finish_reason"]
    return choice["text"], choice["finish_reason"], whole["usage"]["completion_tokens"]


@pytest.mark.parametrize("limit", range(1, 12))
def test_an_answer_has_no_more_tokens_than_asked_for(llm, limit):
    tokens = byte_tokens(llm, LETTERS)
    text = LETTERS.encode()[:limit].decode("utf-8", "ignore")
    assert said(llm, PROMPT, tokens, max_tokens=limit) == (text, "length", limit)


@pytest.mark.parametrize("room", range(1, 6))
def test_a_context_that_ends_inside_a_letter_ends_the_answer(small, room):
    prompt = small.tokenize(b" a" * (small.n_ctx() - room), add_bos=False)
    assert len(prompt) == small.n_ctx() - room
    text = "🦙!".encode()[:room].decode("utf-8", "ignore")
    for limit in (None, 0, 99):
        assert said(small, prompt, byte_tokens(small, "🦙!"), max_tokens=limit) == (text, "length", room)


def test_a_prompt_that_fills_the_context_is_refused(small):
    prompt = small.tokenize(b" a" * small.n_ctx(), add_bos=False)
    with pytest.raises(InputError, match=r"Requested tokens \(256\) exceed context window of 256"):
        small(prompt)
    with pytest.raises(InputError, match="logprobs is not supported"):
        small(PROMPT, logprobs=1)


def test_bytes_that_are_no_letter_are_marked(llm):
    a, begun, b = byte_tokens(llm, "a")[0], byte_tokens(llm, "漢")[0], byte_tokens(llm, "b")[0]
    assert said(llm, PROMPT, [a, begun, b, END], max_tokens=9) == ("a\ufffdb", "stop", 3)
    assert said(llm, PROMPT, [a, begun, END], max_tokens=9) == ("a", "stop", 2)


STOPS = [
    # what is said, in tokens of these texts; stop strings; what is left
    ([" hello"], ["lo", "he"], " "),
    ([" hello"], ["he", "lo"], " "),
    (["a", "b", "c"], ["c", "abc"], ""),
    (["a", "b", "c"], ["bc", "abc", "c"], ""),
    (["x", "a", "b", "a", "b", "d", "y"], ["abd"], "xab"),
    (["x", "a", "b"], ["abd"], "xab"),
    (["x", "a", "a", "a", "b"], ["aab", "zz"], "xa"),
    (["one", " two", " three"], [" three", "wo th"], "one t"),
    (["né", "!", "🦙", "?"], ["🦙"], "né!"),
    (["n", "é", "!"], ["é!", "!"], "n"),
]


@pytest.mark.parametrize(("texts", "stops", "left"), STOPS)
def test_the_stop_string_that_begins_first_ends_an_answer(llm, monkeypatch, texts, stops, left):
    tokens = [token for text in texts for token in llm.tokenize(text.encode(), add_bos=False)] + [END]
    ended = "stop" if any(stop in "".join(texts) for stop in stops) else "end"
    for listed in (stops, stops[::-1], tuple(stops)):
        assert said(llm, PROMPT, tokens, max_tokens=20, stop=listed)[:2] == (left, "stop")
    chat = llm.create_chat_completion(
        [{"role": "user", "content": PROMPT}], logits_processor=forcing(tokens), max_tokens=20, stop=stops
    )
    assert chat["choices"][0]["message"]["content"] == left
    script = iter(tokens)
    monkeypatch.setattr(shared, "draw_rows", lambda *args: [(next(script), 1.0, 1.0, 0, 0.0)])
    wanted = requests(llm, [PROMPT], 1, Sampling(heads="none"), 20, stops)
    assert [(answer.text, answer.finish) for answer in shared.answer(llm, wanted, None, 1)] == [(left, ended)]
    say_in_batches(monkeypatch, tokens)
    found = [(answer.text, answer.finish) for answer in generate(llm, [PROMPT], max_tokens=20, stop=stops)]
    assert found == [(left, ended)]


def test_texts_are_cut_the_same_however_they_come():
    rng = random.Random(5)
    for _ in range(2000):
        stops = ["".join(rng.choices("aé🦙", k=rng.randint(1, 4))) for _ in range(rng.randint(0, 3))]
        whole = "".join(rng.choices("aé🦙", k=12)).encode()
        cuts = sorted(rng.choices(range(len(whole) + 1), k=rng.randint(0, 12)))
        pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
        text, seen, given = AnswerText(stops), b"", ""
        for piece in pieces:
            seen += piece
            given += text.add(piece)
            letters = seen.decode("utf-8", "ignore")
            found = [letters.index(stop) for stop in stops if stop in letters]
            assert text.stopped == bool(found)
            if found:
                assert given == str(text) == letters[: min(found)]
                break
            assert letters.startswith(given)
            ends = [letters[len(given) - k :] for k in range(1, len(given) + 1)]
            assert not any(end.startswith(stop) for end in ends for stop in stops)
            assert str(text) == letters
        else:
            assert given + text.finish() == str(text) == whole.decode("utf-8", "ignore")


@pytest.mark.parametrize("stop", ["", [""], [5], 7])
def test_stop_strings_that_are_none_are_refused(llm, stop):
    with pytest.raises(InputError, match=r"stop .*: must be texts that are not empty"):
        llm(PROMPT, stop=stop)


def test_stopping_criteria_end_an_answer(llm):
    long_enough = llama_cpp.StoppingCriteriaList([lambda tokens, logits: len(tokens) >= 8])
    prompt = llm.tokenize(PROMPT.encode(), add_bos=False)
    tokens = byte_tokens(llm, "abcdefgh")
    text, finish, count = said(llm, prompt, tokens, max_tokens=20, stopping_criteria=long_enough)
    assert (text, finish, count) == ("abcdefgh"[: 8 - len(prompt)], "stop", 8 - len(prompt))


class LettersOnly(llama_cpp.llama_tokenizer.BaseLlamaTokenizer):
    """As Hugging Face's: it gives letters, and a mark where tokens give only a part of one."""

    def __init__(self, llm):
        self._own = llm.tokenizer()
        self.read = 0

    def tokenize(self, text, add_bos=True, special=True):
        return self._own.tokenize(text, add_bos, special)

    def _text(self, tokens):
        self.read += len(tokens)
        return self._own.detokenize(tokens).decode("utf-8", "replace")

    def detokenize(self, tokens, prev_tokens=None, special=False):
        before = prev_tokens or []
        return self._text(before + tokens)[len(self._text(before)) :].encode()


def test_a_tokenizer_of_letters_gives_the_same_texts(llm, monkeypatch):
    own = LettersOnly(llm)
    monkeypatch.setattr(llm, "tokenizer_", own)
    tokens = byte_tokens(llm, LETTERS * 3)
    assert said(llm, PROMPT, [*tokens, END], max_tokens=99) == (LETTERS * 3, "stop", len(tokens))
    cut = said(llm, PROMPT, tokens, max_tokens=len(tokens), stop="🦙!n")
    assert cut == (LETTERS[:3], "stop", len("né漢🦙!n".encode()))


def test_every_token_is_read_once(llm, monkeypatch):
    """And none again for the tokens behind it."""
    tokens = byte_tokens(llm, "abc" * 20)
    with patch.object(TokenBytes, "__getitem__", autospec=True, side_effect=TokenBytes.__getitem__) as read:
        list(llm(PROMPT, logits_processor=forcing(tokens), max_tokens=60, stop=["abd", "zz"], stream=True))
    assert read.call_count == 60
    own = LettersOnly(llm)
    monkeypatch.setattr(llm, "tokenizer_", own)
    list(llm(PROMPT, logits_processor=forcing(tokens), max_tokens=60, stop=["abd", "zz"], stream=True))
    assert own.read <= 60 * 34, "sixteen before, and one, twice"


def test_chunks_carry_each_value_once(llm):
    chunks = list(llm(PROMPT, max_tokens=12, seed=3, stream=True, autodeco=True, temperature=2.0))
    values = [chunk["choices"][0]["autodeco"]["token"] for chunk in chunks]
    assert [token for some in values for token in some] == llm.decoding.token.tolist()


@pytest.fixture(scope="module")
def with_logits(smollm2, exported):
    model = autodeco.Llama(
        str(smollm2), exported("f32"), n_ctx=256, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False
    )
    yield model
    model.close()


def test_logprobs_belong_to_their_tokens(with_logits):
    llm, tokens = with_logits, byte_tokens(with_logits, LETTERS)
    prompt = llm.tokenize(PROMPT.encode(), add_bos=False)
    settings = {"max_tokens": len(tokens), "logprobs": 3, "temperature": 0.0}
    found = llm(PROMPT, logits_processor=forcing(tokens), echo=True, **settings)["choices"][0]
    assert found["text"] == PROMPT + LETTERS
    assert "".join(found["logprobs"]["tokens"]) == PROMPT + LETTERS
    exact = np.array([llama_cpp.Llama.logits_to_logprobs(row) for row in llm.scores[: len(prompt + tokens) - 1]])
    assert found["logprobs"]["token_logprobs"][0] is None
    expected = [exact[i, token] for i, token in enumerate((prompt + tokens)[1:])]
    np.testing.assert_allclose(found["logprobs"]["token_logprobs"][1:], expected, rtol=1e-5)
    letters = np.cumsum([0, *map(len, found["logprobs"]["tokens"])])
    assert found["logprobs"]["text_offset"] == letters[:-1].tolist()
    assert max(found["logprobs"]["top_logprobs"][1].values()) == pytest.approx(exact[0].max(), rel=1e-5)

    alone = llm(PROMPT, logits_processor=forcing(tokens), **settings)["choices"][0]["logprobs"]
    rest = {name: values[len(prompt) :] for name, values in found["logprobs"].items()}
    chunks = list(llm(PROMPT, logits_processor=forcing(tokens), stream=True, **settings))
    streamed = [chunk["choices"][0] for chunk in chunks[:-1]]
    assert len(streamed) == len(tokens)
    assert "".join(choice["text"] for choice in streamed) == LETTERS
    for other in (rest, {name: [v for choice in streamed for v in choice["logprobs"][name]] for name in alone}):
        assert alone["tokens"] == other["tokens"]
        assert alone["text_offset"] == other["text_offset"]
        np.testing.assert_allclose(alone["token_logprobs"], other["token_logprobs"], atol=0.1)


def test_a_stream_begins_with_the_prompt_that_is_echoed(with_logits):
    settings = {"max_tokens": 4, "seed": 1, "echo": True, "autodeco": True}
    for logprobs in (None, 2):
        whole = with_logits(PROMPT, logprobs=logprobs, **settings)["choices"][0]
        choices = [c["choices"][0] for c in with_logits(PROMPT, logprobs=logprobs, stream=True, **settings)]
        assert choices[0]["text"] == PROMPT
        assert "".join(choice["text"] for choice in choices) == whole["text"]
        assert [token for choice in choices for token in choice["autodeco"]["token"]] == whole["autodeco"]["token"]
        if logprobs:
            parts = [choice["logprobs"] for choice in choices[:-1]]
            for name in ("tokens", "text_offset"):
                assert [value for part in parts for value in part[name]] == whole["logprobs"][name]


def test_logprobs_stop_where_the_text_does(with_logits):
    tokens = byte_tokens(with_logits, "abc")
    settings = {"max_tokens": 3, "logprobs": 1, "temperature": 0.0, "stop": ["bc"]}
    chunks = list(with_logits(PROMPT, logits_processor=forcing(tokens), stream=True, **settings))
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["a", ""]
    assert chunks[0]["choices"][0]["logprobs"]["tokens"] == ["a"]


def test_a_chat_format_without_an_end_of_text_still_answers(llm, monkeypatch):
    monkeypatch.setattr(llm, "_chat_handlers", {"own": ending_in("")})
    monkeypatch.setattr(llm, "chat_format", "own")
    chat = llm.create_chat_completion(
        [{"role": "user", "content": "Say abc."}], logits_processor=forcing(byte_tokens(llm, "abc")), max_tokens=3
    )
    assert chat["choices"][0]["message"]["content"] == "abc"


def ending_in(stop):
    formatter = llama_chat_format.Jinja2ChatFormatter("{{ messages[0].content }}", eos_token=stop, bos_token="")
    return formatter.to_chat_handler()
