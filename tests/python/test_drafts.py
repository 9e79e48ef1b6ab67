"""Drafts change the time of a text and nothing else: with heads in the graph, on the host, and without heads."""

from collections import Counter
from itertools import islice, pairwise

import llama_cpp
import numpy as np
import pytest
from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

import autodeco
from autodeco import features
from autodeco.errors import InputError
from autodeco.llama.drafting import MOST_TOKENS
from autodeco.llama.sampling import Attachment
from builders.random_heads import write_random_heads
from builders.tiny_llama import VOCAB, write_llama

pytestmark = pytest.mark.skipif(
    not features.SEVERAL_OUTPUTS,
    reason=f"llama-cpp-python {llama_cpp.__version__} draws from one output of a text at a time",
)
PROMPT = [3, 14, 15, 9, 2, 65]
OPTIONS = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1, "verbose": False}
LENGTH = 40


class Oracle:
    """Drafts the tokens of ``text`` behind the prompt, of which it gets every fifth wrong."""

    def __init__(self, num_pred_tokens=6):
        self.num_pred_tokens = num_pred_tokens
        self.text = []
        self.drafts = []

    def __call__(self, input_ids, /, **kwargs):
        begin = len(input_ids) - len(PROMPT)
        draft = self.text[begin : begin + self.num_pred_tokens]
        draft = [(token + (begin + i) % 5 // 4) % VOCAB for i, token in enumerate(draft)]
        self.drafts.append(draft)
        return np.array(draft, np.intc)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drafts")
    model = write_llama(folder / "llama.gguf")
    return str(model), write_random_heads(folder / "heads.gguf", model)


@pytest.fixture(scope="module")
def plain(files):
    llm = autodeco.Llama(*files, **OPTIONS)
    yield llm
    llm.close()


@pytest.fixture(scope="module")
def drafted(files):
    llm = autodeco.Llama(*files, draft_model=Oracle(), **OPTIONS)
    yield llm
    llm.close()


def run(llm, seed=5, length=LENGTH, **settings):
    llm.set_seed(seed)
    generation = llm.generate(PROMPT, **settings)
    tokens = list(islice(generation, length))
    generation.close()
    return tokens


def by_place(input_ids, logits):
    """Forbids a token that depends on how many there are, and on the last."""
    changed = np.array(logits)
    changed[(len(input_ids) + 7 * int(input_ids[-1])) % VOCAB] += 6.0
    return changed


SETTINGS = {
    "graph": {"temp": 1.0},
    "warm": {"temp": 2.0, "top_p": 2.0},
    "greedy": {"temp": 0.0},
    "penalty": {"temp": 1.5, "repeat_penalty": 1.8, "frequency_penalty": 0.5},
    "dry and xtc": {"temp": 2.0, "dry_multiplier": 1.0, "xtc_probability": 0.5, "xtc_threshold": 0.05},
    "cuts": {"temp": 2.0, "top_k": 4, "min_p": 0.05, "typical_p": 0.9},
    "processor": {"temp": 1.0, "logits_processor": llama_cpp.LogitsProcessorList([by_place])},
}


@pytest.mark.parametrize("heads", [True, False])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_seed_gives_the_text_and_values_that_it_gives_without_drafts(files, plain, drafted, settings, heads):
    paths = {plain: plain.heads, drafted: drafted.heads}
    try:
        if not heads:
            plain.heads = drafted.heads = None
        for seed in range(3):
            expected = run(plain, seed, **settings)
            assert plain.drafting == (0, 0)
            drafted.draft_model.text = expected
            assert run(drafted, seed, **settings) == expected
            assert drafted.drafting.accepted >= LENGTH // 3, "drafts are of use"
            assert drafted.drafting.drafted > drafted.drafting.accepted, "some of them are wrong"
            one, other = plain.decoding, drafted.decoding
            assert other.token.tolist() == (expected if heads else [])
            np.testing.assert_allclose(other.temperature, one.temperature, atol=1e-4)
            np.testing.assert_allclose(other.top_p, one.top_p, atol=1e-4)
            np.testing.assert_allclose(other.prob, one.prob, atol=1e-3)
            assert other.nucleus.tolist() == one.nucleus.tolist()
    finally:
        for llm, path in paths.items():
            llm.heads = path


def test_values_are_those_of_the_hidden_state_before_each_token(files, drafted, plain):
    """Against a context whose every token is an output, where the host computes them."""
    drafted.draft_model.text = run(plain)
    tokens = run(drafted)
    every = autodeco.Llama(*files, logits_all=True, **OPTIONS)
    forced = iter(tokens)

    def force(_, logits):
        only = np.full_like(logits, -np.inf)
        only[next(forced)] = 0.0
        return only

    assert run(every, logits_processor=llama_cpp.LogitsProcessorList([force])) == tokens
    np.testing.assert_allclose(drafted.decoding.temperature, every.decoding.temperature, atol=1e-3)
    np.testing.assert_allclose(drafted.decoding.top_p, every.decoding.top_p, atol=1e-3)
    every.close()


class Likeliest:
    """Drafts what followed the last token most often."""

    num_pred_tokens = 2

    def __init__(self):
        self.after = {}

    def __call__(self, input_ids, /, **kwargs):
        draft = []
        last = int(input_ids[-1])
        for _ in range(2):
            last = self.after.get(last, Counter({0: 1})).most_common(1)[0][0]
            draft.append(last)
        return np.array(draft, np.intc)


def test_texts_come_as_often_as_their_probabilities_say(files):
    """Chi-square of texts of four tokens; a draft that was preferred, or drawn twice, would move it."""
    draft = Likeliest()
    llm = autodeco.Llama(*files, draft_model=draft, **OPTIONS)
    n, counts, probability, accepted = 1500, Counter(), {}, 0
    for seed in range(n):
        text = tuple(run(llm, seed, length=4, temp=1.5))
        counts[text] += 1
        probability[text] = float(np.prod(llm.decoding.prob.astype(np.float64)))
        accepted += llm.drafting.accepted
        for one, next_one in pairwise(text):
            draft.after.setdefault(one, Counter())[next_one] += 1
    llm.close()
    assert accepted > n / 4
    cells = [(counts[text], n * p) for text, p in probability.items() if n * p >= 5]
    observed, expected = np.array(cells).T
    observed, expected = np.append(observed, n - observed.sum()), np.append(expected, n - expected.sum())
    chi2, df = ((observed - expected) ** 2 / expected).sum(), len(observed) - 1
    assert df > 20
    # Wilson-Hilferty: normal deviate of a chi-square value; beyond 4 once in 30,000 right programs
    assert (np.cbrt(chi2 / df) - (1 - 2 / (9 * df))) / np.sqrt(2 / (9 * df)) < 4


def test_heads_stay_in_the_graph_and_no_table_of_logits_is_kept(plain, drafted, monkeypatch):
    assert drafted.scores.shape == plain.scores.shape
    attach, graphs = Attachment.attach, []

    def noted(attachment, *where):
        graph, changed = attach(attachment, *where)
        graphs.append(graph)
        return graph, changed

    monkeypatch.setattr(Attachment, "attach", noted)
    run(drafted)
    assert graphs
    assert not any(graph.observer for graph in graphs)  # which would draw on the host


def test_a_logits_processor_sees_the_text_so_far(drafted, plain):
    """Not the draft behind it, which llama_cpp.Llama shows it too; also where every token is an output."""
    lengths = []

    def look(input_ids, logits):
        lengths.append((len(input_ids), int(input_ids[-1])))
        return logits

    tokens = drafted.draft_model.text = run(plain)
    assert run(drafted, logits_processor=llama_cpp.LogitsProcessorList([look])) == tokens
    assert lengths == [(len(PROMPT) + i, token) for i, token in enumerate([PROMPT[-1], *tokens[:-1]])]


def completed(llm, **settings):
    return llm.create_completion(PROMPT, **{"max_tokens": LENGTH, "seed": 5, **settings})


@pytest.mark.parametrize("where", range(1, 9))
def test_a_text_ends_inside_a_draft(plain, drafted, where):
    whole = completed(plain)["choices"][0]["text"]
    drafted.draft_model.text = plain.decoding.token.tolist()
    for ends in ({"max_tokens": where}, {"stop": [whole[2 * where : 2 * where + 4]]}):
        expected, found = completed(plain, **ends), completed(drafted, **ends)
        assert found["choices"] == expected["choices"]
        assert found["usage"] == expected["usage"]
        assert drafted.decoding.token.tolist() == plain.decoding.token.tolist()
        # the context ends with the text, whatever was drafted behind it
        assert drafted.n_tokens == plain.n_tokens
        assert drafted.input_ids[: plain.n_tokens].tolist() == plain.input_ids[: plain.n_tokens].tolist()
        assert drafted.sample(temp=0.0) == plain.sample(temp=0.0)
        assert drafted.last_decoding.temperature == pytest.approx(plain.last_decoding.temperature, abs=1e-4)


def test_a_stream_has_the_values_of_its_tokens(plain, drafted):
    expected = completed(plain, autodeco=True)["choices"][0]
    drafted.draft_model.text = plain.decoding.token.tolist()
    chunks = [chunk["choices"][0] for chunk in completed(drafted, autodeco=True, stream=True)]
    assert "".join(chunk["text"] for chunk in chunks) == expected["text"]
    assert [t for chunk in chunks for t in chunk["autodeco"]["token"]] == expected["autodeco"]["token"]
    assert max(len(chunk["autodeco"]["token"]) for chunk in chunks) <= 2, "a chunk has the tokens since the last one"


def test_a_state_that_is_saved_inside_a_draft_is_that_of_the_text(plain, drafted):
    states = []
    for llm in (plain, drafted):
        llm.set_seed(5)
        generation = llm.generate(PROMPT)
        list(islice(generation, 9))
        states.append(llm.save_state())
        list(islice(generation, 3))
        generation.close()
        drafted.draft_model.text = plain.decoding.token.tolist()
    assert states[0].n_tokens == states[1].n_tokens
    assert states[0].input_ids[: states[0].n_tokens].tolist() == states[1].input_ids[: states[0].n_tokens].tolist()
    for llm, state in zip((plain, drafted), states, strict=True):
        llm.load_state(state)
    assert drafted.sample(temp=0.0) == plain.sample(temp=0.0)


def test_a_context_is_filled_to_its_end(plain, drafted):
    expected = completed(plain, max_tokens=None)
    drafted.draft_model.text = plain.decoding.token.tolist()
    found = completed(drafted, max_tokens=None)
    assert found["choices"] == expected["choices"]
    assert found["usage"] == expected["usage"] == {"prompt_tokens": 6, "completion_tokens": 250, "total_tokens": 256}
    for llm in (plain, drafted):
        with pytest.raises(InputError, match="the context of 256 tokens is full"):
            run(llm, length=300)
    run(drafted, length=3)


def test_a_prompt_of_several_batches_changes_no_random_number(files):
    prompt, runs = [int(token) for token in np.random.default_rng(0).integers(3, VOCAB, 100)], []
    for settings in ({}, {"draft_model": LlamaPromptLookupDecoding(num_pred_tokens=4)}):
        llm = autodeco.Llama(*files, n_batch=16, n_ubatch=8, **settings, **OPTIONS)
        llm.set_seed(3)
        runs.append(list(islice(llm.generate(prompt, temp=2.0, top_p=2.0), LENGTH)))
        llm.close()
    assert runs[0] == runs[1]


class Careless(Oracle):
    """Does not say how many tokens it drafts: all that it knows, and with ``wrong`` one that does not exist."""

    def __init__(self, wrong=()):
        super().__init__(10_000)
        del self.num_pred_tokens
        self.wrong = wrong

    def __call__(self, input_ids, /, **kwargs):
        begin = len(input_ids) - len(PROMPT)
        return np.array([*self.text[begin:], *self.wrong], np.intc)


def test_drafts_of_any_length_are_cut_to_what_a_batch_may_have(files, plain):
    expected = run(plain, length=120)
    for n_ubatch in (512, 4):
        llm = autodeco.Llama(*files, draft_model=Careless(), n_ubatch=n_ubatch, **OPTIONS)
        llm.draft_model.text = expected
        assert run(llm, length=120) == expected
        most = min(MOST_TOKENS, n_ubatch - 1)
        assert llm.drafting.accepted == pytest.approx(120 * most / (most + 1), abs=4)
        assert llm.drafting.rate > 0.9
        llm.close()


def test_a_draft_of_tokens_that_do_not_exist_is_refused(files):
    llm = autodeco.Llama(*files, draft_model=Careless([VOCAB]), **OPTIONS)
    with pytest.raises(InputError, match=f"token {VOCAB} is outside the vocabulary of {VOCAB}"):
        run(llm)
    llm.close()


def test_logprobs_want_the_logits_of_every_token(files, drafted):
    with pytest.raises(InputError, match="logits_all=False; open it with logits_all=True"):
        completed(drafted, logprobs=2)
    found = []
    for settings in ({}, {"draft_model": Oracle()}):
        llm = autodeco.Llama(*files, logits_all=True, **settings, **OPTIONS)
        for _ in range(2):
            found.append(completed(llm, logprobs=2, echo=True)["choices"][0])
            if settings:
                llm.draft_model.text = llm.decoding.token.tolist()
        if settings:
            assert llm.drafting.accepted > 10
        llm.close()
    for other in found[1:]:
        assert other["text"] == found[0]["text"]
        assert other["logprobs"]["tokens"] == found[0]["logprobs"]["tokens"]
        np.testing.assert_allclose(
            other["logprobs"]["token_logprobs"][1:], found[0]["logprobs"]["token_logprobs"][1:], atol=1e-3
        )


def test_a_pickled_model_keeps_its_draft_model(files):
    import pickle

    llm = autodeco.Llama(*files, draft_model=LlamaPromptLookupDecoding(num_pred_tokens=4), **OPTIONS)
    expected = run(llm)
    other = pickle.loads(pickle.dumps(llm))
    assert run(other) == expected
    assert (other.draft_model.num_pred_tokens, other._logits_all) == (4, False)
    llm.close()
    other.close()
