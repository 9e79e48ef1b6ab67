"""Answers that share what they begin with: each follows its own distribution, and nothing is computed twice."""

import ctypes
import time
from collections import Counter
from dataclasses import replace

import llama_cpp
import numpy as np
import pytest
from scipy import stats

from autodeco import native
from autodeco.base.states import StateReader, open_stateful
from autodeco.base.tokenizer import Tokenizer
from autodeco.batch import Sampling, generate, requests, shared
from autodeco.batch.shared import answer
from autodeco.batch.shared_context import StateContext
from autodeco.batch.shared_draws import draw_rows
from autodeco.errors import InputError
from autodeco.llama.opening import open_llama
from builders.distributions import exact
from builders.questions import GREEDY, PROMPT, QUESTIONS, in_order
from builders.stock_llama import last_state


@pytest.fixture(scope="module")
def heads(exported):
    return native.load_heads(exported("f32"))


@pytest.fixture
def llm_to_close(smollm2):
    llm = open_llama(smollm2, None, n_ctx=256, n_threads=1, n_threads_batch=2)
    yield llm
    llm.close()


def test_first_tokens_follow_the_distribution_of_each_setting(smollm2, llm, exported, heads):
    """Chi-square over 200 draws a setting from one state."""
    prompt = Tokenizer(llm).prompt_ids(PROMPT)
    hidden, logits = last_state(smollm2, prompt, alone=True, flash_attn=True)
    (temperature,), (top_p,) = native.predict(exported("f32"), hidden[None], logits[None])
    n = 200
    expected = {
        Sampling(1.5 / float(temperature), 0.9 / float(top_p)): exact(logits, 1.5, 0.9),
        Sampling(1.5 / float(temperature), 0.8, heads="temperature"): exact(logits, 1.5, 0.8),
        Sampling(1.5, 0.9 / float(top_p), heads="top_p"): exact(logits, 1.5, 0.9),
        Sampling(1.5, 0.95, heads="none"): exact(logits, 1.5, 0.95),
    }
    wanted = requests(llm, [prompt] * len(expected), n, list(expected), max_tokens=1, seed=3)
    answers = list(answer(llm, wanted, heads, n))
    for index, (sampling, p) in enumerate(expected.items()):
        drawn = np.array([a.decoding.token[0] for a in answers if a.prompt == index])
        assert len(drawn) == n
        frequent = np.flatnonzero(p * n >= 5)
        assert len(frequent) >= 3, "the nucleus is too small to test anything"
        observed = np.array([(drawn == token).sum() for token in frequent] + [n - np.isin(drawn, frequent).sum()])
        wanted_counts = np.append(p[frequent] * n, n - p[frequent].sum() * n)
        assert stats.chisquare(observed, wanted_counts).pvalue > 1e-4, sampling


def test_a_branch_continues_what_it_branched_from(smollm2, llm):
    """Every state is the one behind exactly the tokens of the answers that draw from it."""
    seen = []
    wanted = requests(llm, QUESTIONS[:2], 6, Sampling(1.5, heads="none"), 6, seed=1)
    noted = answer(llm, wanted, None, 4, lambda *told: seen.append((*told[:2], told[3][0].copy())))
    answers = {(a.prompt, a.sample): a for a in noted}
    assert len({tuple(a.decoding.token) for a in answers.values()}) > 6, "the answers are too alike to test anything"
    plain = open_stateful(smollm2, n_ctx=256, n_threads=1, n_threads_batch=1)
    states = StateReader(plain)
    prompts = [Tokenizer(plain).prompt_ids(question) for question in QUESTIONS[:2]]
    errors = []
    drawn = Counter()  # tokens of each answer so far
    for index, samples, logits in seen:
        beginnings = [answers[index, i].decoding.token[: drawn[index, i]].tolist() for i in samples]
        drawn.update((index, i) for i in samples)
        tokens = beginnings[0]
        assert beginnings == [tokens] * len(samples)
        ((_, _, expected),) = states.read([*prompts[index], *tokens], [0])
        errors.append(np.linalg.norm(logits - expected[0]) / np.std(expected[0]) / np.sqrt(len(logits)))
    assert len(errors) > 40
    assert np.max(errors) < 0.4, "batches of other sizes round differently, by 7%; one token less is up to 250% off"
    plain.close()


