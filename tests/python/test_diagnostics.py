"""Diagnostics of given answers, against their definitions computed by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from autodeco import native
from autodeco.base import states
from autodeco.base.token_bytes import TokenBytes
from autodeco.batch import requests, shared
from autodeco.evaluation.answer_logs import Pass, answer_row
from autodeco.evaluation.diagnostics import figures, given_token
from autodeco.evaluation.given import GivenAnswers
from autodeco.evaluation.methods import AUTODECO
from autodeco.evaluation.running import TaskPasses
from autodeco.evaluation.settings import Settings
from autodeco.evaluation.tasks import TaskSpec
from autodeco.export.checkpoint import read_heads
from autodeco.export.control_ends import ControlEnds
from autodeco.export.head_tensors import head_tensors
from autodeco.export.layout import open_layout
from autodeco.export.writer import write_sidecar
from builders.random_heads import with_control

LOGITS = np.array([1.0, 0.2, -0.5, -2.0], np.float32)


def log_p(b):
    z = b * LOGITS.astype(np.float64)
    return z - np.log(np.exp(z).sum())


def test_a_token_is_seen_at_its_own_setting_and_at_the_mean():
    found = given_token(3, LOGITS, 1, (0.5, 0.7), (1.25, 0.95))
    p = np.exp(log_p(1.25))
    assert (found.answer, found.inverse) == (3, 2.0)
    assert found.entropy == pytest.approx(-(np.exp(log_p(1.0)) @ log_p(1.0)))
    assert found.gain == pytest.approx(log_p(2.0)[1] - log_p(1.25)[1])
    assert found.slope_at_mean == pytest.approx(LOGITS[1] - p @ LOGITS)
    step = 1e-5
    assert found.slope_at_mean == pytest.approx((log_p(1.25 + step)[1] - log_p(1.25 - step)[1]) / (2 * step), rel=1e-6)
    below = np.cumsum(np.exp(log_p(2.0)))  # 0.79, 0.95, 0.99, 1
    assert [found.nucleus, found.nucleus_at_mean] == [int((below < 0.7).sum()) + 1, int((below < 0.95).sum()) + 1]
    assert found.nucleus != found.nucleus_at_mean
    banned = np.append(LOGITS, -np.inf).astype(np.float32)
    assert given_token(3, banned, 1, (0.5, 0.7), (1.25, 0.95)) == found


def answers(random, follow, count=60, length=10):
    """Tokens drawn from random distributions; the heads' 1/T follows the slope by ``follow``, with noise."""
    drawn = []
    for _ in range(count * length):
        logits = random.normal(size=6) * 2
        p = np.exp(logits) / np.exp(logits).sum()
        token = int(random.choice(6, p=p))
        drawn.append((logits, token, 1.0 + follow * (logits[token] - p @ logits) + 0.2 * random.normal()))
    inverses = np.clip([b for *_, b in drawn], 0.2, None)
    tokens = [
        given_token(i // length, logits, token, (1 / b, 0.9), (inverses.mean(), 0.9))
        for i, ((logits, token, _), b) in enumerate(zip(drawn, inverses, strict=True))
    ]
    return figures(tokens, 0)


def test_what_follows_the_slopes_gains_and_noise_only_pays():
    following, noise = (answers(np.random.default_rng(1), follow) for follow in (0.1, 0.0))
    for found in (following, noise):
        assert found["gain"]["value"] == pytest.approx(
            found["alignment"]["value"] - found["curvature_penalty"]["value"]
        )
        assert found["curvature_penalty"]["low"] > 0, "log p is concave in 1/T"
        assert found["crossed"]["value"] == 0.0, "P is the same everywhere"
        assert (found["answers"], found["tokens"]) == (60, 600)
        of_bins = sum(one["share"] * one["value"] for one in found["by_entropy"])
        assert of_bins == pytest.approx(found["gain"]["value"])
        assert [one["share"] for one in found["by_entropy"]] == pytest.approx([0.2] * 5, abs=0.01)
    assert following["gain"]["low"] > 0
    assert following["alignment_efficiency"] > 0.3
    assert noise["gain"]["high"] < 0
    assert abs(noise["alignment_efficiency"]) < 0.15


def test_the_interval_over_answers_is_that_of_resampling_them():
    random = np.random.default_rng(2)
    tokens = []
    for answer in range(40):
        level = random.normal() * 0.3
        tokens += [
            given_token(answer, random.normal(size=5).astype(np.float32), 0, (1 / np.exp(level), 0.9), (1.0, 0.5))
            for _ in range(int(random.integers(1, 20)))
        ]
    found = figures(tokens, 0)["gain"]
    by_answer = [[t.gain for t in tokens if t.answer == i] for i in range(40)]
    means = []
    for _ in range(4000):
        chosen = [by_answer[i] for i in random.integers(0, 40, 40)]
        means.append(np.mean([value for of_one in chosen for value in of_one]))
    assert found["value"] == pytest.approx(np.mean([t.gain for t in tokens]))
    low, high = np.percentile(means, [2.5, 97.5])
    width = high - low
    assert [found["low"], found["high"]] == pytest.approx([low, high], abs=0.12 * width)


def test_an_efficiency_of_one_is_to_move_in_proportion_to_the_slopes():
    random = np.random.default_rng(4)
    tokens = [given_token(i, random.normal(size=5).astype(np.float32), 0, (1.0, 0.9), (1.0, 0.5)) for i in range(50)]
    slopes = np.array([t.slope_at_mean for t in tokens])
    moved = [
        type(t)(**{**vars(t), "inverse": 1.0 + 0.1 * (s - slopes.mean())}) for t, s in zip(tokens, slopes, strict=True)
    ]
    expected = (slopes - slopes.mean()) @ slopes / len(slopes) / np.sqrt(slopes.var() * (slopes**2).mean())
    assert figures(moved, 0)["alignment_efficiency"] == pytest.approx(expected)
    assert figures(tokens, 0)["alignment_efficiency"] == 0.0
    assert figures(tokens, 0)["crossed"]["value"] > 0.5


@pytest.fixture(params=["two heads", "a control head"])
def heads(request, smollm2, exported, tmp_path):
    if request.param == "two heads":
        return exported("f32")
    steered = with_control(read_heads(exported("f32")), ControlEnds(0.5, 1.25, 0.5, 0.95), 0.5)
    write_sidecar(tmp_path / "heads.gguf", head_tensors(steered, "f32"), open_layout(smollm2))
    return tmp_path / "heads.gguf"


def test_given_answers_are_read_again_with_what_the_heads_picked(llm, smollm2, heads, monkeypatch):
    """Against what was noted while AutoDeco drew the answers; each is read in two steps."""
    monkeypatch.setattr(states, "COMPLETION_BATCH", 4)
    problems = [{"prompt": text, "answer": "?"} for text in ("The capital of France is", "One and two are")]
    settings = Settings((TaskSpec("asked", "chain_sum"),), test=2, validation=1, samples=1)
    wanted = requests(llm, [problem["prompt"] for problem in problems], 1, AUTODECO.sampling, 6)
    pieces = TokenBytes(llm.model, special=True)
    answers = shared.answer(llm, wanted, native.load_heads(heads), 2)
    rows = [answer_row(one, True, pieces, AUTODECO) for one in answers]
    rows.sort(key=lambda row: row["problem"])
    passes = TaskPasses(SimpleNamespace(test=problems), {}, {AUTODECO.name: Pass(AUTODECO, rows, 0.0)})
    with GivenAnswers(smollm2, heads, settings, 256, n_threads=1, n_threads_batch=1) as given:
        read = {tuple(ids): (temperatures, top_ps) for _, ids, temperatures, top_ps in given.read(*_test(passes))}
        found = given.diagnostics(passes)
        assert given.diagnostics(_wrong(passes)) is None
    for row in rows:
        assert row["tokens"] == len(row["ids"])
        temperatures, top_ps = read[tuple(row["ids"])]
        # batches of other sizes round differently
        assert temperatures == pytest.approx(row["temperature"], abs=0.08)
        assert top_ps == pytest.approx(row["top_p"], abs=0.08)
        assert np.ptp(temperatures) > 0.25, "another token's would be told apart"
    assert (found["of"], found["answers"], found["tokens"]) == ("AutoDeco", 2, sum(row["tokens"] for row in rows))


def _test(passes):
    return passes.test[AUTODECO.name], passes.task.test


def _wrong(passes):
    rows = [row | {"right": False} for row in passes.test[AUTODECO.name].rows]
    return TaskPasses(passes.task, {}, {AUTODECO.name: Pass(AUTODECO, rows, 0.0)})
