"""Rules that heads are compared with: each draws from the distribution that its definition gives."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from autodeco import native
from autodeco.batch import Sampling, requests
from autodeco.batch import answer as answer_in_graph
from autodeco.batch.rules import Row
from autodeco.batch.shared import answer
from autodeco.errors import InputError
from autodeco.evaluation import rivals
from autodeco.evaluation.rivals import adaptive_p, edt, greedy_threshold, inverse_mean, phases, shuffle, stock_chain
from autodeco.evaluation.rivals.stock_chain import Candidates, distribution, left_by
from autodeco.evaluation.settings import ALL_RIVALS, RIVALS

LOGITS = np.array([2.0, 1.5, 1.4, 0.3, -0.5, -1.0, -2.5, -6.0], np.float32)
DRAWS = 4000


def softmax(z):
    p = np.exp(z - z.max())
    return p / p.sum()


def at(temperature, kept=None):
    """The distribution of LOGITS at ``temperature``, of the tokens ``kept``."""
    z = LOGITS.astype(np.float64) / temperature
    return softmax(z if kept is None else np.where(kept, z, -np.inf))


def cuts_of_llama_cpp():
    """What top-k 40 (all), top-p 0.95 and min-p 0.05 leave of LOGITS, which are in descending order."""
    p = at(1.0)
    kept = np.arange(len(p)) <= np.searchsorted(np.cumsum(p), 0.95)
    return kept & (p >= 0.05 * p[0])


def dynamic(temperature, delta):
    kept = cuts_of_llama_cpp()
    p = at(1.0, kept)[kept]
    share = -(p @ np.log(p)) / np.log(len(p))
    return at(temperature - delta + 2 * delta * share, kept)


def within(n):
    return LOGITS.max() - LOGITS <= n * LOGITS.std()


def named(name):
    llm = SimpleNamespace(metadata={"tokenizer.chat_template": "<think>..</think>"})
    (found,) = [method for method in rivals.by_hand(llm, ()) if method.name == name]
    return found.sampling.rule


def agree(tokens, p):
    """Chi-square of drawn ``tokens`` against the probabilities ``p``; what has none is never drawn."""
    counts = np.bincount(tokens, minlength=len(p))
    assert not counts[p == 0].any()
    often = p * len(tokens) >= 5
    observed, expected = counts[often], p[often] * len(tokens)
    if p[~often].sum() > 0:
        observed, expected = (
            np.append(observed, counts[~often].sum()),
            np.append(expected, p[~often].sum() * len(tokens)),
        )
    return len(observed) == 1 or stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-4


@pytest.mark.parametrize(
    ("name", "p"),
    [
        ("top-k 40 P 0.95 min-p 0.05 T 0.8", at(0.8, cuts_of_llama_cpp())),
        ("dynatemp 0.8 range 0.4", dynamic(0.8, 0.4)),
        ("dynatemp 1 range 0.8", dynamic(1.0, 0.8)),
        ("min-p 0.1 T 1.5", at(1.5, at(1.0) >= 0.1 * at(1.0)[0])),
        ("min-p 0.2 T 1", at(1.0, at(1.0) >= 0.2 * at(1.0)[0])),
        ("top-1-sigma T 1.5", at(1.5, within(1.0))),
        ("top-2-sigma T 1", at(1.0, within(2.0))),
    ],
)
def test_rules_of_llama_cpp_draw_from_what_its_samplers_leave(name, p):
    assert 2 <= np.count_nonzero(p) < len(p), "tests a cut"
    rule, random, row = named(name), np.random.default_rng(1), Row(LOGITS)
    tokens, found = distribution(row, rule.samplers)
    assert np.bincount(tokens, found, minlength=len(p)) == pytest.approx(p, abs=1e-5)
    assert agree(np.array([rule.choose(row, random) for _ in range(DRAWS)]), p)


@pytest.mark.parametrize("name", ["top-k 40 P 0.95 min-p 0.05 T 0.8", "dynatemp 0.8 range 0.4", "min-p 0.1 T 1.5"])
@pytest.mark.parametrize("scale", [2.0, 12.0])
def test_samplers_leave_the_same_of_the_tokens_that_the_first_can_leave(name, scale, monkeypatch):
    """Of a large vocabulary the samplers see few tokens, and find the very numbers that they find in all."""
    logits = (scale * np.random.default_rng(4).standard_normal(20_000)).astype(np.float32)
    logits[::7] = -np.inf
    samplers = named(name).samplers
    few = left_by(samplers[0], logits)
    assert len(few) < 20_000 / 4
    tokens, p = distribution(Row(logits), samplers)
    monkeypatch.setattr(stock_chain, "left_by", lambda sampler, logits: None)
    every, exact = distribution(Row(logits), samplers)
    assert (tokens.tolist(), p.tolist()) == (every.tolist(), exact.tolist())


def test_candidates_are_all_where_no_cut_bounds_them():
    logits = np.arange(300, dtype=np.float32)
    assert left_by(("top_n_sigma", (1.0,)), logits) is None
    assert left_by(("top_k", (3,)), logits) is None, "more than there are blocks"
    assert left_by(("min_p", (0.0, 1)), logits) is None
    assert left_by(("top_k", (2,)), logits).tolist() == list(range(254, 300))
    assert Candidates(logits, np.array([5, 7])).rows()["id"].tolist() == [5, 7]


def adapted(mean, target):
    """The distribution of adaptive-p where the chosen tokens' probabilities have the weighted ``mean`` so far."""
    kept = at(1.0) >= 0.05 * at(1.0)[0]
    p = at(1.0, kept)
    distance = np.abs(p - np.clip(2 * target - mean, 0, 1)) / 0.3
    return softmax(np.where(kept, 5.0 - 10.0 * distance**2 / (1.0 + distance), -np.inf))