def test_equal_prompts_are_each_told_their_states(llm):
    """Such prompts share what they begin with, but each has answers of its own."""
    told = Counter()
    wanted = requests(llm, [QUESTIONS[0], QUESTIONS[0], QUESTIONS[1]], 2, Sampling(1.5, heads="none"), 4, seed=1)
    noted = answer(llm, wanted, None, 4, lambda index, samples, *_: told.update((index, i) for i in samples))
    assert told == {(a.prompt, a.sample): len(a.decoding) for a in noted}
    assert len(told) == 6


def test_each_beginning_is_decoded_once(llm, monkeypatch):
    decoded = []
    decode = llama_cpp.llama_decode
    monkeypatch.setattr(llama_cpp, "llama_decode", lambda ctx, b: decoded.append(b.n_tokens) or decode(ctx, b))
    wanted = requests(llm, QUESTIONS[:2], 6, Sampling(0.7, heads="none"), 8)
    answers = list(answer(llm, wanted, None, len(wanted)))
    beginnings = {(a.prompt, *a.decoding.token[:i].tolist()) for a in answers for i in range(len(a.decoding))}
    prompts = [request.prompt for request in (wanted[0], wanted[6])]
    common = next(i for i, (a, b) in enumerate(zip(*prompts, strict=False)) if a != b)
    assert sum(decoded) == len(beginnings) + sum(len(prompt) - 1 for prompt in prompts) - common
    assert len(beginnings) < sum(len(a.decoding) for a in answers)


def test_greedy_answers_are_those_of_the_graph(llm):
    wanted = requests(llm, QUESTIONS, 2, GREEDY, 12)
    shared = [(a.text, a.finish) for a in in_order(answer(llm, wanted, None, 4))]
    graph = [(a.text, a.finish) for a in in_order(generate(llm, QUESTIONS, 2, GREEDY, max_tokens=12))]
    assert np.mean([a == b for a, b in zip(shared, graph, strict=True)]) >= 0.8, "a rounding can turn one"


def test_an_answer_keeps_its_random_numbers_in_other_company(llm, heads):
    wanted = requests(llm, QUESTIONS, 3, Sampling(3.0, 3.0), max_tokens=2, seed=5)
    together = in_order(answer(llm, wanted, heads, 15))
    few = in_order(answer(llm, wanted[::-1], heads, 4))
    same = [a.decoding.token[0] == b.decoding.token[0] for a, b in zip(together, few, strict=True)]
    assert np.mean(same) >= 0.8
    assert len({a.decoding.token[0] for a in together}) > 3, "the answers are too alike to test anything"


def test_what_cannot_be_shared_is_refused(llm, heads):
    with pytest.raises(InputError, match="top-k or min-p"):
        answer(llm, requests(llm, QUESTIONS, 1, Sampling(top_k=3), 2), heads, 4)
    with pytest.raises(InputError, match="wants heads"):
        answer(llm, requests(llm, QUESTIONS, 1, Sampling(), 2), None, 4)


def test_prompts_that_take_turns_in_the_slots_are_not_mixed_up(llm):
    """A slot that was cut back to what it has in common with another prompt is not taken for one that holds its own."""
    one, other, third = (requests(llm, [QUESTIONS[i]], 1, GREEDY, 3)[0] for i in range(3))
    alone = [next(iter(answer(llm, [request], None, 1))).text for request in (one, other, third)]
    assert len(set(alone)) == 3, "the answers are too alike to test anything"
    turns = [one, other, third, one, third, other, one, one, other]
    texts = [a.text for a in answer(llm, turns, None, 2)]
    assert sorted(texts) == sorted(alone[[one, other, third].index(request)] for request in turns)


def test_draws_of_a_group_are_from_one_row(llm, monkeypatch):
    """128 copies of a row of 152k logits would be 78 MB a token."""
    rows = []
    draw = native.draw_from_rows

    def drawn(heads, hidden, logits, index, *settings):
        rows.append((len(logits), logits.base is not None, list(index)))
        return draw(heads, hidden, logits, index, *settings)

    monkeypatch.setattr(native, "draw_from_rows", drawn)
    assert len(list(answer(llm, requests(llm, QUESTIONS[:1], 6, Sampling(0.01, heads="none"), 2), None, 6))) == 6
    assert rows[0] == (1, True, [0] * 6)  # llama.cpp's own memory


