"""Answers of `autodeco serve`: those of `autodeco.Llama`, with what was picked, whole and streamed."""

import itertools
import json
import math
import threading
import time

import llama_cpp
import numpy as np
import pytest

import autodeco
from autodeco.serve.options import IGNORE, MULTIPLY, OVERRIDE
from autodeco.serve.policy import Decision, Wishes, decide
from autodeco.serve.served_llama import ServedLlama
from builders.serving import CHAT, TEXT, serving

MESSAGES = [{"role": "user", "content": "Tell me a story."}]
# the golden heads pick tiny nuclei; with this their answers are many
WIDE = {"temperature_scale": 1.5, "top_p_scale": 2.5, "values": True}
ASKED = {"messages": MESSAGES, "max_tokens": 10, "seed": 4}


@pytest.fixture(scope="module")
def served(smollm2, exported):
    model = ServedLlama(str(smollm2), exported("f32"), n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False)
    yield model
    model.close()


@pytest.fixture(scope="module")
def client(served):
    with serving(served) as client:
        yield client


def answered(client, **settings) -> dict:
    return client.json(CHAT, {**ASKED, **settings})


def test_an_answer_is_that_of_llama_with_its_values(client, llm):
    client.json(CHAT, ASKED)  # so that both have read the prompt
    llm.create_chat_completion(**ASKED)
    answer = answered(client, autodeco=WIDE)
    expected = llm.create_chat_completion(**ASKED, temperature=1.5, top_p=2.5, autodeco=True)
    assert answer["choices"] == expected["choices"]
    assert answer["usage"] == expected["usage"]
    assert len(set(answer["choices"][0]["autodeco"]["temperature"])) == 10
    assert answer["model"] == "small"
    assert answer["autodeco_settings"] == {
        "heads": "both",
        "greedy": False,
        "temperature_scale": 1.5,
        "top_p_scale": 2.5,
        "fixed_temperature": None,
        "fixed_top_p": None,
        "ignored": [],
    }


def test_chunks_of_a_stream_are_the_answer(client):
    settings = {**ASKED, "autodeco": WIDE, "logprobs": True, "top_logprobs": 3}
    client.json(CHAT, settings)
    whole = client.json(CHAT, settings)
    chunks = client.chunks(CHAT, settings | {"stream_options": {"include_usage": True}})
    usage = chunks.pop()
    assert usage["usage"] == whole["usage"]
    assert usage["choices"] == []
    assert chunks[-1]["autodeco_settings"] == whole["autodeco_settings"]
    assert all("autodeco_settings" not in chunk for chunk in chunks[:-1])
    choices = [chunk["choices"][0] for chunk in chunks]
    (expected,) = whole["choices"]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == expected["message"]["content"]
    for name, values in expected["autodeco"].items():
        assert [value for choice in choices for value in choice["autodeco"][name]] == values
    found = [entry for choice in choices for entry in (choice["logprobs"] or {"content": []})["content"]]
    assert found == expected["logprobs"]["content"]
    assert choices[-1]["finish_reason"] == expected["finish_reason"] == "length"


def test_each_logprob_stands_beside_what_its_token_was_picked_with(client, served):
    answer = answered(client, logprobs=True, top_logprobs=4, autodeco=WIDE)["choices"][0]
    entries, values = answer["logprobs"]["content"], answer["autodeco"]
    assert "".join(entry["token"] for entry in entries) == answer["message"]["content"]
    for name in ("temperature", "top_p"):
        assert [entry[name] for entry in entries] == values[name]
    # by a forward pass over the whole text, which a quantized model rounds differently
    handler = served._chat_handlers["chat_template.default"]
    begun = handler(llama=served, messages=MESSAGES, max_tokens=1)["usage"]["prompt_tokens"]
    prompt = served.input_ids[:begun].tolist()
    for i in (0, 4):
        served.reset()
        served.eval(prompt + values["token"][:i])
        seen: list = []
        see = llama_cpp.LogitsProcessorList([lambda ids, logits, seen=seen: (seen.append(logits.copy()), logits)[1]])
        served.sample(logits_processor=see, temp=0.0)
        exact = seen[0].astype(float) - np.logaddexp.reduce(seen[0].astype(float))
        assert entries[i]["logprob"] == pytest.approx(exact[values["token"][i]], abs=0.5)
        top = [entry["logprob"] for entry in entries[i]["top_logprobs"]]
        assert top == pytest.approx(np.sort(exact)[::-1][:4].tolist(), abs=0.5)
    served.reset()