def test_adaptive_p_moves_its_target_against_the_tokens_it_chose():
    rule, row, random = named("adaptive-p 0.3"), Row(LOGITS), np.random.default_rng(0)
    first, second = [], {}
    for seed in range(DRAWS):
        one = rule.begin((), seed, None)
        first.append(one.choose(row, random))
        one.accept(first[-1])
        second.setdefault(first[-1], []).append(one.choose(row, random))
    assert agree(np.array(first), adapted(0.3, 0.3))
    p = at(1.0, at(1.0) >= 0.05 * at(1.0)[0])
    decay = adaptive_p.DECAY
    for token in (0, 1):
        mean = (p[token] + decay * 0.3 / (1 - decay)) / (1 + decay / (1 - decay))
        assert agree(np.array(second[token]), adapted(mean, 0.3))
    again = rule.begin((), 7, None)
    assert [again.choose(row, random)] == first[7:8], "a seed decides its draws"


def test_edt_and_greedy_threshold_follow_the_spread():
    entropy, top = native.spread(LOGITS)
    p = at(1.0)
    assert (entropy, top) == pytest.approx((-(p @ np.log(p)), p.max()))
    assert edt.EntropyRule(0.6, 0.1).choose(Row(LOGITS), None) == (pytest.approx(0.6 * 0.8 ** (0.1 / entropy)), 1.0)
    sure = np.array([0.0, -np.inf, -np.inf], np.float32)
    assert native.spread(sure) == (0.0, 1.0)
    assert edt.EntropyRule(0.6, 0.1).choose(Row(sure), None) == (0.0, 1.0)
    assert 0.4 < top < 0.45
    rules = [greedy_threshold.ThresholdRule(threshold, 0.7) for threshold in (0.4, 0.45)]
    assert [rule.choose(Row(LOGITS), None) for rule in rules] == [(0.7, 1.0), (0.0, 1.0)]


def test_the_phase_is_thinking_between_the_tags_wherever_tokens_break_them():
    pieces = [b"<th", b"ink", b">", b"so", b"</thi", b"nk>", b"4", b"<think>a</think>"]
    rule = phases.PhaseRule((1.0, 0.95), (0.3, 0.95))

    def temperatures(prompt, tokens):
        one, found = rule.begin(prompt, 0, pieces), []
        for token in tokens:
            found.append(one.choose(None, None)[0])
            one.accept(token)
        return [*found, one.choose(None, None)[0]]

    assert temperatures((6,), (0, 1, 2, 3, 4, 5, 6)) == [0.3, 0.3, 0.3, 1.0, 1.0, 1.0, 0.3, 0.3]
    assert temperatures((6, 0, 1, 2), (3, 4, 5)) == [1.0, 1.0, 1.0, 0.3]
    assert temperatures((7,), (6, 7)) == [0.3, 0.3, 0.3]
    assert temperatures((0, 1), (2,)) == [0.3, 1.0], "a tag that begins in the prompt"
    assert phases.methods("{{ messages }}") == []


def noted(random, n=600):
    """Answers with pairs that entropy and top probability tell: T near the entropy, P near the top probability."""
    entropy, top = random.uniform(0, 2, n), random.uniform(0.3, 1.0, n)
    names = ("entropy", "top_probability", "temperature", "top_p")
    rows = zip(*(np.array_split(values, 5) for values in (entropy, top, entropy / 2, top)), strict=True)
    return [dict(zip(names, (part.tolist() for part in row), strict=True)) for row in rows]


