"""Answers drawn at servers: what servers are sent, what of their answers is believed, and that none is lost."""

import json
import math
import re
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

from autodeco import batch, cli
from autodeco.base.opening import open_vocabulary
from autodeco.errors import InputError
from autodeco.export.layout import open_layout
from autodeco.export.weights_digest import weights_digest
from autodeco.rollout_settings import RolloutSettings
from autodeco.rollouts import rollout
from autodeco.servers import pool
from autodeco.servers.drawing import Servers
from autodeco.servers.settings import ServerSettings
from builders.fake_server import FakeServer, pages_of_llama_cpp
from builders.random_heads import write_random_heads
from builders.server import running

N_VOCAB = 49152
END = 2  # <|im_end|>
FIXED = batch.Sampling(0.7, 0.9, 5, 0.1, heads="none")


@pytest.fixture(scope="module")
def vocabulary(smollm2):
    return open_vocabulary(smollm2)


def tokens_of(body: dict) -> list[int]:
    """An answer that follows from the request, as a model's does: some words, and the end."""
    random = np.random.default_rng([body["seed"], *body["prompt"]])
    most = body.get("n_predict") or body["max_tokens"]
    return [*random.integers(1000, 2000, 4).tolist(), END][:most]


def as_llama_cpp(path: str, body: dict) -> tuple[int, dict]:
    tokens = tokens_of(body)
    return 200, {"content": "not read where tokens are said", "tokens": tokens, "stop_type": "eos"}


def with_heads(path: str, body: dict) -> tuple[int, dict]:
    tokens = tokens_of(body)
    values = {"temperature": 0.5, "top_p": 0.75, "nucleus": 3, "prob": 0.25}
    columns = {name: [value] * len(tokens) for name, value in values.items()}
    return 200, {"choices": [{"text": "", "finish_reason": "stop", "autodeco": {"token": tokens} | columns}]}


def fake(answering=as_llama_cpp, **settings) -> FakeServer:
    seconds = settings.pop("seconds", 0.0)
    return FakeServer(answering, pages_of_llama_cpp(N_VOCAB, **settings), seconds)


def requests(n: int, sampling: batch.Sampling = FIXED, **settings) -> list[batch.Request]:
    return [batch.Request((5, 6, 7), sampling, 8, seed=100 + i, index=i, **settings) for i in range(n)]


def drawn(vocabulary, wanted, *servers: FakeServer, **settings) -> list[batch.Answer]:
    urls = ",".join(server.url for server in servers)
    answers = Servers(ServerSettings(urls, **settings), vocabulary).answer(wanted)
    return sorted(answers, key=lambda answer: answer.prompt)


def test_a_server_is_sent_the_setting_and_its_tokens_are_the_answer(vocabulary):
    with fake() as server:
        answers = drawn(vocabulary, requests(3), server)
    path, body = server.posts[0]
    assert path == "/completion"
    assert body["prompt"] == [5, 6, 7]
    wanted = {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "n_predict": 8, "autodeco": False}
    assert {name: body[name] for name in wanted} == wanted
    assert body["samplers"] == ["temperature", "min_p", "top_k", "top_p"]
    assert sorted(body["seed"] for _, body in server.posts) == [100, 101, 102]
    for answer, request in zip(answers, requests(3), strict=True):
        expected = tokens_of({"seed": request.seed, "prompt": [5, 6, 7], "max_tokens": 8})
        assert answer.decoding.token.tolist() == expected
        assert answer.text == vocabulary.detokenize(expected[:-1], special=True).decode()
        assert (answer.finish, answer.seed, answer.prompt) == ("end", request.seed, request.index)
        assert answer.decoding.temperature.tolist() == [pytest.approx(0.7)] * 5


def test_heads_are_asked_for_with_their_scales_and_their_values_come_back(vocabulary):
    with fake(with_heads, autodeco={"heads": "some.gguf"}) as server:
        (answer,) = drawn(vocabulary, requests(1, batch.Sampling(1.5, 0.8, heads="temperature")), server)
    path, body = server.posts[0]
    assert path == "/v1/completions"
    assert body["autodeco"] == {"temperature_scale": 1.5, "heads": "temperature", "values": True}
    assert "temperature" not in body
    assert body["top_p"] == 0.8  # that no head picks
    assert answer.decoding.temperature.tolist() == [0.5] * 5
    assert answer.decoding.top_p.tolist() == [0.75] * 5
    assert answer.decoding.nucleus.tolist() == [3] * 5