def test_the_prompt_alone_is_completed_with_logprobs_of_its_kind(client):
    asked = {"prompt": "Once upon a time", "max_tokens": 6, "seed": 1, "logprobs": 2, "autodeco": True}
    answer = client.json(TEXT, asked)["choices"][0]
    assert "".join(answer["logprobs"]["tokens"]) == answer["text"]
    assert answer["logprobs"]["temperature"] == answer["autodeco"]["temperature"]
    assert answer["logprobs"]["top_p"] == answer["autodeco"]["top_p"]
    assert [len(top) for top in answer["logprobs"]["top_logprobs"]] == [2] * 6


SCALED = Wishes("both", 1.5, 0.5)
HOT, COLD = {"temperature": 0.3, "top_p": 0.9}, {"temperature": 0.0, "top_p": 0.9}
CUT = {"top_k": 9, "min_p": 0.1, "xtc_probability": 0.5, "mirostat_mode": 2, "repeat_penalty": 1.1}
CUTS_OF_IT = ("top_k", "min_p", "xtc_probability", "mirostat_mode")


@pytest.mark.parametrize(
    ("policy", "wishes", "settings", "expected"),
    [
        (IGNORE, Wishes(), {}, ("both", 1.0, 1.0, ())),
        (IGNORE, Wishes(), HOT, ("both", 1.0, 1.0, ("temperature", "top_p"))),
        (IGNORE, Wishes(), COLD, ("both", 0.0, 1.0, ("top_p",))),
        (IGNORE, Wishes(), CUT, ("both", 1.0, 1.0, CUTS_OF_IT)),
        (IGNORE, SCALED, {"temperature": 0.3}, ("both", 1.5, 0.5, ("temperature",))),
        (IGNORE, Wishes("temperature", 1.5, 0.5), HOT, ("temperature", 1.5, 0.9, ("temperature",))),
        (IGNORE, Wishes("top_p", 1.5, 0.5), COLD, ("top_p", 0.0, 0.5, ("top_p",))),
        (IGNORE, Wishes("none", 1.5, 0.5), {"temperature": 0.3} | CUT, ("none", 0.3, 1.0, ())),
        (MULTIPLY, SCALED, HOT, ("both", 1.5 * 0.3, 0.5 * 0.9, ())),
        (MULTIPLY, Wishes(), {"top_p": 0.9} | CUT, ("both", 1.0, 0.9, ("mirostat_mode",))),
        (MULTIPLY, Wishes("temperature", 1.5, 0.5), HOT, ("temperature", 1.5 * 0.3, 0.9, ())),
        (OVERRIDE, SCALED, HOT, ("none", 0.3, 0.9, ())),
        (OVERRIDE, SCALED, {"temperature": 0.3}, ("top_p", 0.3, 0.5, ())),
        (OVERRIDE, Wishes(), {"top_p": 0.9}, ("temperature", 1.0, 0.9, ())),
        (OVERRIDE, Wishes(), {}, ("both", 1.0, 1.0, ())),
        (OVERRIDE, Wishes(), COLD, ("temperature", 0.0, 0.9, ())),
    ],
)
def test_who_decides_about_temperature_and_top_p(policy, wishes, settings, expected):
    assert decide(policy, ["temperature", "top_p"], wishes, settings) == Decision(*expected)
    without = decide(policy, [], wishes, settings)
    assert without == Decision("none", settings.get("temperature", 1.0), settings.get("top_p", 1.0), ())
    alone = decide(policy, ["top_p"], wishes, settings)
    assert alone.heads in ("top_p", "none")
    assert alone.temperature == settings.get("temperature", 1.0)


