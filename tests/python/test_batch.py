"""Many sequences in one context: what is drawn, what is computed, how answers end, what is refused."""

import llama_cpp
import numpy as np
import pytest
from scipy import stats

from autodeco import native
from autodeco.base.tokenizer import Tokenizer
from autodeco.batch import Request, Sampling, answer, generate, requests, seed_of
from autodeco.batch.context import BatchContext, Slot, common_length
from autodeco.errors import InputError
from autodeco.export import cli as export_cli
from builders import gguf_files as files
from builders.distributions import exact
from builders.questions import GREEDY, PROMPT, QUESTIONS, in_order
from builders.stock_llama import last_state


@pytest.fixture(scope="module")
def prompt(llm):
    return Tokenizer(llm).prompt_ids(PROMPT)


@pytest.fixture(scope="module")
def state(smollm2, prompt):
    return last_state(smollm2, prompt, alone=True, flash_attn=True)


def cut(logits, temperature, top_k, min_p):
    """Logits with all but the ``top_k`` largest, and those below ``min_p`` of the likeliest, banned; by a full sort."""
    kept = logits.copy()
    kept[np.argsort(-logits, kind="stable")[top_k:]] = -np.inf
    p = np.exp((logits - logits.max()) / temperature)
    kept[p < min_p] = -np.inf
    return kept


def test_settings_mixed_in_one_batch_each_follow_their_own_distribution(llm, exported, prompt, state):
    """Chi-square over 200 first tokens a setting; temperatures are such that the nucleus holds several."""
    hidden, logits = state
    (temperature,), (top_p,) = native.predict(exported("f32"), hidden[None], logits[None])
    scale, widen, n = 1.5 / float(temperature), 0.9 / float(top_p), 200
    expected = {
        Sampling(scale, widen): exact(logits, 1.5, 0.9),
        Sampling(scale, 0.8, heads="temperature"): exact(logits, 1.5, 0.8),
        Sampling(1.5, widen, heads="top_p"): exact(logits, 1.5, 0.9),
        Sampling(1.5, 0.95, heads="none"): exact(logits, 1.5, 0.95),
        Sampling(2.5, 0.9, top_k=12, min_p=0.05, heads="none"): exact(cut(logits, 2.5, 12, 0.05), 2.5, 0.9),
    }
    answers = list(generate(llm, [prompt] * len(expected), n, list(expected), max_tokens=1, seed=3))
    assert len(answers) == n * len(expected)
    for index, (sampling, p) in enumerate(expected.items()):
        decodings = [a.decoding for a in answers if a.prompt == index]
        drawn = np.concatenate([decoding.token for decoding in decodings])
        np.testing.assert_allclose(np.concatenate([d.prob for d in decodings]), p[drawn], rtol=5e-3)
        frequent = np.flatnonzero(p * n >= 5)
        assert len(frequent) >= 3, "the nucleus is too small to test anything"
        observed = np.array([(drawn == token).sum() for token in frequent])
        wanted = p[frequent] * n
        if (rest := n - wanted.sum()) >= 1:
            observed, wanted = np.append(observed, n - observed.sum()), np.append(wanted, rest)
        assert stats.chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue > 1e-4, sampling
        values = decodings[0]
        fixed_t, fixed_p = sampling.heads in ("none", "top_p"), sampling.heads in ("none", "temperature")
        assert values.temperature[0] == pytest.approx(sampling.temperature if fixed_t else temperature, abs=1e-3)
        assert values.top_p[0] == pytest.approx(sampling.top_p if fixed_p else top_p, abs=1e-3)
        assert values.nucleus[0] == pytest.approx((p > 0).sum(), rel=0.02)