def test_both_heads_have_scales_and_what_a_server_does_not_know_is_none(vocabulary):
    def without_nucleus(path, body):
        status, answer = with_heads(path, body)
        answer["choices"][0]["autodeco"] |= {"nucleus": [None] * 5, "prob": [None] * 5, "top_p": [None] * 5}
        return status, answer

    with fake(without_nucleus, autodeco={}) as server:
        (answer,) = drawn(vocabulary, requests(1, batch.Sampling(1.5, 0.8)), server)
    asked = {"temperature_scale": 1.5, "top_p_scale": 0.8, "heads": "both", "values": True}
    assert server.posts[0][1]["autodeco"] == asked
    assert answer.decoding.nucleus.tolist() == [0] * 5
    assert answer.decoding.top_p.tolist() == [pytest.approx(0.8)] * 5
    assert all(math.isnan(p) for p in answer.decoding.prob.tolist())


def test_an_answer_ends_where_it_would_end_here(vocabulary):
    words = vocabulary.tokenize(b" one two three", add_bos=False)

    def talks_on(path, body):
        return 200, {"content": "", "tokens": words * 3, "stop_type": "limit"}

    with fake(talks_on) as server:
        (stopped,) = drawn(vocabulary, requests(1, stop=("two",)), server)
        (cut,) = drawn(vocabulary, requests(1), server)
    assert (stopped.text, stopped.finish) == (" one ", "stop")
    assert (len(cut.decoding), cut.finish) == (8, "length")


def test_a_server_that_says_no_tokens_is_read_by_its_text(vocabulary):
    def openai(path, body):
        reason = {"finish_reason": "length"} if body["seed"] == 101 else {"finish_reason": "stop", "stop_reason": None}
        return 200, {"choices": [{"text": " two words"} | reason]}

    pages = {"/v1/models": {"data": [{"id": "its name"}]}}
    with FakeServer(openai, pages) as server:
        ended, cut = drawn(vocabulary, requests(2), server)
    path, body = server.posts[0]
    assert (path, body["model"], body["top_k"]) == ("/v1/completions", "its name", 5)
    words = vocabulary.tokenize(b" two words", add_bos=False)
    assert (ended.finish, ended.decoding.token.tolist()) == ("end", [*words, END])
    assert (cut.finish, cut.decoding.token.tolist()) == ("length", words)
    assert all(math.isnan(p) for p in ended.decoding.prob.tolist())


def test_two_servers_give_the_answers_of_one_and_share_them(vocabulary):
    wanted = requests(40)
    with fake() as alone:
        of_one = drawn(vocabulary, wanted, alone)
    with fake(seconds=0.01) as one, fake(seconds=0.01) as other:
        of_two = drawn(vocabulary, wanted, one, other, in_flight=3)
    assert [answer.text for answer in of_two] == [answer.text for answer in of_one]
    assert len(one.posts) + len(other.posts) == 40
    assert min(len(one.posts), len(other.posts)) > 5
    assert max(one.most_at_once, other.most_at_once) == 3