def test_a_temperature_of_0_is_greedy_and_another_is_ignored(client, llm):
    greedy = answered(client, temperature=0)
    expected = llm.create_chat_completion(**ASKED, temperature=0.0)
    assert greedy["choices"][0]["message"] == expected["choices"][0]["message"]
    assert greedy["autodeco_settings"]["greedy"]
    hot = answered(client, temperature=1.9, top_p=0.2, top_k=1, autodeco=WIDE)
    assert hot["choices"] == answered(client, autodeco=WIDE)["choices"]
    assert hot["autodeco_settings"]["ignored"] == ["temperature", "top_p", "top_k"]


def test_heads_that_are_off_leave_the_settings_to_the_request(client):
    values = {"heads": "none", "values": True}
    answer = answered(client, temperature=0.8, top_p=0.7, autodeco=values)
    assert answer["choices"][0]["autodeco"]["temperature"] == pytest.approx([0.8] * 10)
    assert answer["choices"][0]["autodeco"]["top_p"] == pytest.approx([0.7] * 10)
    assert answer["autodeco_settings"]["fixed_temperature"] == 0.8
    off = answered(client, temperature=0.8, top_p=0.7, autodeco=False)
    assert off["choices"][0]["message"] == answer["choices"][0]["message"]
    assert "autodeco" not in off["choices"][0]
    assert off["autodeco_settings"]["heads"] == "none"


def test_policies_reach_the_draw(served):
    for policy, multiplied in ((MULTIPLY, True), (OVERRIDE, False)):
        with serving(served, policy) as client:
            answer = answered(client, temperature=0.5, top_p=0.9, autodeco=True)
        temperatures = answer["choices"][0]["autodeco"]["temperature"]
        assert (len(set(temperatures)) > 1) == multiplied
        made = answer["autodeco_settings"]
        assert made["heads"] == ("both" if multiplied else "none")
        assert made["temperature_scale" if multiplied else "fixed_temperature"] == 0.5


def test_a_model_without_heads_is_served_by_ordinary_settings(smollm2):
    plain = ServedLlama(str(smollm2), n_ctx=256, n_threads=1, n_threads_batch=1, verbose=False)
    with serving(plain) as client:
        answer = answered(client, temperature=0.5, max_tokens=4, autodeco=False, logprobs=True)
        assert "autodeco" not in answer["choices"][0]
        assert len(answer["choices"][0]["logprobs"]["content"]) == 4
        assert "temperature" not in answer["choices"][0]["logprobs"]["content"][0]
        assert answer["autodeco_settings"]["heads"] == "none"
        assert answer["autodeco_settings"]["fixed_temperature"] == 0.5
        assert client.json("/props")["autodeco"] is None
        assert client.error(CHAT, ASKED | {"autodeco": True}) == (
            400,
            'autodeco: this server has no heads; start it with --heads, or send "autodeco": false',
        )
    plain.close()