def test_an_answer_depends_on_seed_prompt_and_sample_not_on_slots_or_company(llm):
    sampling = Sampling(3.0, 3.0)
    wanted = requests(llm, QUESTIONS, 3, sampling, max_tokens=3, seed=5)
    first = {
        slots: np.array([a.decoding.token[0] for a in in_order(answer(llm, wanted, slots=slots))])
        for slots in (1, 4, 15)
    }
    # a draw can fall to the other side of an edge: logits differ by a rounding
    assert (first[1] == first[4]).mean() >= 0.8
    assert (first[1] == first[15]).mean() >= 0.8
    assert len(set(first[1])) > 3, "the answers are too alike to test anything"
    (alone,) = answer(llm, wanted[7:8], slots=15)
    assert (alone.prompt, alone.sample, alone.decoding.token[0]) == (2, 1, first[1][7])
    again = [a.text for a in generate(llm, QUESTIONS, 3, sampling, max_tokens=3, seed=5)]
    assert again == [a.text for a in generate(llm, QUESTIONS, 3, sampling, max_tokens=3, seed=5)]
    assert again != [a.text for a in generate(llm, QUESTIONS, 3, sampling, max_tokens=3, seed=6)]


def test_room_for_many_sequences_is_no_warning(llm, capfd):
    trained = llama_cpp.llama_model_n_ctx_train(llm.model)
    BatchContext(llm, None, 2, 2 * trained).close()
    assert capfd.readouterr().err == ""


def test_seeds_are_their_own_for_each_prompt_and_sample():
    seeds = {seed_of(seed, prompt, sample) for seed in range(3) for prompt in range(40) for sample in range(40)}
    assert len(seeds) == 4800
    assert max(seeds) < 2**32 - 1


def test_every_request_is_answered_once_and_a_free_slot_is_refilled(llm, monkeypatch):
    """Limits of 1 to 12 tokens over 3 slots: the batches stay full until the queue is empty."""
    prompts = [tuple(Tokenizer(llm).prompt_ids(question)) for question in QUESTIONS]
    limits = [1, 12, 2, 7, 3, 9, 1, 5, 12, 4]
    wanted = [
        Request(prompts[i % 5], Sampling(3.0, 3.0), limit, seed_of(0, i), index=i) for i, limit in enumerate(limits)
    ]
    sizes = []
    sample = native.GraphSampler.sample
    monkeypatch.setattr(native.GraphSampler, "sample", lambda graph, i: sizes.append(i) or sample(graph, i))
    answers = sorted(answer(llm, wanted, slots=3), key=lambda a: a.prompt)
    assert [a.prompt for a in answers] == list(range(10))
    assert all(len(a.decoding) == limit for a, limit in zip(answers, limits, strict=True) if a.finish == "length")
    assert len(sizes) == sum(len(a.decoding) for a in answers)
    full = sizes.count(2)  # the third row of a batch
    assert sizes.count(0) - full <= max(limits)


def test_what_prompts_share_is_computed_once(llm, monkeypatch):
    decoded = []
    decode = llama_cpp.llama_decode
    monkeypatch.setattr(llama_cpp, "llama_decode", lambda ctx, b: decoded.append(b.n_tokens) or decode(ctx, b))
    prompts = [Tokenizer(llm).prompt_ids(question) for question in QUESTIONS[:2]]
    common = next(i for i, (a, b) in enumerate(zip(*prompts, strict=False)) if a != b)
    assert common > 10
    answers = list(generate(llm, prompts, 6, Sampling(3.0, 3.0), max_tokens=4, slots=4))
    tokens = sum(len(a.decoding) for a in answers)
    assert len(answers) == 12
    assert sum(decoded) == tokens + len(prompts[0]) - 1 + len(prompts[1]) - 1 - common


def test_copied_prompts_give_the_same_answer(llm):
    texts = {a.text for a in generate(llm, [QUESTIONS[1]], 7, GREEDY, max_tokens=12, slots=3)}
    assert len(texts) == 1


def test_answers_end_by_themselves_at_a_stop_string_or_at_the_limit(llm):
    whole = next(iter(generate(llm, [QUESTIONS[1]], 1, GREEDY, max_tokens=60)))
    assert whole.finish == "end"
    assert whole.finished
    assert llama_cpp.llama_vocab_is_eog(llama_cpp.llama_model_get_vocab(llm.model), int(whole.decoding.token[-1]))
    assert llm.detokenize(whole.decoding.token.tolist()[:-1]).decode() == whole.text
    short = next(iter(generate(llm, [QUESTIONS[1]], 1, GREEDY, max_tokens=4)))
    assert (short.finish, short.finished, len(short.decoding)) == ("length", False, 4)
    assert whole.text.startswith(short.text)
    stop = whole.text[6:9]  # no boundary of tokens
    stopped = next(iter(generate(llm, [QUESTIONS[1]], 1, GREEDY, max_tokens=60, stop=["never there", stop])))
    assert (stopped.finish, stopped.text) == ("stop", whole.text[: whole.text.index(stop)])
    assert len(stopped.decoding) < len(whole.decoding)
    (one,) = generate(llm, [QUESTIONS[1]], 1, GREEDY, max_tokens=60, stop=stop)
    assert one.text == stopped.text, "one text is one stop string"


