"""What llama.cpp's server has besides plain answers, with heads: LoRA, images, shifted and saved contexts, drafts.

The model is small, random and in float32, so that values can be compared closely.
"""

import base64
import contextlib
import json
import shutil

import pytest

import autodeco
from autodeco.export.head_tensors import head_tensors
from autodeco.export.head_weights import check_heads
from autodeco.export.layout import open_layout
from autodeco.export.writer import write_embedded
from builders.gguf_files import head_arrays
from builders.peer_models import write_picture
from builders.random_heads import write_random_heads
from builders.served_values import HOST, assert_same, values
from builders.server import running
from builders.vision_files import write_projector
from builders.word_models import HIDDEN, write_llama, write_lora

pytestmark = pytest.mark.slow  # the server is compiled first

PROMPT = "Once upon a time there was a little girl"
N = 12
ASKED = {"prompt": PROMPT, "n_predict": N, "seed": 3, "autodeco": True, "cache_prompt": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    model = write_llama(folder / "model.gguf")
    write_random_heads(folder / "heads.gguf", model, seed=3)
    write_lora(folder / "lora.gguf")
    write_projector(folder / "mmproj.gguf", HIDDEN)
    write_picture(folder / "picture.png", 1)
    return folder


@contextlib.contextmanager
def served(folder, log, *arguments):
    with running(log, "-m", folder / "model.gguf", "--autodeco", folder / "heads.gguf", *arguments) as server:
        yield server


def test_a_lora_changes_what_the_heads_see(folder, tmp_path):
    with served(folder, tmp_path / "log", "-c", 256, "-np", 1, "--lora", folder / "lora.gguf") as server:
        found = {}
        for scale in (0.0, 1.0):
            given = {} if scale == 0 else {"lora_path": str(folder / "lora.gguf"), "lora_scale": scale}
            options = {"n_ctx": 256, "n_threads": 1, "flash_attn": True, "verbose": False} | given
            llm = autodeco.Llama(str(folder / "model.gguf"), folder / "heads.gguf", **options)
            llm.create_completion(PROMPT, max_tokens=N, seed=3)
            wanted = llm.decoding.to_dict()
            llm.close()
            for where in ({}, HOST):
                answer = server.post("/completion", lora=[{"id": 0, "scale": scale}], **ASKED, **where)
                found[scale] = values(answer)
                assert_same(found[scale], wanted, atol=1e-3)
    assert found[0.0]["temperature"][0] != pytest.approx(found[1.0]["temperature"][0], abs=1e-3)


def test_a_context_that_shifts_loses_no_value(folder, tmp_path):
    with served(folder, tmp_path / "log", "-c", 256, "-np", 1, "--context-shift") as server:
        asked = ASKED | {"n_predict": 400}
        answers = [server.post("/completion", **asked, **where) for where in ({}, HOST)]
    assert answers[0]["truncated"] is True
    graph, host = map(values, answers)
    assert len(graph["token"]) == 400
    assert_same(graph, host)


def test_a_saved_slot_and_a_cached_prompt_go_on_as_before(folder, tmp_path):
    longer = ASKED | {"prompt": PROMPT + " named Lily and she had a big dog", "cache_prompt": True}
    with served(folder, tmp_path / "log", "-c", 512, "-np", 2, "--slot-save-path", tmp_path) as server:
        wanted = values(server.post("/completion", **longer | {"cache_prompt": False}, id_slot=0))
        server.post("/completion", **ASKED | {"cache_prompt": True}, id_slot=0)
        server.post("/slots/0?action=save", filename="slot.bin")
        goes_on = server.post("/completion", **longer, id_slot=0)
        again = server.post("/completion", **longer, id_slot=0)
        server.post("/slots/1?action=restore", filename="slot.bin")
        restored = server.post("/completion", **longer, id_slot=1)
    for answer in (goes_on, again, restored):
        assert answer["timings"]["cache_n"] > 0
        assert_same(values(answer), wanted)


def test_pictures_are_seen_by_the_heads(folder, tmp_path):
    picture = "data:image/png;base64," + base64.b64encode((folder / "picture.png").read_bytes()).decode()
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": picture}}]
    with served(folder, tmp_path / "log", "-c", 512, "-np", 1, "--mmproj", folder / "mmproj.gguf") as server:

        def chat(parts: list, **where) -> dict:
            asked = {"messages": [{"role": "user", "content": parts}], "max_tokens": N, "seed": 3, "autodeco": True}
            return values(server.post("/v1/chat/completions", cache_prompt=False, **asked, **where))

        assert_same(chat(content), chat(content, **HOST))
        assert chat(content)["temperature"][0] != pytest.approx(chat(content[:1])["temperature"][0], abs=1e-4)


def test_a_draft_model_leaves_values_as_they_are(folder, tmp_path):
    draft = ["-md", folder / "model.gguf", "--spec-type", "draft-simple", "--spec-draft-n-max", 6]
    asked = ASKED | {"n_predict": 32}
    with served(folder, tmp_path / "plain", "-c", 256, "-np", 1) as server:
        wanted = values(server.post("/completion", **asked))
    with served(folder, tmp_path / "drafted", "-c", 256, "-np", 1, *draft) as server:
        for where in ({}, HOST):
            answer = server.post("/completion", **asked, **where)
            assert answer["timings"]["draft_n_accepted"] > 0
            assert_same(values(answer), wanted)


def test_a_router_starts_models_with_the_heads_that_they_bring(folder, tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    shutil.copy(folder / "model.gguf", models / "plain.gguf")
    weights = check_heads(head_arrays(hidden=HIDDEN, seed=3), "heads")
    write_embedded(models / "own.gguf", head_tensors(weights, "f32"), open_layout(folder / "model.gguf"))
    with served(folder, tmp_path / "log", "-c", 256, "-np", 1) as server:
        wanted = values(server.post("/completion", **ASKED))
    with running(tmp_path / "router", "--models-dir", models, "-c", 256, "-np", 1) as server:
        assert {model["id"] for model in json.loads(server.get("/v1/models"))["data"]} >= {"plain", "own"}
        assert_same(values(server.post("/completion", model="own", **ASKED)), wanted)
        assert json.loads(server.get("/props?model=own"))["autodeco"]["kind"] == "embedded"
        status, line = server.refusal("/completion", model="plain", **ASKED)
        assert (status, line.partition(":")[0]) == (400, "autodeco")
        assert server.get("/autodeco").lower().startswith("<!doctype html>")
