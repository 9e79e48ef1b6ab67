"""autodeco-server against autodeco.Llama: the same values and tokens, in the graph and on the host."""

import json
import subprocess
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import autodeco
from autodeco.serve.page import headers as page_headers
from autodeco.serve.page import page
from builders.server import command, running

pytestmark = pytest.mark.slow  # the server is compiled first

STORY = "Once upon a time, in a small village by the sea,"
OTHERS = ["The capital of France is", "def add(a, b):", "Roses are red,"]
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
N = 16
VALUES = {"temperature", "top_p", "nucleus", "prob", "token"}


@pytest.fixture(scope="module")
def llm(smollm2, exported):
    model = autodeco.Llama(
        str(smollm2), exported("f32"), n_ctx=512, n_threads=1, n_threads_batch=1, flash_attn=True, verbose=False
    )
    yield model
    model.close()


@pytest.fixture(scope="module")
def server(smollm2, exported, tmp_path_factory):
    log = tmp_path_factory.mktemp("server") / "log"
    with running(log, "-m", smollm2, "--autodeco", exported("f32"), "-c", 2048, "-np", 4, "-ub", 64) as started:
        yield started


def expected(llm, seed: int, prompt: str = STORY, **settings) -> dict:
    llm.reset()
    llm.set_seed(seed)
    llm.create_completion(prompt, max_tokens=N, seed=seed, **settings)
    return llm.decoding.to_dict()


def values(answer: dict) -> dict:
    return (answer["choices"][0] if "choices" in answer else answer)["autodeco"]


def assert_same(found: dict, wanted: dict) -> None:
    assert set(found) == VALUES
    assert found["token"] == wanted["token"]
    for name in ("temperature", "top_p", "prob"):
        np.testing.assert_allclose(found[name], wanted[name], atol=2e-3)


@pytest.mark.parametrize("where", [{}, {"backend_sampling": False}, {"n_probs": 3}])
@pytest.mark.parametrize("seed", [7, 11])
def test_it_draws_what_python_draws_in_the_graph_and_on_the_host(server, llm, seed, where):
    answer = server.post("/completion", prompt=STORY, n_predict=N, seed=seed, autodeco=True, **where)
    assert_same(values(answer), expected(llm, seed))
    assert answer["content"] == llm.detokenize(values(answer)["token"]).decode()


def test_scales_multiply_as_in_python(server, llm):
    asked = {"temperature_scale": 1.5, "top_p_scale": 2.0}
    answer = server.post("/completion", prompt=STORY, n_predict=N, seed=5, autodeco=asked)
    assert_same(values(answer), expected(llm, 5, temperature=1.5, top_p=2.0))


def test_temperature_0_is_greedy_under_any_policy(server, llm):
    answer = server.post("/v1/completions", prompt=STORY, max_tokens=N, temperature=0, autodeco=True)
    assert values(answer)["token"] == expected(llm, 0, temperature=0)["token"]
    assert answer["autodeco_settings"]["greedy"] is True


def test_settings_of_clients_are_ignored_and_that_is_said(server):
    plain = server.post("/v1/completions", prompt=STORY, max_tokens=N, seed=3, autodeco=True)
    sent = {"temperature": 0.7, "top_p": 0.5, "top_k": 1, "min_p": 0.9}
    other = server.post("/v1/completions", prompt=STORY, max_tokens=N, seed=3, autodeco=True, **sent)
    assert values(other)["token"] == values(plain)["token"]
    assert plain["autodeco_settings"]["ignored"] == []
    assert sorted(other["autodeco_settings"]["ignored"]) == sorted(sent)


@pytest.mark.parametrize("policy", ["multiply", "override"])
def test_other_policies(smollm2, exported, llm, tmp_path, policy):
    arguments = ["-m", smollm2, "--autodeco", exported("f32"), "-c", 512, "-np", 1, "--client-sampling", policy]
    with running(tmp_path / "log", *arguments) as server:
        body = {"prompt": STORY, "max_tokens": N, "seed": 9, "autodeco": True, "temperature": 1.25, "top_p": 0.75}
        for where in ({}, {"backend_sampling": False}):
            answer = server.post("/v1/completions", **body, **where)
            made = answer["autodeco_settings"]
            assert made["ignored"] == []
            if policy == "multiply":
                assert (made["temperature_scale"], made["top_p_scale"]) == (1.25, 0.75)
                assert_same(values(answer), expected(llm, 9, temperature=1.25, top_p=0.75))
            else:
                assert values(answer)["temperature"] == [1.25] * N
                assert values(answer)["top_p"] == [0.75] * N
        cut = server.post("/v1/completions", prompt=STORY, max_tokens=N, autodeco=True, top_k=1)
        assert set(values(cut)["nucleus"]) == {1}
        assert json.loads(server.get("/props"))["autodeco"]["client_sampling"] == policy