def test_branches_wait_for_a_slot(llm, monkeypatch):
    """More answers than slots: no slot stands empty while one waits, and each answer goes on with its own numbers."""
    sampling = Sampling(1.5, heads="none")
    wanted = requests(llm, QUESTIONS[:3], 5, sampling, 5, seed=2)
    steps, states = [], StateContext.states
    monkeypatch.setattr(
        StateContext, "states", lambda c, slots, last: steps.append(len(slots)) or states(c, slots, last)
    )
    few = in_order(answer(llm, wanted, None, 2))
    assert max(steps) == 2
    assert np.mean([count == 2 for count in steps]) > 0.8, "slots stand empty while answers wait"
    many = in_order(answer(llm, wanted, None, len(wanted)))
    assert [(a.prompt, a.sample, len(a.decoding)) for a in few] == [(i, j, 5) for i in range(3) for j in range(5)]
    same = [a.decoding.token[0] == b.decoding.token[0] for a, b in zip(few, many, strict=True)]
    assert np.mean(same) >= 0.8, "a rounding can turn one"
    assert len({tuple(a.decoding.token) for a in many}) > 10, "the answers are too alike to test anything"


def test_two_contexts_give_the_answers_of_one(llm, heads):
    wanted = requests(llm, QUESTIONS, 3, [Sampling(2.0, 2.0)] * len(QUESTIONS), 4, seed=4)
    one = in_order(answer(llm, wanted, heads, 6))
    noted = []
    two = in_order(answer(llm, wanted, heads, 6, lambda *told: noted.extend((told[0], i) for i in told[1]), contexts=2))
    assert [(a.prompt, a.sample) for a in two] == [(a.prompt, a.sample) for a in one]
    same = [a.decoding.token.tolist() == b.decoding.token.tolist() for a, b in zip(one, two, strict=True)]
    assert np.mean(same) >= 0.7, "a rounding can turn one"
    assert Counter(noted) == {(a.prompt, a.sample): len(a.decoding) for a in two}


def test_a_model_is_not_freed_while_threads_draw(llm_to_close, monkeypatch):
    """The other context's logits are drawn from while an answer is out."""
    alive = []

    def slowly(groups, hidden, logits, heads):
        time.sleep(0.2)
        alive.append(float(logits[0, 0]))  # memory that is gone would end the process
        return draw_rows(groups, hidden, logits, heads)

    monkeypatch.setattr(shared, "draw_rows", slowly)
    wanted = requests(llm_to_close, QUESTIONS[:3], 1, GREEDY, 1)
    answers = answer(llm_to_close, wanted, None, 2, contexts=2)
    next(answers)
    begun = len(alive)
    llm_to_close.close()
    assert len(alive) > begun, "nothing was being drawn: this tests nothing"
    with pytest.raises(InputError, match="was closed"):
        list(answers)


def test_contexts_are_checked(llm):
    wanted = requests(llm, QUESTIONS, 1, GREEDY, 2)
    for number in (0, 5, 1.5):
        with pytest.raises(InputError, match="contexts"):
            answer(llm, wanted, None, 4, contexts=number)


def test_streams_of_a_step_follow_each_other(llm, monkeypatch):
    """A gap would make a pass of the model more: free slots are taken from the first on, and the last moves down."""
    states, moved = StateContext.states, StateContext.move
    seen, moves = [], []
    monkeypatch.setattr(
        StateContext, "states", lambda c, slots, last: seen.append([s.seq for s in slots]) or states(c, slots, last)
    )
    monkeypatch.setattr(StateContext, "move", lambda c, *slots: moves.append(1) or moved(c, *slots))
    wanted = requests(llm, QUESTIONS[:2], 6, Sampling(1.5, heads="none"), 6, seed=2)
    wanted = [replace(request, max_tokens=1 + i % 6) for i, request in enumerate(wanted)]
    answers = in_order(answer(llm, wanted, None, 12))
    assert all(seqs == list(range(len(seqs))) for seqs in seen)
    assert len(moves) > 2, "nothing had to move: this tests nothing"
    monkeypatch.setattr(StateContext, "can_stream", staticmethod(lambda llm, slots: False))
    pooled = in_order(answer(llm, wanted, None, 12))
    same = [a.decoding.token[0] == b.decoding.token[0] for a, b in zip(answers, pooled, strict=True)]
    assert np.mean(same) >= 0.8, "a rounding can turn one"
    assert [len(a.decoding) for a in answers] == [len(a.decoding) for a in pooled]


