"""Anchors: heads that rewards make warm stay at a static setting where nobody scores."""

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from autodeco import Heads  # noqa: E402
from autodeco.errors import InputError  # noqa: E402
from autodeco.rewards.anchors import draw_anchors  # noqa: E402
from autodeco.rewards.arguments import ANCHOR_TO, FIRST_HEADS, RewardArguments  # noqa: E402
from autodeco.rewards.distributions import policy  # noqa: E402
from autodeco.rewards.loop import train_on_rewards  # noqa: E402
from autodeco.rewards.measuring import GREEDY, Static  # noqa: E402
from builders import reward_world as world  # noqa: E402
from builders.trained_heads import weights  # noqa: E402

SETTING = Static(0.1)
ELSEWHERE = range(world.ELSEWHERE + 500, world.ELSEWHERE + 600)  # problems that no run sees
ARGUMENTS = RewardArguments(
    checker="python:builders.reward_score:score",
    rounds=16,
    batch_problems=24,
    samples=8,
    validation_problems=20,
    validation_samples=2,
    evaluate_every=16,
)


def write(path, numbers):
    path.write_text("".join(json.dumps({"prompt": str(i), "number": i}) + "\n" for i in numbers))
    return path


@pytest.fixture
def problems(tmp_path):
    return write(tmp_path / "problems.jsonl", range(200))


@pytest.fixture
def anchors(tmp_path):
    return write(tmp_path / "anchors.jsonl", range(world.ELSEWHERE, world.ELSEWHERE + 100))


def drawn(n=4, setting=SETTING):
    prompts = [[world.ELSEWHERE + i] for i in range(n)]
    generators = [np.random.default_rng(i) for i in range(n)]
    return draw_anchors(world.WorldPolicy(), prompts, setting, 7, generators)


def heads_at(setting: Static, prob_stats: bool = False) -> Heads:
    heads = Heads(world.HIDDEN, prob_stats=prob_stats)
    with torch.no_grad():
        for head, share in ((heads.temp_head, setting.temperature / 2), (heads.top_p_head, setting.top_p)):
            head.mlp[2].bias.fill_(torch.logit(torch.tensor(share)).item())
    return heads


def test_heads_at_the_setting_cost_nothing_and_others_the_divergence():
    setting = Static(0.3, 0.9)
    found, heads = drawn(setting=setting), heads_at(Static(0.9, 0.6))
    assert found.costs(heads_at(setting)).abs().max() < 1e-5
    n = len(found)
    mu = policy(found.distributions, torch.full((n,), 0.3), torch.full((n,), 0.9))
    pi = policy(found.distributions, torch.full((n,), 0.9), torch.full((n,), 0.6))
    expected = torch.where(mu > 0, mu * (mu / pi).log(), 0.0).sum(-1)
    torch.testing.assert_close(found.costs(heads), expected, rtol=1e-3, atol=1e-5)
    total = found.add_gradient(heads, 0.5)
    assert total.item() == pytest.approx((expected * found.weight).sum().item(), rel=1e-3)
    assert heads.temp_head.mlp[2].bias.grad.item() > 0  # colder is nearer


def test_what_the_first_heads_predict_costs_them_nothing_and_others_the_divergence():
    torch.manual_seed(3)
    first = Heads(world.HIDDEN, prob_stats=False)
    with torch.no_grad():
        for head in (first.temp_head, first.top_p_head):
            head.mlp[2].weight.normal_(0, 0.5)
    found = drawn(20, first)
    assert found.temperature.std() > 0.05
    assert found.top_p.std() > 0.05
    assert found.costs(first).abs().max() < 1e-5
    other = heads_at(Static(1.2, 0.99))
    mu = policy(found.distributions, found.temperature, found.top_p)
    pi = policy(found.distributions, *(torch.full((len(found),), value) for value in (1.2, 0.99)))
    expected = torch.where(mu > 0, mu * (mu / pi.clamp(min=1e-30)).log(), 0.0).sum(-1)
    torch.testing.assert_close(found.costs(other), expected, rtol=1e-3, atol=1e-5)
    assert torch.equal(found[[2, 0]].temperature, found.temperature[[2, 0]])


def test_positions_are_those_of_all_answers():
    found = drawn(40)
    # a few sure positions stand for all of them
    assert found.weight.sum().item() == pytest.approx(40 * world.LENGTH, rel=0.1)
    assert (found.weight > 1).sum() < 0.2 * len(found)


@pytest.mark.slow
def test_anchors_keep_heads_cold_where_no_reward_says_otherwise(problems, anchors, tmp_path):
    for name, file in (("free", None), ("held", anchors)):
        train_on_rewards(world.WorldPolicy(), problems, tmp_path / name, ARGUMENTS, progress=False, anchors=file)
    free, held = (Heads.from_pretrained(tmp_path / name) for name in ("free", "held"))
    cold = world.value(SETTING, ELSEWHERE)
    assert world.value(free, ELSEWHERE) < 0.7 * cold
    assert world.value(held, ELSEWHERE) > 0.95 * cold
    # what was trained is not given up for it
    seen = range(1000, 1100)
    gained, of_free = (world.value(heads, seen) - world.value(GREEDY, seen) for heads in (held, free))
    assert gained > 0.8 * of_free > 0


@pytest.mark.slow
def test_heads_held_to_the_first_ones_predict_as_these_where_no_reward_says_otherwise(problems, anchors, tmp_path):
    first = heads_at(Static(0.35, 0.95), prob_stats=True)
    first.save_pretrained(tmp_path / "first")
    held = replace(ARGUMENTS, anchor_to=FIRST_HEADS)
    left = {}
    for name, arguments, file in (("free", ARGUMENTS, None), ("held", held, anchors)):
        train_on_rewards(
            world.WorldPolicy(), problems, tmp_path / name, arguments, tmp_path / "first", progress=False, anchors=file
        )
        found = drawn(100, first)
        costs = found.costs(Heads.from_pretrained(tmp_path / name)).detach()
        left[name] = ((costs * found.weight).sum() / found.weight.sum()).item()
    assert left["held"] < 0.1 * left["free"]
    seen = range(1000, 1100)
    assert world.value(Heads.from_pretrained(tmp_path / "held"), seen) > world.value(first, seen)


@pytest.mark.parametrize("anchor_to", ANCHOR_TO)
def test_a_run_with_anchors_resumes_to_the_same_heads(problems, anchors, tmp_path, anchor_to):
    small = {"batch_problems": 4, "samples": 2, "validation_problems": 4}
    short = replace(ARGUMENTS, rounds=3, evaluate_every=1, anchor_to=anchor_to, **small)
    whole = train_on_rewards(world.WorldPolicy(), problems, tmp_path / "whole", short, progress=False, anchors=anchors)

    class Pressed(world.WorldPolicy):
        calls = 0

        def sample(self, *args, **kwargs):
            Pressed.calls += 1
            if Pressed.calls == 6:
                raise KeyboardInterrupt
            return super().sample(*args, **kwargs)

    part = tmp_path / "part"
    assert train_on_rewards(Pressed(), problems, part, short, progress=False, anchors=anchors).interrupted
    again = {"resume": True, "progress": False}
    with pytest.raises(InputError, match="anchors"):
        train_on_rewards(world.WorldPolicy(), problems, part, short, **again)
    resumed = train_on_rewards(world.WorldPolicy(), problems, part, short, **again, anchors=anchors)
    assert resumed.history == whole.history
    for name, tensor in weights(tmp_path / "whole").items():
        assert torch.equal(weights(part)[name], tensor), name