def test_a_head_that_is_left_out_leaves_its_value_to_the_client(server, llm):
    asked = {"heads": "temperature"}
    answer = server.post("/v1/completions", prompt=STORY, max_tokens=N, seed=3, top_p=0.5, autodeco=asked)
    assert set(values(answer)["top_p"]) == {0.5}
    assert values(answer)["temperature"][0] == pytest.approx(expected(llm, 3)["temperature"][0], abs=2e-3)
    assert answer["autodeco_settings"]["heads"] == "temperature"


@pytest.mark.parametrize("asked", [False, {"heads": "none"}])
def test_without_heads_it_is_llama_server(server, asked):
    answer = server.post("/completion", prompt=STORY, n_predict=4, top_k=1, autodeco=asked)
    assert "autodeco" not in answer
    assert "autodeco_settings" not in answer
    backend = server.post("/completion", prompt=STORY, n_predict=4, top_k=1, autodeco=asked, backend_sampling=True)
    assert backend["content"] == answer["content"]


def test_values_are_left_out_unless_asked_for(server):
    answer = server.post("/v1/completions", prompt=STORY, max_tokens=2)
    assert "autodeco" not in answer["choices"][0]
    assert answer["autodeco_settings"]["heads"] == "both"


def test_slots_in_parallel_give_what_they_give_alone(server):
    body = {"n_predict": 24, "autodeco": True, "seed": 4}
    prompts = [STORY, *OTHERS]
    alone = [server.post("/completion", prompt=prompt, temperature=0, **body) for prompt in prompts]
    with ThreadPoolExecutor(4) as pool:
        wheres = [{}, {"n_probs": 1}, {}, {"backend_sampling": False}]
        together = list(
            pool.map(
                lambda at: server.post("/completion", prompt=prompts[at], temperature=0, **body, **wheres[at]), range(4)
            )
        )
    for one, other in zip(alone, together, strict=True):
        assert one["content"] == other["content"]
        assert_same(values(other), values(one))


def test_a_long_prompt_beside_an_answer_leaves_its_values_alone(server, smollm2):
    """The prompt of one slot takes several graphs; in all but the first the other slot has no output."""
    alone = server.post("/completion", prompt=STORY, n_predict=24, temperature=0, n_probs=1, autodeco=True)
    long = " ".join(str(number) for number in range(100))
    for where in ({"n_probs": 1}, {}):
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(
                server.post, "/completion", prompt=STORY, n_predict=24, temperature=0, autodeco=True, **where
            )
            second = pool.submit(
                server.post, "/completion", prompt=long, n_predict=1, temperature=0, cache_prompt=False, autodeco=True
            )
            assert_same(values(first.result()), values(alone))
            assert len(values(second.result())["token"]) == 1


def test_a_grammar_goes_with_heads(server):
    answer = server.post("/completion", prompt=STORY, n_predict=8, grammar="root ::= [0-9]+", seed=2, autodeco=True)
    assert answer["content"].isdigit()
    assert all(0 < temperature < 2 for temperature in values(answer)["temperature"])


def test_logprobs_have_the_values_beside_them(server):
    answer = server.post("/v1/chat/completions", messages=QUESTION, max_tokens=6, seed=1, logprobs=True, autodeco=True)
    rows = answer["choices"][0]["logprobs"]["content"]
    assert [row["temperature"] for row in rows] == values(answer)["temperature"]
    assert [row["top_p"] for row in rows] == values(answer)["top_p"]
    rows = server.post("/completion", prompt=STORY, n_predict=4, n_probs=2)["completion_probabilities"]
    assert all(0 < row["temperature"] < 2 for row in rows)


def test_probabilities_after_sampling_are_those_of_the_draw(server):
    asked = {"prompt": STORY, "n_predict": N, "seed": 7, "autodeco": True, "n_probs": 8, "post_sampling_probs": True}
    answer = server.post("/completion", **asked)
    nuclei = values(answer)["nucleus"]
    assert max(nuclei) > 8
    rows = answer["completion_probabilities"]
    for row, nucleus, prob in zip(rows, nuclei, values(answer)["prob"], strict=True):
        told = [top["prob"] for top in row["top_probs"]]
        assert len(told) == min(nucleus, 8)
        assert told == sorted(told, reverse=True)
        assert row["prob"] == pytest.approx(prob, abs=1e-4)
        if nucleus <= 8:
            assert sum(told) == pytest.approx(1, abs=1e-4)
    greedy = server.post("/completion", **asked | {"temperature": 0})
    assert [row["prob"] for row in greedy["completion_probabilities"]] == [1.0] * N


