"""What a release of llama-cpp-python lacks is off in one line; the rest works on it as on the newest."""

from itertools import islice

import llama_cpp
import numpy as np
import pytest

import autodeco
from autodeco import features, native
from autodeco.batch import Sampling, generate, requests
from autodeco.batch.shared import answer
from autodeco.errors import InputError

PROMPT = "The capital of France is"
OPTIONS = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1, "verbose": False}


class Guesses:
    """Drafts that are wrong in part: some of them the model draws too."""

    num_pred_tokens = 3

    def __init__(self, text):
        self.text = text

    def __call__(self, input_ids, /, **kwargs):
        begin = len(input_ids) - 5
        return np.array([*self.text[begin : begin + 2], 11], np.intc)


@pytest.fixture
def older(monkeypatch):
    """As with a release that draws from one output of a text at a time."""
    monkeypatch.setattr(features, "SEVERAL_OUTPUTS", False)


def texts(llm, length=8):
    llm.set_seed(5)
    generation = llm.generate(llm.tokenize(PROMPT.encode()))
    tokens = list(islice(generation, length))
    generation.close()
    return tokens


def test_the_release_says_whether_it_has_several_outputs():
    assert ("n_outputs_max_per_seq" in dict(llama_cpp.llama_context_params._fields_)) == features.SEVERAL_OUTPUTS
    params = llama_cpp.llama_context_default_params()
    features.set_outputs_per_text(params, 3)
    assert getattr(params, "n_outputs_max_per_seq", None) == (3 if features.SEVERAL_OUTPUTS else None)


def test_drafts_for_heads_are_refused_where_the_graph_cannot_check_them(older, smollm2, exported):
    with pytest.raises(InputError) as caught:
        autodeco.Llama(str(smollm2), exported("f16"), draft_model=Guesses([]), **OPTIONS)
    said = str(caught.value)
    assert said.startswith(
        f"{smollm2}: llama-cpp-python {llama_cpp.__version__} draws from one output of a text at a time"
    )
    assert said.endswith("open it without draft_model, with logits_all=True, or with a newer release")
    assert "\n" not in said


def test_heads_that_come_later_are_refused_beside_drafts_and_the_model_stays_as_it_was(older, smollm2, exported):
    llm = autodeco.Llama(str(smollm2), draft_model=Guesses([]), **OPTIONS)
    with pytest.raises(InputError, match="draws from one output of a text at a time"):
        llm.heads = exported("f16")
    assert llm.heads is None
    assert len(texts(llm, 3)) == 3  # stock drafts, which need nothing of the graph
    llm.close()


def test_drafts_are_drawn_from_on_the_host_where_every_token_is_an_output(older, smollm2, exported):
    llm = autodeco.Llama(str(smollm2), exported("f16"), **OPTIONS)
    plain = texts(llm)
    llm.close()
    llm = autodeco.Llama(str(smollm2), exported("f16"), draft_model=Guesses(plain), logits_all=True, **OPTIONS)
    assert texts(llm) == plain
    assert 0 < llm.drafting.accepted < llm.drafting.drafted
    llm.close()


def test_more_samplers_than_a_graph_has_room_for_are_refused(older, smollm2, exported):
    llm = autodeco.Llama(str(smollm2), **OPTIONS)
    heads = native.load_heads(exported("f16"))
    layers = llama_cpp.llama_model_n_layer(llm.model)
    assert layers == 30
    with pytest.raises(InputError, match=r"46 answers at a time: a graph of this model has room for 45 in llama-cpp"):
        next(generate(llm, [[1, 504]], 46, heads=heads, max_tokens=2, slots=46))
    llm.close()


def test_answers_drawn_outside_the_graph_need_no_room_in_it(older, smollm2, exported):
    llm = autodeco.Llama(str(smollm2), **OPTIONS)
    heads = native.load_heads(exported("f16"))
    drawn = list(answer(llm, requests(llm, [[1, 504]], 60, Sampling(1.0, 1.0), max_tokens=2, seed=1), heads, 60))
    assert sorted(each.sample for each in drawn) == list(range(60))
    llm.close()


def test_as_many_samplers_as_a_graph_has_room_for_draw(smollm2, exported):
    llm = autodeco.Llama(str(smollm2), **OPTIONS)
    drawn = list(generate(llm, [[1, 504]], 45, Sampling(1.0, 1.0), heads=exported("f16"), max_tokens=2, slots=45))
    assert sorted(answer.sample for answer in drawn) == list(range(45))
    assert all(0 < value < 2 for answer in drawn for value in answer.decoding.temperature)
    llm.close()


@pytest.mark.parametrize("takes_length", [True, False])
def test_dry_gets_the_length_that_a_release_asks_for(monkeypatch, takes_length):
    assert (len(llama_cpp.llama_sampler_init_dry.argtypes) == 8) == features.DRY_TAKES_LENGTH
    monkeypatch.setattr(features, "DRY_TAKES_LENGTH", takes_length)
    monkeypatch.setattr(llama_cpp, "llama_sampler_init_dry", lambda *arguments: arguments)
    settings = (1.0, 1.75, 2, 64, b"\n", 1)
    assert features.dry_sampler("vocab", 2048, *settings) == ("vocab", *((2048,) if takes_length else ()), *settings)
