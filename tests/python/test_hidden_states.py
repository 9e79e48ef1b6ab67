"""Hidden states are those that the output matrix multiplies, whatever llama.cpp makes of its embeddings flag."""

import llama_cpp
import numpy as np
import pytest
from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

import autodeco
from autodeco import native
from autodeco.base.output_matrix import read_output_matrix
from autodeco.base.states import LogitsCheck, StateReader, open_stateful
from autodeco.batch import Sampling, requests
from autodeco.batch.shared import answer
from autodeco.errors import InputError
from autodeco.export.layout import open_layout
from autodeco.llama.head_accuracy import hidden_states
from builders.lfm2_model import write_lfm2
from builders.random_heads import write_random_heads

PROMPT = [3, 14, 15, 9, 2, 65]
OPTIONS = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1, "verbose": False}


@pytest.fixture(scope="module")
def lfm2(tmp_path_factory):
    """A small LFM2 and heads for it."""
    folder = tmp_path_factory.mktemp("lfm2")
    model = write_lfm2(folder / "lfm2.gguf")
    return model, write_random_heads(folder / "heads.gguf", model)


@pytest.fixture(scope="module")
def drawn(lfm2):
    """What the graph draws behind PROMPT: (tokens, decoding)."""
    return generated(lfm2)


def generated(files, processor=None, **options):
    model = autodeco.Llama(str(files[0]), files[1], **OPTIONS, **options)
    model.set_seed(7)
    tokens = []
    for token in model.generate(PROMPT, logits_processor=processor):
        tokens.append(token)
        if len(tokens) == 24:
            break
    decoding = model.decoding
    model.close()
    return tokens, decoding


def values(decoding):
    return np.stack([decoding.temperature, decoding.top_p])


def test_they_are_those_of_the_flag_where_it_gives_them(smollm2):
    model = open_stateful(smollm2, n_ctx=64, n_threads=1, n_threads_batch=1)
    ((_, taken, logits),) = StateReader(model).read([1], PROMPT)
    logits = logits.copy()
    llama_cpp.llama_set_embeddings(model.ctx, True)
    ((_, _, with_flag),) = StateReader(model).read([1], PROMPT)
    of_flag = np.ctypeslib.as_array(llama_cpp.llama_get_embeddings(model.ctx), taken.shape)
    np.testing.assert_array_equal(logits, with_flag)
    np.testing.assert_array_equal(taken, of_flag)
    model.close()


def test_no_row_is_kept_of_tokens_that_are_no_outputs(smollm2):
    model = open_stateful(smollm2, n_ctx=64, n_threads=1, n_threads_batch=1)
    ((_, taken, _),) = StateReader(model).read([*PROMPT, 1], [5, 6])
    assert taken.shape == (2, 576)
    model.close()


def test_the_matrix_makes_of_them_the_logits_of_lfm2(lfm2):
    hidden, logits = hidden_states(open_layout(lfm2[0]))  # what --check reads
    check = LogitsCheck(0)
    check.offer(hidden, logits)
    assert check.relative_error(read_output_matrix(lfm2[0])) < 1e-3
    assert logits.std(axis=1).min() > 0.1


def test_the_graph_predicts_from_them(lfm2, drawn):
    tokens, decoding = drawn
    model = open_stateful(lfm2[0], n_ctx=256, n_threads=1, n_threads_batch=1)
    ((_, hidden, logits),) = StateReader(model).read(PROMPT, tokens)
    np.testing.assert_allclose(values(decoding), native.predict(lfm2[1], hidden, logits), atol=1e-3)
    assert len(set(tokens)) > 5
    model.close()


@pytest.mark.parametrize(
    "options",
    [{"logits_all": True}, {"embedding": True}, {"logits_all": True, "n_batch": 4, "n_ubatch": 2}],
    ids=lambda options: "-".join(options),
)
def test_other_contexts_draw_what_the_graph_draws(lfm2, drawn, options):
    tokens, decoding = generated(lfm2, **options)
    assert tokens == drawn[0]
    np.testing.assert_allclose(values(decoding), values(drawn[1]), atol=1e-3)


def test_a_draft_that_could_not_be_taken_back_is_refused(lfm2):
    draft = LlamaPromptLookupDecoding(num_pred_tokens=3)
    with pytest.raises(InputError, match=r"lfm2\.gguf: cannot take back the tokens of a draft.*without draft_model"):
        autodeco.Llama(str(lfm2[0]), lfm2[1], draft_model=draft, **OPTIONS)


def test_answers_that_share_beginnings_are_those_of_the_graph(lfm2):
    model = autodeco.Llama(str(lfm2[0]), lfm2[1], **OPTIONS)
    prompts = [PROMPT, PROMPT[::-1], PROMPT[:3]]
    greedy = Sampling(0.0, heads="both")
    heads = native.load_heads(lfm2[1])
    for sampling, n in ((greedy, 2), (Sampling(), 5)):
        wanted = requests(model, prompts, n, sampling, 12, seed=3)
        for done in answer(model, wanted, heads, 6):
            states = open_stateful(lfm2[0], n_ctx=256, n_threads=1, n_threads_batch=1)
            ((_, hidden, logits),) = StateReader(states).read(prompts[done.prompt], done.decoding.token.tolist())
            np.testing.assert_allclose(values(done.decoding), native.predict(lfm2[1], hidden, logits), atol=1e-3)
            if sampling == greedy:
                assert done.decoding.token.tolist() == logits.argmax(axis=1).tolist()
            states.close()
    model.close()


def test_a_context_that_embeds_does_so_after_a_generation(lfm2):
    model = autodeco.Llama(str(lfm2[0]), lfm2[1], embedding=True, **OPTIONS)
    before = np.array(model.embed("some words"))
    first = [token for token, _ in zip(model.generate(PROMPT), range(5), strict=False)]
    assert np.ptp(before) > 0
    np.testing.assert_allclose(model.embed("some words"), before, atol=1e-4)
    assert len(first) == 5
    model.close()