@pytest.mark.parametrize("prompt", [STORY, "Repeat: 😀😀😀 😀😀😀 😀"])
def test_streams_tell_of_every_token_once(server, prompt):
    whole = server.post("/v1/completions", prompt=prompt, max_tokens=N, temperature=0, autodeco=True)
    chunks = server.stream("/v1/completions", prompt=prompt, max_tokens=N, temperature=0, autodeco=True)
    streamed = {name: [one for chunk in chunks for one in values(chunk)[name]] for name in VALUES}
    assert streamed == values(whole)
    assert chunks[-1]["autodeco_settings"] == whole["autodeco_settings"]


def test_streamed_chats_tell_of_every_token_once(server):
    body = {"messages": QUESTION, "max_tokens": N, "temperature": 0, "autodeco": {"values": True}}
    whole = server.post("/v1/chat/completions", **body)
    chunks = server.stream("/v1/chat/completions", **body)
    told = [chunk["choices"][0]["autodeco"] for chunk in chunks if "autodeco" in chunk["choices"][0]]
    assert {name: [one for part in told for one in part[name]] for name in VALUES} == values(whole)
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert text == whole["choices"][0]["message"]["content"]


def test_several_answers_to_one_prompt(server, llm):
    answer = server.post("/v1/completions", prompt=STORY, max_tokens=N, seed=21, n=3, autodeco=True)
    choices = sorted(answer["choices"], key=lambda choice: choice["index"])
    for i, choice in enumerate(choices):
        assert_same(choice["autodeco"], expected(llm, 21 + i))


@pytest.mark.parametrize("where", [{}, {"n_probs": 1}])
def test_speculation_leaves_answers_and_their_values_as_they_are(smollm2, exported, tmp_path, where):
    prompt = "one two three one two three one two three one two"
    bodies = [
        {"prompt": prompt, "n_predict": 32, "autodeco": True, **where, **how}
        for how in ({"temperature": 0}, {"seed": 5})
    ]
    arguments = ["-m", smollm2, "--autodeco", exported("f32"), "-c", 1024, "-np", 2]
    with running(tmp_path / "plain", *arguments) as server:
        plain = [server.post("/completion", **body) for body in bodies]
    speculation = ["--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", 3, "--spec-ngram-simple-size-m", 6]
    with running(tmp_path / "speculative", *arguments, *speculation) as server:
        drafted = [server.post("/completion", **body) for body in bodies]
        metrics = server.get("/metrics")
    accepted = next(line for line in metrics.splitlines() if line.startswith("llamacpp:spec_decode_num_accepted"))
    assert float(accepted.split()[1]) > 0
    for one, other in zip(plain, drafted, strict=True):
        assert_same(values(other), values(one))


def test_a_long_prompt_beside_speculation_leaves_its_values_alone(smollm2, exported, tmp_path):
    """A decode has graphs before and behind those with the outputs of a draft."""
    body = {"prompt": "one two three one two three one two three one two", "n_predict": 32, "temperature": 0}
    body |= {"autodeco": True, "n_probs": 1, "cache_prompt": False}
    long = " ".join(str(number) for number in range(100))
    arguments = ["-m", smollm2, "--autodeco", exported("f32"), "-c", 1024, "-np", 2, "-ub", 32]
    arguments += ["--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", 3, "--spec-ngram-simple-size-m", 6]
    with running(tmp_path / "log", *arguments) as server:
        alone = server.post("/completion", **body)
        for slot in (0, 1):  # its graphs come first, or last
            with ThreadPoolExecutor(2) as pool:
                first = pool.submit(server.post, "/completion", id_slot=slot, **body)
                for _ in range(3):
                    settings = {"n_predict": 1, "cache_prompt": False, "id_slot": 1 - slot}
                    server.post("/completion", prompt=long, **settings)
                assert_same(values(first.result()), values(alone))