def test_fields_that_nobody_knows_and_nulls_do_no_harm(client):
    answered(client)  # which reads the prompt in a batch of its own
    known = answered(client, autodeco=WIDE)
    odd = {"unknown": {"a": [1]}, "top_k": None, "autodeco": WIDE | {"later": 1}, "reasoning_effort": "low", "n": None}
    assert answered(client, **odd)["choices"] == known["choices"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"autodeco": 3}, 'autodeco: must be true, false or an object like {"heads": "both", "values": true}'),
        ({"autodeco": {"heads": "upper"}}, "autodeco.heads upper: must be one of both, temperature, top_p, none"),
        ({"autodeco": {"temperature_scale": -1}}, "autodeco.temperature_scale -1.0: must be between 0.0 and 1000.0"),
        ({"autodeco": {"top_p_scale": "x"}}, "autodeco.top_p_scale 'x': must be a number"),
        ({"autodeco": {"values": 1}}, "autodeco.values 1: must be true or false"),
        ({"temperature": -0.1}, "temperature: Input should be greater than or equal to 0"),
        ({"temperature": math.nan}, "temperature: Input should be a finite number"),
        ({"top_p": 1.5}, "top_p: Input should be less than or equal to 1"),
        ({"max_tokens": "many"}, "max_tokens: Input should be a valid integer, unable to parse string as an integer"),
        ({"max_tokens": 0}, "max_tokens: must be at least 1; -1 is as many as there is room for"),
        ({"max_tokens": -2}, "max_tokens: must be at least 1"),
        ({"max_completion_tokens": 0}, "max_completion_tokens: must be at least 1"),
        ({"messages": []}, "the request: messages must be a list with at least one message"),
        ({"messages": "Hi"}, "messages: Input should be a valid list"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "a part of type image_url is in"),
        ({"mirostat_mode": 3}, "mirostat_mode: Input should be less than or equal to 2"),
        ({"grammar": "one ::= x"}, "llama.cpp cannot read the grammar"),
        ({"response_format": {"type": "yaml"}}, "its type must be text, json_object or json_schema"),
        ({"n": 2, "logprobs": True}, "logprobs and n: ask for one choice at a time with log-probabilities"),
        ({"messages": [{"role": "user", "content": "a " * 600}]}, "exceed context window of 512"),
        ({"logit_bias": {"99999999": 1}}, "logit_bias: token 99999999 is outside the vocabulary of 49152"),
        ({"logit_bias": {"5": math.inf}}, "logit_bias {'5': inf}: holds NaN, or more than a float32 does"),
        ({"messages": [{"role": "user", "content": "a\ud83e"}]}, "messages: holds half a surrogate pair"),
        ({"stop": ["\ud83e"]}, "stop: holds half a surrogate pair"),
        ({"grammar": 'root ::= "\ud83e"'}, "grammar: holds half a surrogate pair"),
        ({"grammar": "root ::= " + "(" * 200_000 + '"a"' + ")" * 200_000}, "grammar: has more than 1000 groups"),
        ({"tools": [{"type": "function", "function": {"name": "\ud83e"}}]}, "tools: holds half a surrogate pair"),
        ({"tools": [{}], "tool_choice": {"function": {"name": "now"}}}, "tools: each needs a function with a name"),
        ({"tool_choice": {"function": {"name": "now"}}}, "names none of the tools"),
        ({"tool_choice": "now"}, "tool_choice 'now': must be none, auto, required, or an object with a name"),
        ({"response_format": {"type": "json_object", "schema": {"allOf": 5}}}, "must be a list of schemas"),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_requests_that_make_no_sense_are_refused_in_one_line(client, fields, message, stream):
    status, found = client.error(CHAT, {**ASKED, "stream": stream, **fields})
    assert status == 400
    assert message in found


def test_what_is_no_request_is_refused(client):
    assert client.error(CHAT, "{") == (400, "the request is no valid JSON")
    unsaid = "the request is not said to be JSON; send Content-Type: application/json"
    form = {"Content_Type": "application/x-www-form-urlencoded"}  # as curl -d sends it without -H
    assert client.error(CHAT, ASKED, **form) == (400, unsaid)
    assert client.error(CHAT, "") == (400, "the request: Field required")
    assert client.error("/v2/nothing") == (404, "/v2/nothing: there is no such address")
    for limit in (0, -2):
        assert client.error(TEXT, {"prompt": "a", "max_tokens": limit}) == (
            400,
            "max_tokens: must be at least 1; -1 is as many as there is room for",
        )
    assert client.error(TEXT, {"prompt": ["a", "b"]}) == (400, "prompt: holds 2 texts; send one request for each")
    assert client.error(CHAT)[0] == 405


