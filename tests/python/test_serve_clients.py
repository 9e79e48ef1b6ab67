"""Programs of others against `autodeco serve`."""

import json
import shutil
import subprocess

import pytest

from autodeco.serve.served_llama import ServedLlama
from builders.serving import CHAT, serving

MESSAGES = [{"role": "user", "content": "Tell me a story."}]
ASKED = {"model": "any", "messages": MESSAGES, "max_tokens": 8, "seed": 4}


@pytest.fixture(scope="module")
def client(smollm2, exported):
    llm = ServedLlama(str(smollm2), exported("f32"), n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False)
    with serving(llm, api_key="secret") as client:
        yield client
    llm.close()


@pytest.fixture(scope="module")
def openai():
    return pytest.importorskip("openai", reason="needs the package openai")


@pytest.mark.slow
def test_the_package_openai(client, openai):
    asks = openai.OpenAI(base_url=f"{client.url}/v1", api_key="secret", max_retries=0)
    assert [model.id for model in asks.models.list()] == ["small"]
    whole = asks.chat.completions.create(**ASKED, logprobs=True, top_logprobs=2, extra_body={"autodeco": True})
    values = whole.choices[0].autodeco
    entries = whole.choices[0].logprobs.content
    assert "".join(entry.token for entry in entries) == whole.choices[0].message.content
    assert [entry.temperature for entry in entries] == values["temperature"]
    assert whole.usage.completion_tokens == len(values["token"]) == 8
    assert whole.autodeco_settings["heads"] == "both"
    text, temperatures, usage = "", [], None
    asked = ASKED | {"stream": True, "stream_options": {"include_usage": True}}
    for chunk in asks.chat.completions.create(**asked, extra_body={"autodeco": {"values": True}}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            temperatures += choice.autodeco["temperature"]
    assert len(text) > 0
    assert len(temperatures) == usage.completion_tokens == 8
    completed = asks.completions.create(model="any", prompt="Once upon", max_tokens=4, temperature=0)
    assert completed.choices[0].text
    with pytest.raises(openai.BadRequestError, match=r"autodeco\.heads upper: must be one of"):
        asks.chat.completions.create(**ASKED, extra_body={"autodeco": {"heads": "upper"}})
    with pytest.raises(openai.AuthenticationError, match="the API key is missing or wrong"):
        openai.OpenAI(base_url=f"{client.url}/v1", api_key="other", max_retries=0).models.with_raw_response.retrieve(
            "x"
        )


@pytest.mark.slow
def test_a_schema_is_kept_for_the_package_openai(client, openai):
    asks = openai.OpenAI(base_url=f"{client.url}/v1", api_key="secret", max_retries=0)
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "number", "schema": schema}}
    answer = asks.chat.completions.create(
        **ASKED | {"max_tokens": 40}, response_format=wanted, extra_body={"autodeco": True}
    )
    assert isinstance(json.loads(answer.choices[0].message.content)["n"], int)
    assert len(set(answer.choices[0].autodeco["temperature"])) > 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_events_over_curl(client):
    command = [
        "curl",
        "-sSN",
        client.url + CHAT,
        "-H",
        "Authorization: Bearer secret",
        "-H",
        "Content-Type: application/json",
    ]
    asked = json.dumps(ASKED | {"stream": True, "autodeco": True})
    said = subprocess.run([*command, "-d", asked], capture_output=True, text=True, check=True, timeout=120).stdout
    events = said.split("\n\n")
    assert events.pop() == ""
    assert events.pop() == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert sum(len(chunk["choices"][0]["autodeco"]["token"]) for chunk in chunks) == 8