def test_the_context_is_freed_however_the_answers_end(llm, monkeypatch):
    freed = []
    free = llama_cpp.llama_free
    monkeypatch.setattr(llama_cpp, "llama_free", lambda ctx: freed.append(ctx) or free(ctx))
    answers = generate(llm, QUESTIONS, 4, Sampling(), max_tokens=4)
    next(answers)
    answers.close()
    assert len(freed) == 1
    assert len(list(generate(llm, QUESTIONS, 1, Sampling(), max_tokens=2))) == 5
    assert len(freed) == 2
    monkeypatch.setattr(native.GraphSampler, "sample", lambda graph, i: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(generate(llm, QUESTIONS, 1, Sampling(), max_tokens=2))
    assert len(freed) == 3
    monkeypatch.undo()
    assert llm("One, two,", max_tokens=3)["usage"]["completion_tokens"] == 3


def test_other_heads_than_the_models_own(smollm2, llm, exported, prompt, state):
    plain = llama_cpp.Llama(str(smollm2), n_ctx=128, n_threads=1, n_threads_batch=1, verbose=False)
    with pytest.raises(InputError, match="wants heads, but the model has none"):
        generate(plain, [prompt], max_tokens=2)
    for heads in (exported("f32"), native.load_heads(exported("f32"))):
        (one,) = generate(plain, [prompt], max_tokens=1, heads=heads)
        assert one.decoding.temperature == pytest.approx(
            native.predict(exported("f32"), state[0][None], state[1][None])[0], abs=1e-3
        )
    assert len(list(generate(plain, [prompt], max_tokens=2, sampling=GREEDY))) == 1
    plain.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts": [[]]}, "prompt 0: has no tokens"),
        ({"prompts": [[1, 60000]]}, "outside the vocabulary of 49152"),
        ({"prompts": [[1], [1] * 512]}, "prompt 1: has 512 tokens and fills the context of 512"),
        ({"prompts": [[1] * 500], "max_tokens": 13}, "exceed the context of 512; raise n_ctx or lower max_tokens"),
        ({"prompts": [[1]], "max_tokens": 0}, "max_tokens 0"),
        ({"prompts": [[1]], "slots": 0}, "slots 0"),
        ({"prompts": [[1]], "sampling": []}, "0 settings for 1 prompts"),
        ({"prompts": [[1]], "heads": "none.gguf"}, "none.gguf: no such heads file"),
        ({"prompts": "Hello"}, "prompts is one text; give a list"),
        ({"prompts": [[1]], "sampling": None}, "sampling None: must be a Sampling, or a list"),
        ({"prompts": None}, "prompts None: must be a list of prompts"),
        ({"prompts": [["Hello"]]}, "prompt 0: .* must be a text, or a list of the ids of its tokens"),
        ({"prompts": ["a", b"Hello"]}, "prompt 1: .* must be a text, or a list of the ids of its tokens"),
        ({"prompts": QUESTIONS[0]}, "prompts is one chat; give a list of chats"),
        ({"prompts": [1, 2, 3]}, "prompt 0: 1 is no text, chat or list of token ids"),
        ({"prompts": [[1]], "n": -1}, "n -1: must be at least 1"),
        ({"prompts": [[1]], "n": 1.5}, "n 1.5"),
        ({"prompts": [[1]], "seed": -1}, "seed -1: must be at least 0"),
        ({"prompts": [[1]], "max_tokens": None}, "max_tokens None"),
        ({"prompts": [[1]], "stop": [".", ""]}, "stop .*must be texts that are not empty"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_computed(llm, monkeypatch, settings, message):
    monkeypatch.setattr(llama_cpp, "llama_init_from_model", None)
    with pytest.raises(InputError, match=message):
        generate(llm, **settings)


def test_heads_of_another_model_are_named(llm, tmp_path):
    def other(hidden: int) -> str:
        (tmp_path / "other.gguf").write_bytes(files.model(hidden=hidden, vocab=49152))
        (tmp_path / "other.safetensors").write_bytes(files.safetensors(files.head_arrays(hidden=hidden)))
        path = tmp_path / f"heads-{hidden}.gguf"
        arguments = [tmp_path / "other.safetensors", "--base", tmp_path / "other.gguf", "-o", path]
        assert export_cli.main([str(argument) for argument in arguments]) == 0
        return path

    with pytest.raises(InputError, match=r"heads-64\.gguf: .*hidden size of 64, .*Q4_1\.gguf has 576"):
        generate(llm, [[1]], heads=other(64))
    with pytest.warns(UserWarning, match=r"heads-576\.gguf: the heads were exported for Tiny"):
        generate(llm, [[1]], heads=other(576))


def test_more_sequences_than_llama_cpp_has_are_refused(llm):
    with pytest.raises(InputError, match=r"257 answers at a time: llama\.cpp has room for 256"):
        next(generate(llm, [[1]], 257, slots=257))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, "temperature -1.0"),
        ({"top_p": float("nan")}, "top_p nan"),
        ({"top_k": -1}, "top_k -1"),
        ({"top_k": 1.5}, "top_k 1.5: must be a whole number"),
        ({"temperature": "hot"}, "temperature 'hot': must be a number"),
        ({"min_p": 2.0}, "min_p 2.0"),
        ({"heads": "all"}, "heads all"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Sampling(**settings)


def test_what_two_lists_begin_with_in_common_is_found_by_halves():
    rng = np.random.default_rng(4)
    for _ in range(300):
        a = rng.integers(0, 9, rng.integers(0, 40)).tolist()
        b = a[: rng.integers(0, 41)] + rng.integers(0, 9, rng.integers(0, 20)).tolist()
        common = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        assert common_length(a, b) == common_length(b, a) == common


@pytest.fixture
def holding(llm, monkeypatch):
    """holding(can_cut) -> a context of three slots, and one of them as if it had been loaded with 0 to 5."""
    contexts = []

    def make(can_cut: bool = True) -> tuple[BatchContext, Slot]:
        monkeypatch.setattr(llama_cpp, "llama_model_is_recurrent", lambda model: not can_cut)
        context = BatchContext(llm, None, 3, 64)
        contexts.append(context)
        slot = context.slots[1]
        slot.prompt, slot.held = (0, 1, 2, 3, 4, 5), [0, 1, 2, 3, 4, 5, 60, 61]
        return context, slot

    yield make
    for context in contexts:
        context.close()


def test_a_slot_gives_what_it_holds_of_a_prompt(holding):
    context, slot = holding()
    assert context.shared(slot, slot.prompt) == 5  # the last token of a prompt gives the logits
    assert context.shared(slot, (*slot.prompt,)) == 5  # equal, and another object
    assert context.shared(slot, (0, 1, 2, 7)) == 3
    assert context.shared(slot, (0, 1, 2, 3, 4, 5, 60, 7, 8)) == 7  # of an answer too, as a chat goes on
    assert context.fullest(context.slots, (0, 1, 7)) == (slot, 2)
    assert context.fullest(context.slots, (9, 9)) == (context.slots[0], 0)
    recurrent, slot = holding(can_cut=False)
    assert recurrent.shared(slot, slot.prompt) == 0  # it cannot go back behind the answer
    slot.held = [0, 1, 2, 3, 4]
    assert recurrent.shared(slot, slot.prompt) == 5


def test_a_prompt_that_a_slot_was_loaded_with_is_known_without_its_tokens(holding):
    """Answers to one prompt come with the same object; what is compared token by token is not that."""

    class Compared(list):
        def __getitem__(self, index):
            raise AssertionError("the tokens were compared")

    context, slot = holding()
    slot.held = Compared(slot.held)
    assert context.fullest([slot, *context.slots], slot.prompt) == (slot, 5)