def test_the_shuffle_draws_the_heads_pairs_alike():
    rows = [{"temperature": [0.5, 1.0], "top_p": [0.2, 0.9]}, {"temperature": [0.5], "top_p": [0.2]}]
    rule, random = shuffle.method(rows).sampling.rule, np.random.default_rng(2)
    drawn = [rule.choose(Row(LOGITS), random) for _ in range(DRAWS)]
    assert set(drawn) == {(0.5, 0.2), (1.0, 0.9)}
    assert stats.binomtest(drawn.count((1.0, 0.9)), DRAWS, 1 / 3).pvalue > 1e-4
    assert inverse_mean.method(rows).sampling == Sampling(0.6, round(1.3 / 3, 4), heads="none")


def test_greedy_tokens_count_as_a_low_temperature_in_the_mean_of_1_by_t():
    rows = [{"temperature": [0.0, 0.0001, 0.5, 0.5], "top_p": [1.0] * 4}]
    assert inverse_mean.method(rows).sampling.temperature == round(4 / (100 + 100 + 2 + 2), 4)


def test_the_binned_shuffle_keeps_what_entropy_and_top_probability_tell():
    random = np.random.default_rng(3)
    rows = noted(random)
    rule = shuffle.binned(rows).sampling.rule
    entropies, tops = (np.concatenate([row[name] for row in rows]) for name in ("entropy", "top_probability"))
    drawn, of_shuffle = [], shuffle.method(rows).sampling.rule
    for entropy, top in zip(entropies, tops, strict=True):
        drawn.append(rule.choose(SimpleNamespace(spread=(entropy, top)), random))
    temperature, top_p = np.array(drawn).T
    assert np.abs(temperature - entropies / 2).max() < 0.3, "a sixth of a range of 1, for unequal quantiles"
    assert np.corrcoef(top_p, tops)[0, 1] > 0.9
    assert len(set(drawn)) > 200, "pairs are drawn, not taken back"
    alike = [of_shuffle.choose(None, random)[0] for _ in entropies]
    assert abs(np.corrcoef(alike, entropies)[0, 1]) < 0.2
    for spread in ((-1.0, -1.0), (99.0, 2.0)):  # beyond all that was seen
        assert rule.choose(SimpleNamespace(spread=spread), random) in set(map(tuple, _pairs(rows)))


def _pairs(rows):
    return [pair for row in rows for pair in zip(row["temperature"], row["top_p"], strict=True)]


def test_bins_hold_a_value_each_though_values_repeat():
    values = np.array([0.0] * 50 + [0.1, 0.5, 0.9])
    bins = shuffle.Bins(values, 6)
    for value in (-1.0, 0.0, 0.05, 0.3, 0.9, 5.0):
        assert bins(value) in set(bins(values).tolist())


def test_each_name_is_a_rule_and_can_be_left_out():
    llm = SimpleNamespace(metadata={"tokenizer.chat_template": "<think></think>"})
    assert {*rivals.BY_HAND, *rivals.OF_HEADS} == set(RIVALS)
    everything = [*rivals.by_hand(llm, ()), *rivals.of_heads(noted(np.random.default_rng(0)), ())]
    assert len({method.name for method in everything}) == len(everything)
    assert rivals.by_hand(llm, (ALL_RIVALS,)) == rivals.of_heads([], (ALL_RIVALS,)) == []
    for name in rivals.BY_HAND:
        gone = {m.name for m in everything} - {m.name for m in rivals.by_hand(llm, (name,))}
        assert gone & {m.name for m in rivals.BY_HAND[name](llm)} == {m.name for m in rivals.BY_HAND[name](llm)}
    assert rivals.number_of_heads(()) == len(rivals.of_heads(noted(np.random.default_rng(0)), ()))


def test_answers_by_rules_share_prefixes_with_all_others_and_are_drawn_again_alike(llm):
    """Rules for settings, for tokens and with memory stand beside a fixed setting in one batch; seeds decide them."""
    settings = [
        Sampling(heads="none", rule=greedy_threshold.ThresholdRule(1.1, 1.0)),
        Sampling(heads="none", rule=named("top-k 40 P 0.95 min-p 0.05 T 0.8")),
        Sampling(heads="none", rule=named("adaptive-p 0.5")),
        Sampling(0.0, heads="none"),
    ]

    def texts():
        wanted = requests(llm, ["The capital of France is"] * 4, 3, settings, 8, seed=5)
        found = {(a.prompt, a.sample): a.text for a in answer(llm, wanted, None, 12)}
        return [[found[i, s] for s in range(3)] for i in range(4)]

    first = texts()
    assert texts() == first
    assert first[0] == first[3] == [first[3][0]] * 3, "below a threshold of 1.1 all is greedy"
    assert min(len(set(texts)) for texts in first[1:3]) > 1
    with pytest.raises(InputError, match="not in the graph"):
        list(answer_in_graph(llm, requests(llm, ["a"], 1, settings[0], 2)))
    with pytest.raises(InputError, match="a rule decides alone"):
        Sampling(0.5, heads="none", rule=settings[0].rule)