def test_a_pool_takes_the_place_of_streams_that_have_no_room(llm, monkeypatch):
    made, open_context = [], llama_cpp.llama_init_from_model

    def opened(model, params):
        made.append((params.kv_unified, params.n_ctx))
        return open_context(model, params) if params.kv_unified else None

    monkeypatch.setattr(llama_cpp, "llama_init_from_model", opened)
    wanted = requests(llm, QUESTIONS[:3], 1, GREEDY, 3)
    wanted[0] = replace(wanted[0], max_tokens=300)
    answers = answer(llm, wanted, None, 3)
    assert next(answers).finished is False
    assert made == [(False, 3 * 512), (True, 512)]
    answers.close()


def test_answers_that_share_slots_leave_room_for_more(llm, monkeypatch):
    """At first as many answers as slots are under way; where these end in few slots, so will the next ones."""
    steps, states = [], StateContext.states
    monkeypatch.setattr(
        StateContext, "states", lambda c, slots, last: steps.append(len(slots)) or states(c, slots, last)
    )
    wanted = requests(llm, QUESTIONS[:4] * 6, 4, Sampling(0.01, heads="none"), 2)
    assert len(list(answer(llm, wanted, None, 8))) == len(wanted)
    assert steps[0] == 2, "nothing is known yet"
    assert max(steps) >= 5


def test_more_slots_than_a_context_has_are_of_several(llm, monkeypatch):
    made, open_context = [], StateContext.__init__
    monkeypatch.setattr(llama_cpp, "llama_max_parallel_sequences", lambda: 3)
    monkeypatch.setattr(
        StateContext, "__init__", lambda c, llm, slots, *room: made.append(slots) or open_context(c, llm, slots, *room)
    )
    wanted = requests(llm, QUESTIONS[:3], 3, GREEDY, 2)
    assert len(list(answer(llm, wanted, None, 8))) == 9
    assert made == [2, 3, 3]
    assert len(list(answer(llm, wanted[:3], None, 8))) == 3
    assert made[3:] == [3], "one prompt is one context's"
    one = requests(llm, QUESTIONS[:1], 7, GREEDY, 2)
    assert len(list(answer(llm, one, None, 8))) == 7
    assert made[4:] == [3]


def test_what_llama_cpp_logs_of_graphs_does_not_wait_for_python(llm):
    """Each line would take the interpreter's lock in the middle of a decode; errors still arrive."""
    before, data = llama_cpp.llama_log_callback(), ctypes.c_void_p()
    llama_cpp.llama_log_get(ctypes.byref(before), ctypes.byref(data))
    levels = []
    noted = llama_cpp.llama_log_callback(lambda level, text, data: levels.append(level))
    llama_cpp.llama_log_set(noted, ctypes.c_void_p())
    try:
        wanted = requests(llm, QUESTIONS[:2], 4, Sampling(1.5, heads="none"), 4)
        assert len(list(answer(llm, wanted, None, 8))) == 8
        assert 1 not in levels, "a line for developers"
        assert 2 not in levels, "information"
        with native.warnings_only(), native.warnings_only():
            assert not llama_cpp.llama_model_load_from_file(b"/none.gguf", llama_cpp.llama_model_default_params())
        assert set(levels) == {4}, "errors alone"
        levels.clear()
        llama_cpp.llama_model_load_from_file(b"/none.gguf", llama_cpp.llama_model_default_params())
        assert levels, "the callback is there again"
    finally:
        llama_cpp.llama_log_set(before, data)


@pytest.mark.parametrize(("layers", "on_gpu", "threads"), [(31, True, 1), (-1, True, 1), (30, True, 2), (31, False, 2)])
def test_a_model_on_a_gpu_keeps_no_other_threads_busy(llm_to_close, monkeypatch, layers, on_gpu, threads):
    made, open_context = [], llama_cpp.llama_init_from_model
    monkeypatch.setattr(llm_to_close.model_params, "n_gpu_layers", layers)  # of 30, and the output
    monkeypatch.setattr(llama_cpp, "llama_supports_gpu_offload", lambda: on_gpu)
    monkeypatch.setattr(
        llama_cpp,
        "llama_init_from_model",
        lambda model, params: made.append(params.n_threads_batch) or open_context(model, params),
    )
    assert len(list(answer(llm_to_close, requests(llm_to_close, QUESTIONS[:1], 1, GREEDY, 1), None, 1))) == 1
    assert made == [threads]