@pytest.mark.parametrize("tokens", [0, 2], ids=["at once", "later"])
def test_a_failure_of_the_server_is_told_in_the_form_of_errors(client, served, monkeypatch, tokens):
    """Before the first chunk with status 500, and then as the last event; the server goes on."""
    stock = autodeco.Llama.generate

    def broken(*args, **settings):
        yield from itertools.islice(stock(*args, **settings), tokens)
        raise RuntimeError("the device is gone")

    with monkeypatch.context() as context:
        context.setattr(autodeco.Llama, "generate", broken)
        line = "the server failed at this request (RuntimeError: the device is gone)"
        assert client.error(CHAT, ASKED) == (500, line)
        if tokens == 0:
            assert client.error(CHAT, ASKED | {"stream": True}) == (500, line)
        else:
            _, _, text = client.ask(CHAT, ASKED | {"stream": True})
            events = [json.loads(event.removeprefix("data: ")) for event in text.split("\n\n") if event]
            assert events.pop()["error"] == {"message": line, "type": "server_error", "param": None, "code": None}
            assert all("choices" in event for event in events)
    assert answered(client)["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_client_that_goes_stops_the_generation(client, stream):
    """The tokens that are counted after the connection was closed stay far below what was asked for."""
    before = client.metrics()["autodeco:tokens_total"]
    connection = client.begin(CHAT, {**ASKED, "max_tokens": 400, "stream": stream, "logit_bias": {"2": -100}})
    if stream:
        connection.getresponse().read(40)
    else:
        time.sleep(0.5)
    connection.close()
    answered(client, max_tokens=2)  # has its turn when the other has ended
    assert client.metrics()["autodeco:tokens_total"] - before < 300


def test_requests_at_once_are_answered_one_after_the_other(client):
    expected = [answered(client, seed=seed, autodeco=WIDE)["choices"] for seed in (1, 2, 1, 2, 3)][2:]
    found = {}
    threads = [
        threading.Thread(target=lambda seed=seed: found.update({seed: answered(client, seed=seed, autodeco=WIDE)}))
        for seed in (1, 2, 3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[seed]["choices"] for seed in (1, 2, 3)] == expected


def test_metrics_are_of_all_tokens_that_heads_decided(served):
    with serving(served) as client:
        assert client.metrics()["autodeco:tokens_total"] == 0
        answers = [answered(client, seed=seed, autodeco=WIDE) for seed in (1, 2)]
        answered(client, autodeco=False)
        found = client.metrics()
    values = [answer["choices"][0]["autodeco"] for answer in answers]
    nuclei = [size for value in values for size in value["nucleus"]]
    assert found["autodeco:tokens_total"] == len(nuclei) == 20
    assert found["autodeco:greedy_tokens_total"] == nuclei.count(1)
    assert found["autodeco:greedy_share"] == nuclei.count(1) / 20
    for name in ("temperature", "top_p"):
        mean = np.mean([value[name] for value in values])
        assert found[f"autodeco:{name}_mean"] == pytest.approx(mean, rel=1e-5)


def test_what_is_served_is_told(client, served):
    assert client.json("/health") == {"status": "ok"}
    (model,) = client.json("/v1/models")["data"]
    assert (model["id"], model["meta"]["n_vocab"]) == ("small", 49152)
    told = client.json("/props")
    assert told["default_generation_settings"]["n_ctx"] == 512
    about = told["autodeco"]
    assert (about["file"], about["fits"], about["verdict"]) == ("sidecar-f32.gguf", True, None)
    assert (about["temperature"], about["top_p"], about["client_sampling"]) == (True, True, "ignore")
    tokens = client.json("/extras/tokenize", {"input": "Hello"})["tokens"]
    assert served.detokenize(tokens) == b"Hello"


def test_tokens_are_told_of_texts_and_texts_of_tokens(client, served):
    letter = "🦄".encode()
    tokens = client.json("/extras/tokenize", {"input": "🦄"})["tokens"]
    assert len(tokens) > 1
    assert b"".join(served.detokenize([token]) for token in tokens) == letter
    assert client.json("/extras/tokenize/count", {"input": "🦄"}) == {"count": len(tokens)}
    assert client.json("/extras/detokenize", {"tokens": tokens}) == {"text": "🦄"}
    assert client.json("/extras/detokenize", {"tokens": tokens[:1]}) == {"text": "\ufffd"}


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/extras/tokenize", {"input": "\ud83e"}, "input: holds half a surrogate pair"),
        ("/extras/tokenize/count", {"input": "\ud83e"}, "input: holds half a surrogate pair"),
        ("/extras/detokenize", {"tokens": [10**6]}, "token 1000000 is outside the vocabulary of 49152"),
        ("/extras/detokenize", {"tokens": [-1]}, "token -1 is outside the vocabulary"),
        ("/extras/detokenize", {"tokens": ["a"]}, "tokens.0: Input should be a valid integer"),
    ],
)
def test_what_has_no_tokens_is_refused_in_one_line(client, path, body, message):
    status, found = client.error(path, body)
    assert status == 400
    assert message in found
