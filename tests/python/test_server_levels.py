"""autodeco-server with a control head: every answer is steered by the level of its own first state, as in Python.

The model is small, random and in float32, so that values can be compared closely.
"""

import json
import threading
from itertools import pairwise

import numpy as np
import pytest

import autodeco
from autodeco.export.control_ends import ControlEnds
from autodeco.export.layout import open_layout
from autodeco.export.weights_digest import weights_digest
from builders.random_heads import write_random_heads
from builders.served_values import HOST, assert_same, values
from builders.server import running
from builders.word_models import write_llama

pytestmark = pytest.mark.slow  # the server is compiled first

ENDS = ControlEnds(0.2, 1.25, 0.5, 0.95, 0.02)
PROMPTS = ["Once upon a time there was a little girl", "girl", "a time a time a time", "was little there"]
N = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("levels")
    model = write_llama(folder / "model.gguf")
    write_random_heads(folder / "heads.gguf", model, seed=3, control=ENDS)
    return folder


@pytest.fixture(scope="module")
def wanted(folder):
    """What autodeco.Llama draws for each prompt, with levels and without."""
    llm = autodeco.Llama(
        str(folder / "model.gguf"), folder / "heads.gguf", n_ctx=256, n_threads=1, flash_attn=True, verbose=False
    )
    found = {}
    for level in (None, 0.0):
        llm.level = level
        for prompt in PROMPTS:
            llm.reset()
            llm.create_completion(prompt, max_tokens=N, seed=3)
            found[prompt, level] = llm.decoding.to_dict()
    llm.close()
    firsts = [[found[prompt, level]["temperature"][0] for prompt in PROMPTS] for level in (None, 0.0)]
    assert np.ptp(np.subtract(*firsts)) > 0.05, "the prompts have the same level"
    return {prompt: found[prompt, None] for prompt in PROMPTS}


@pytest.fixture(scope="module", params=["cpu", "device"])
def server(folder, tmp_path_factory, request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTODECO_NUCLEUS", request.param)
        arguments = ("-m", folder / "model.gguf", "--autodeco", folder / "heads.gguf", "-c", 1024, "-np", 2)
        with running(tmp_path_factory.mktemp("log") / "log", *arguments) as server:
            yield server


def asked(prompt, **more):
    return {"prompt": prompt, "n_predict": N, "seed": 3, "autodeco": True, "cache_prompt": False} | more


@pytest.mark.parametrize("where", [{}, HOST], ids=["in the graph", "on the host"])
def test_answers_of_one_slot_each_have_their_own_level(server, wanted, where):
    for prompt in (*PROMPTS, PROMPTS[0]):
        assert_same(values(server.post("/completion", **asked(prompt, id_slot=0, **where))), wanted[prompt])


def test_a_prompt_in_pieces_and_a_cached_one_read_the_same_level(server, wanted):
    for _ in range(2):
        answer = server.post("/completion", **asked(PROMPTS[0], id_slot=0, cache_prompt=True))
        assert_same(values(answer), wanted[PROMPTS[0]])


@pytest.mark.parametrize("where", [{}, HOST], ids=["in the graph", "on the host"])
def test_an_answer_whose_reader_leaves_has_no_level_for_the_next_one(server, wanted, where):
    for left, prompt in pairwise(PROMPTS):
        body = asked(left, id_slot=0, n_predict=200, stream=True, ignore_eos=True, **where)
        with server.opened("/completion", **body) as answer:
            assert answer.readline().startswith(b"data: ")
        assert_same(values(server.post("/completion", **asked(prompt, id_slot=0, **where))), wanted[prompt])


def test_slots_in_parallel_keep_their_levels(server, wanted):
    found = {}

    def ask(prompt):
        found[prompt] = values(server.post("/completion", **asked(prompt)))

    threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in PROMPTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for prompt in PROMPTS:
        assert_same(found[prompt], wanted[prompt], atol=1e-3)


def test_several_answers_to_one_prompt_have_its_level(server, wanted):
    for prompt in PROMPTS:
        answers = server.post("/completion", **asked(prompt, n_cmpl=2))
        for answer in answers:
            found = values(answer)
            same = 0
            while same < N and found["token"][:same] == wanted[prompt]["token"][:same]:
                same += 1
            # what both have drawn behind the same tokens
            np.testing.assert_allclose(found["temperature"][:same], wanted[prompt]["temperature"][:same], atol=2e-3)
            np.testing.assert_allclose(found["top_p"][:same], wanted[prompt]["top_p"][:same], atol=2e-3)


@pytest.mark.parametrize("nucleus", ["cpu", "device"])
@pytest.mark.parametrize("where", [{}, HOST], ids=["in the graph", "on the host"])
def test_speculation_leaves_levels_alone(folder, tmp_path, monkeypatch, nucleus, where):
    monkeypatch.setenv("AUTODECO_NUCLEUS", nucleus)
    body = asked("a time a girl a time a girl a time a girl a time", n_predict=40, temperature=0, **where)
    arguments = ["-m", folder / "model.gguf", "--autodeco", folder / "heads.gguf", "-c", 512, "-np", 1]
    with running(tmp_path / "plain", *arguments) as server:
        plain = [server.post("/completion", **body | {"prompt": text}) for text in (body["prompt"], PROMPTS[1])]
    speculation = ["--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", 2, "--spec-ngram-simple-size-m", 4]
    with running(tmp_path / "speculative", *arguments, *speculation) as server:
        drafted = [server.post("/completion", **body | {"prompt": text}) for text in (body["prompt"], PROMPTS[1])]
        metrics = server.get("/metrics")
    accepted = next(line for line in metrics.splitlines() if line.startswith("llamacpp:spec_decode_num_accepted"))
    assert float(accepted.split()[1]) > 0
    for one, other in zip(plain, drafted, strict=True):
        assert_same(values(other), values(one))


def test_the_control_head_is_told(server, folder):
    props = json.loads(server.get("/props"))["autodeco"]
    assert props["control"] is True
    assert props["weights"] == weights_digest(open_layout(folder / "heads.gguf"))