@pytest.mark.parametrize("layout", ["merged", "embedded"])
def test_a_model_brings_its_own_heads(exported, smollm2, server, tmp_path, layout):
    body = {"prompt": STORY, "n_predict": N, "seed": 6, "autodeco": True}
    with running(tmp_path / "log", "-m", exported("f32", layout), "-c", 512, "-np", 1) as other:
        assert values(other.post("/completion", **body)) == values(server.post("/completion", **body))
        assert json.loads(other.get("/props"))["autodeco"]["kind"] == layout


def test_a_model_without_heads_is_served_without(smollm2, tmp_path):
    with running(tmp_path / "log", "-m", smollm2, "-c", 512, "-np", 1) as server:
        assert json.loads(server.get("/props"))["autodeco"] is None
        answer = server.post("/completion", prompt=STORY, n_predict=2)
        assert "autodeco_settings" not in answer
        assert server.refusal("/completion", prompt=STORY, autodeco=True) == (
            400,
            'autodeco: this server has no heads: start it with --autodeco HEADS.gguf, or send "autodeco": false',
        )


@pytest.mark.parametrize(
    ("field", "line"),
    [
        (3, "autodeco: must be true, false, or an object with temperature_scale, top_p_scale, heads and values"),
        ({"temperature_scale": -1}, "autodeco.temperature_scale: must be a number from 0 to 1000"),
        ({"top_p_scale": "1"}, "autodeco.top_p_scale: must be a number from 0 to 1000"),
        ({"heads": "all"}, 'autodeco.heads: must be "both", "temperature", "top_p" or "none"'),
        ({"values": 1}, "autodeco.values: must be true or false"),
    ],
)
def test_bad_fields_are_refused(server, field, line):
    for path, body in (("/completion", {"prompt": STORY}), ("/v1/chat/completions", {"messages": QUESTION})):
        assert server.refusal(path, autodeco=field, **body) == (400, line)


def test_fields_that_are_not_known_harm_nobody(server):
    answer = server.post("/completion", prompt=STORY, n_predict=1, autodeco={"colour": "red"}, colour="blue")
    assert len(values(answer)["token"]) == 1


def test_heads_and_their_figures_are_told(server, exported):
    props = json.loads(server.get("/props"))["autodeco"]
    assert props["file"] == str(exported("f32"))
    assert (props["kind"], props["fits"], props["warning"], props["verdict"]) == ("sidecar", True, None, None)
    before = figures(server)
    answer = values(server.post("/completion", prompt=STORY, n_predict=N, seed=8, autodeco=True))
    after = figures(server)
    assert after["tokens_total"] - before["tokens_total"] == N
    sums = after["temperature_mean"] * after["tokens_total"] - before["temperature_mean"] * before["tokens_total"]
    assert sums == pytest.approx(sum(answer["temperature"]), abs=1e-2)
    assert after["greedy_tokens_total"] - before["greedy_tokens_total"] == answer["nucleus"].count(1)
    assert after["greedy_share"] == pytest.approx(after["greedy_tokens_total"] / after["tokens_total"])


def figures(server) -> dict[str, float]:
    lines = [line.split() for line in server.get("/metrics").splitlines() if line.startswith("autodeco:")]
    return {name.removeprefix("autodeco:"): float(value) for name, value in lines}


def test_the_page_is_in_the_program(server):
    assert server.get("/autodeco").lower().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--autodeco", "missing.gguf"], "missing.gguf"),
        (["--client-sampling", "maybe"], "must be ignore, multiply or override"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(smollm2, tmp_path, arguments, line):
    done = subprocess.run(
        command("-m", smollm2, *arguments), capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path
    )
    assert done.returncode == 1
    assert sum(line in said for said in (done.stdout + done.stderr).splitlines()) == 1


def test_heads_of_another_model_stop_the_server(smollm2, other_heads):
    done = subprocess.run(
        command("-m", smollm2, "--autodeco", other_heads), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1
    line = f"{other_heads}: heads are made for hidden states of width 64, the model's have 576"
    assert line in done.stdout + done.stderr


def test_the_page_has_the_headers_that_python_sends_it_with(server):
    with urllib.request.urlopen(server.address + "/autodeco", timeout=60) as answer:
        assert answer.read().decode() == page()
        assert page_headers().items() <= dict(answer.headers).items()


def test_the_page_wants_no_key_and_all_else_does(smollm2, tmp_path):
    with running(tmp_path / "log", "-m", smollm2, "-c", 256, "-np", 1, "--api-key", "secret") as server:
        assert server.get("/autodeco").lower().startswith("<!doctype html>")
        status, line = server.refusal("/completion", prompt=STORY, n_predict=1)
        assert (status, "API Key" in line) == (401, True)