def test_slots_say_how_many_requests_are_under_way(vocabulary):
    with fake(seconds=0.02, slots=2) as server:
        drawn(vocabulary, requests(10), server)
    assert server.most_at_once == 2


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(pool, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(pool, "LONGEST_PAUSE", 0.05)


@pytest.mark.parametrize("failure", [None, (503, {"error": {"message": "loading"}}), (500, b"oops"), (429, {})])
def test_losing_a_server_in_the_middle_loses_nothing(vocabulary, impatient, failure):
    left = iter(range(5))

    def dies(path, body):
        return as_llama_cpp(path, body) if next(left, None) is not None else failure

    with fake() as alone:
        expected = drawn(vocabulary, requests(40), alone)
    with fake(dies) as dying, fake(seconds=0.01) as other, pytest.warns(match=f"{dying.url}: gives no answer"):
        answers = drawn(vocabulary, requests(40), dying, other, in_flight=2)
    assert [answer.decoding.token.tolist() for answer in answers] == [a.decoding.token.tolist() for a in expected]
    assert len(other.posts) == 35


def test_a_server_that_comes_back_is_asked_again(vocabulary, impatient):
    calls = iter(range(1000))

    def pauses(path, body):
        return (503, {}) if 5 <= next(calls) < 8 else as_llama_cpp(path, body)

    with fake(pauses) as server, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        answers = drawn(vocabulary, requests(20), server, in_flight=1)
    assert len(answers) == 20
    messages = [str(warning.message) for warning in told]
    assert any("gives no answer (status 503" in message for message in messages)
    assert any("answers again" in message for message in messages)


def test_a_request_that_always_fails_ends_the_run(vocabulary, impatient):
    def ill(path, body):
        return None if body["seed"] == 103 else as_llama_cpp(path, body)

    with fake(ill) as server, pytest.warns(match="gives no answer"), pytest.raises(InputError, match="asked 8 times"):
        drawn(vocabulary, requests(6), server)


def test_when_no_server_is_left_the_run_ends(vocabulary, impatient, monkeypatch):
    monkeypatch.setattr(pool, "PATIENCE", 0.2)
    server = fake()
    with server:
        servers = Servers(ServerSettings(server.url), vocabulary)
    with pytest.warns(match="gives no answer"), pytest.raises(InputError, match="no server has answered for"):
        list(servers.answer(requests(3)))


def test_closing_the_answers_ends_the_requests(vocabulary):
    with fake(seconds=0.01, slots=1) as server:
        answers = Servers(ServerSettings(server.url), vocabulary).answer(requests(500))
        next(answers)
        answers.close()
        assert len(server.posts) < 20


REFUSED = {
    "an error": ((400, {"error": {"message": "no such \x1b[31mfield"}}), "status 400: no such ?"),
    "an error in words": ((404, {"error": "nothing here"}), "status 404: nothing here"),
    "another key": ((401, {"error": {"message": "invalid"}}), "set LLAMA_API_KEY"),
    "no JSON": ((200, b"<html>"), "no JSON: <html>"),
    "deep JSON": ((200, b"[" * 100_000), "no JSON"),
    "a list": ((200, []), "gave what is no answer"),
    "no choices": ((200, {"choices": []}), "gave what is no answer"),
    "no text": ((200, {"content": 5, "tokens": [1]}), "its text is no text"),
    "a foreign token": ((200, {"content": "", "tokens": [N_VOCAB]}), "it runs another model"),
    "a negative token": ((200, {"content": "", "tokens": [-1]}), "it runs another model"),
    "a token that is none": ((200, {"content": "", "tokens": [True]}), "it runs another model"),
    "an unknown end": ((200, {"choices": [{"text": "x", "finish_reason": "tool"}]}), "finish_reason is 'tool'"),
    "too much": ((200, b" " * ((1 << 26) + 1)), "more than 64 MiB"),
}


@pytest.mark.parametrize(("reply", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_answer_is_refused_in_one_line(vocabulary, reply, message):
    with fake(lambda path, body: reply) as server, pytest.raises(InputError) as told:
        drawn(vocabulary, requests(2), server)
    assert message in str(told.value)
    assert "\x1b" not in str(told.value)
    assert server.url in str(told.value)


VALUES = {
    "none": (None, "start it with --autodeco"),
    "a list missing": ({"token": [1], "temperature": [1.0]}, "KeyError 'top_p'"),
    "no list": ({"token": 1, "temperature": 1, "top_p": 1, "nucleus": 1, "prob": 1}, "no lists of one length"),
    "another length": (
        {"token": [1], "temperature": [1.0, 2.0], "top_p": [1.0], "nucleus": [1], "prob": [1.0]},
        "no lists of one length",
    ),
    "not finite": (
        {"token": [1], "temperature": [math.inf], "top_p": [1.0], "nucleus": [1], "prob": [1.0]},
        "a value of a token is no number",
    ),
    "negative": (
        {"token": [1], "temperature": [-1.0], "top_p": [1.0], "nucleus": [1], "prob": [1.0]},
        "a value of a token is no number",
    ),
    "NaN": (
        {"token": [1], "temperature": [1.0], "top_p": [math.nan], "nucleus": [1], "prob": [1.0]},
        "a value of a token is no number",
    ),
    "a nucleus beyond the vocabulary": (
        {"token": [1], "temperature": [1.0], "top_p": [1.0], "nucleus": [N_VOCAB + 1], "prob": [1.0]},
        "a value of a token is no number",
    ),
    "a text": (
        {"token": [1], "temperature": ["1"], "top_p": [1.0], "nucleus": [1], "prob": [1.0]},
        "a value of a token is no number",
    ),
    "no tokens": ({name: [] for name in ("token", "temperature", "top_p", "nucleus", "prob")}, "no tokens"),
}


@pytest.mark.parametrize(("values", "message"), VALUES.values(), ids=VALUES)
def test_values_that_are_none_are_refused(vocabulary, values, message):
    reply = (200, {"choices": [{"text": "x", "finish_reason": "stop", "autodeco": values}]})
    with fake(lambda path, body: reply, autodeco={}) as server, pytest.raises(InputError, match=re.escape(message)):
        drawn(vocabulary, requests(1, batch.Sampling()), server)


def test_what_servers_cannot_do_is_refused_before_they_are_asked(vocabulary):
    with fake() as server:
        servers = Servers(ServerSettings(server.url), vocabulary)
        with pytest.raises(InputError, match="has no heads; start autodeco-server"):
            next(servers.answer(requests(1, batch.Sampling())))
        with pytest.raises(InputError, match="503 tokens and an answer of 10 exceed the 512"):
            servers.check([batch.Request((5,) * 503, FIXED, 10, 0)])
        assert server.posts == []
    with fake(autodeco={}) as server, pytest.raises(InputError, match="take neither top_k nor min_p"):
        Servers(ServerSettings(server.url), vocabulary).check(requests(1, batch.Sampling(top_k=5)))


def test_a_server_of_another_model_or_of_nothing_is_refused(vocabulary):
    other = FakeServer(as_llama_cpp, pages_of_llama_cpp(32000))
    with other, pytest.raises(InputError, match="vocabulary of 32000"):
        Servers(ServerSettings(other.url), vocabulary)
    with pytest.raises(InputError, match=r"does not answer .*is it started"):
        Servers(ServerSettings(other.url), vocabulary)
    with FakeServer(as_llama_cpp, {}) as web, pytest.raises(InputError, match="neither /props nor /v1/models"):
        Servers(ServerSettings(web.url), vocabulary)


def test_the_key_of_the_environment_is_given(vocabulary, monkeypatch):
    monkeypatch.setenv("LLAMA_API_KEY", "secret")
    with fake() as server:
        Servers(ServerSettings(server.url), vocabulary)
    assert server.keys == {"Bearer secret"}


def test_addresses_are_read_as_people_write_them():
    settings = ServerSettings("127.0.0.1:8080, https://host/v1/,127.0.0.1:8080/v1")
    assert settings.urls == ["http://127.0.0.1:8080", "https://host"]
    assert ServerSettings().urls == []
    for wrong in ("ftp://host", "http://", "http://me:secret@host", "a b"):
        with pytest.raises(InputError, match="is no address"):
            _ = ServerSettings(wrong).urls


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    path = tmp_path_factory.mktemp("servers") / "problems.jsonl"
    rows = [{"prompt": f"Question: 1 + {i} = ?\nAnswer:", "answer": str(1 + i)} for i in range(1, 6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_rollout_that_a_refusal_ended_goes_on_with_what_is_missing(smollm2, problems, tmp_path):
    answered = []

    def refuses(path, body):
        if len(answered) == 9:
            return 400, {"error": {"message": "enough"}}
        answered.append(body["seed"])
        return as_llama_cpp(path, body)

    settings = RolloutSettings(checker="number", n=3, max_tokens=6, least_score=0.0, seed=5)
    whole, pieces = tmp_path / "whole.jsonl", tmp_path / "pieces.jsonl"

    def draw(output, server):
        servers = ServerSettings(server.url, in_flight=1)
        return rollout(smollm2, problems, output, settings, progress=False, servers=servers)

    with fake() as server:
        result = draw(whole, server)
    assert (result.problems, result.answers, result.kept) == (5, 15, 15)
    with fake(refuses) as server, pytest.raises(InputError, match="status 400: enough"):
        draw(pieces, server)
    assert not pieces.exists()
    with fake() as server:
        draw(pieces, server)
        assert 6 <= len(server.posts) < 15
    assert pieces.read_text() == whole.read_text()
    row = json.loads(whole.read_text().splitlines()[4])
    assert (row["problem"], row["sample"], row["finish"]) == (1, 1, "end")
    assert "temperature" not in row


def test_a_rollout_with_heads_at_a_server_keeps_their_values(smollm2, exported, problems, tmp_path):
    with fake(with_heads, autodeco={}) as server:
        arguments = ["--problems", problems, "--checker", "number", "--n", 2, "--max-tokens", 6, "--least-score", 0]
        arguments += ["--heads", exported("f32"), "--server", server.url, "-o", tmp_path / "out.jsonl"]
        assert cli.main(["rollout", str(smollm2), *map(str, arguments)]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["temperature"] for row in rows] == [[0.5] * 5] * 10
    assert [row["top_p"] for row in rows] == [[0.75] * 5] * 10


@pytest.mark.parametrize("command", ["rollout", "eval"])
def test_other_heads_at_a_server_are_refused(smollm2, exported, problems, tmp_path, capsys, command):
    other = tmp_path / "other.gguf"
    write_random_heads(other, smollm2)
    with fake(with_heads, autodeco={"weights": weights_digest(open_layout(other))}) as server:
        given = (
            ["--problems", problems]
            if command == "rollout"
            else ["--tasks", f"{problems}:number", "--validation", 2, "--test", 3]
        )
        given += ["--heads", exported("f32"), "--server", server.url, "-o", tmp_path / "out"]
        assert cli.main([command, str(smollm2), *map(str, given)]) == 2
        assert server.posts == []
    line = f"{server.url}: draws with other heads than those in {exported('f32')}; start it with these"
    assert line in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_heads_of_another_type_or_layout_are_the_same(vocabulary, exported):
    digests = {kind: weights_digest(open_layout(exported(kind))) for kind in ("f32", "f16", "bf16", "q8_0")}
    assert len(set(digests.values())) == 4
    for digest in digests.values():
        with fake(with_heads, autodeco={"weights": digest}) as server:
            Servers(ServerSettings(server.url), vocabulary, exported("f32"))
    assert weights_digest(open_layout(exported("f16", "embedded"))) == digests["f16"]
    assert weights_digest(open_layout(exported("f16", "merged"))) == digests["f16"]


def test_an_evaluation_at_servers_compares_what_they_can_draw(smollm2, exported, problems, tmp_path, capsys):
    def both(path, body):
        return as_llama_cpp(path, body) if path == "/completion" else with_heads(path, body)

    with fake(both, autodeco={}) as one, fake(both, autodeco={}) as other:
        arguments = ["--heads", exported("f32"), "--tasks", f"{problems}:number", "--validation", 2, "--test", 3]
        arguments += ["--samples", 2, "--ks", 1, "--temperatures", 0.5, "--top-ps", 0.9, "--max-tokens", 8]
        arguments += ["--server", f"{one.url},{other.url}", "-o", tmp_path]
        assert cli.main(["eval", str(smollm2), *map(str, arguments)]) == 0
    assert "rules that draw from them" in capsys.readouterr().out
    (report,) = tmp_path.glob("*/report.json")
    methods = json.loads(report.read_text())["tasks"][0]["methods"]
    assert {"AutoDeco", "greedy", "T 0.5 P 0.9", "mean shift", "mean shift in 1/T"} <= set(methods)
    assert not any("shuffle" in name or "dynatemp" in name for name in methods)
    assert len(one.posts) > 0
    assert len(other.posts) > 0


def test_without_servers_their_client_is_not_imported():
    modules = "autodeco.commands.eval, autodeco.evaluation.running, autodeco.rollouts"
    code = f"import sys, {modules}; print('httpx2' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


@pytest.mark.slow  # the server is compiled first
def test_two_real_servers_draw_what_is_drawn_here_and_losing_one_loses_nothing(smollm2, exported, problems, tmp_path):
    heads = exported("f32")
    settings = RolloutSettings(checker="number", n=4, max_tokens=12, least_score=0.0, seed=5)
    here, there = tmp_path / "here.jsonl", tmp_path / "there.jsonl"
    rollout(smollm2, problems, here, settings, heads, threads=1, progress=False)
    serving = ("-m", smollm2, "--autodeco", heads, "-c", 1024, "-np", 2)
    with running(tmp_path / "one", *serving) as one, running(tmp_path / "other", *serving) as other:
        threading.Timer(1.0, one.process.kill).start()
        servers = ServerSettings(f"{one.address},{other.address}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = rollout(smollm2, problems, there, settings, heads, progress=False, servers=servers)
    assert (result.problems, result.answers) == (5, 20)
    ours, theirs = ([json.loads(line) for line in path.read_text().splitlines()] for path in (here, there))
    assert [(row["problem"], row["sample"], row["seed"]) for row in theirs] == [
        (row["problem"], row["sample"], row["seed"]) for row in ours
    ]
    # batches of another size round differently, so a few texts part
    same = [(a, b) for a, b in zip(ours, theirs, strict=True) if a["completion_ids"] == b["completion_ids"]]
    assert len(same) >= 14
    for a, b in same:
        assert a["finish"] == b["finish"]
        np.testing.assert_allclose(a["temperature"], b["temperature"], atol=0.02)
        np.testing.assert_allclose(a["top_p"], b["top_p"], atol=0.02)
