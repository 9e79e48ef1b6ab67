"""What an update raises, by hand: the clipped gain, the price of what leaks, and places where the model is sure."""

import math

import pytest

torch = pytest.importorskip("torch")

from autodeco import Heads  # noqa: E402
from autodeco.rewards import objective  # noqa: E402
from autodeco.rewards.distributions import Distributions, policy  # noqa: E402
from autodeco.rewards.objective import Decisions, add_gradient, losses  # noqa: E402

HIDDEN = 8
# one likely token, one second, and a tail of 1,000 tokens 9 logits below
GAPS, COUNTS = torch.tensor([[0.0, 2.0, 9.0]]), torch.tensor([[1.0, 1.0, 1000.0]])


def fixed(temperature: float, top_p: float = 0.999) -> Heads:
    heads = Heads(HIDDEN, prob_stats=False)
    with torch.no_grad():
        for head, share in ((heads.temp_head, temperature / 2), (heads.top_p_head, top_p)):
            head.mlp[2].bias.fill_(math.log(share / (1 - share)))
    return heads


def decision(atom=0, temperature=0.5, advantage=0.0, price=0.3) -> Decisions:
    columns = (torch.tensor([value]) for value in (temperature, 0.999, advantage, price, 1.0))
    return Decisions(torch.ones(1, HIDDEN), Distributions(GAPS, COUNTS, 1002), torch.tensor([atom]), *columns)


def test_heads_as_they_drew_gain_the_advantage_and_leak_nothing():
    found = losses(fixed(0.5), decision(advantage=0.7))
    assert found.gain.item() == pytest.approx(0.7)
    assert found.leak.item() == pytest.approx(0, abs=1e-6)
    assert found.divergence.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("advantage", [0.5, -0.5])
def test_the_gain_is_clipped_on_the_side_of_the_advantage(advantage):
    """At T 1 the second token is e^2 likelier than at T 0.5: no more of that counts than the clip, if it is good."""
    here = decision(atom=1, advantage=advantage)
    now, then = (policy(here.distributions, torch.tensor([t]), here.top_p)[0, 1].item() for t in (1.0, 0.5))
    ratio = now / then
    assert ratio > 1.2
    expected = min(ratio * advantage, 1.2 * advantage)
    assert losses(fixed(1.0), here).gain.item() == pytest.approx(expected, rel=1e-4)


def test_a_temperature_raised_where_nothing_was_learned_loses():
    """All drawn answers are alike, so the gain is flat in T; what leaks to the tail is not."""
    costs = []
    for temperature in (0.5, 0.8, 1.2, 1.8):
        found = losses(fixed(temperature), decision())
        assert found.gain.item() == 0
        costs.append((0.3 * found.leak).item())
    assert costs[0] == pytest.approx(0, abs=1e-6)
    assert costs == sorted(costs)
    tail = 1000 * math.exp(-9 / 1.8) / (1 + math.exp(-2 / 1.8) + 1000 * math.exp(-9 / 1.8))
    assert costs[-1] == pytest.approx(0.3 * tail, rel=0.02)


def test_the_loss_says_to_go_down_where_probability_leaks():
    heads = fixed(1.2)
    (0.3 * losses(heads, decision()).leak).sum().backward()
    assert heads.temp_head.mlp[2].bias.grad.item() > 0


def test_known_tokens_may_gain_probability_without_a_price():
    here, heads = decision(), fixed(0.7)
    then, now = (policy(here.distributions, torch.tensor([t]), here.top_p)[0, 1].item() for t in (0.5, 0.7))
    assert now - then > 0.03
    assert losses(heads, here).leak.item() < 0.1 * (now - then)


def test_what_a_safe_setting_gives_tokens_is_free():
    """Answers drawn at T 0.5 leak nothing up to T 1.2, where that is free, and as much less above it."""
    here = decision()
    assert losses(fixed(1.2), here, free=(1.2, 0.999)).leak.item() == pytest.approx(0, abs=1e-6)
    assert losses(fixed(0.8), here, free=(1.2, 0.999)).leak.item() == pytest.approx(0, abs=1e-6)
    priced, free, above = (
        losses(fixed(heads), here, free=safe).leak.item()
        for heads, safe in ((1.8, None), (1.2, None), (1.8, (1.2, 0.999)))
    )
    assert free > 0.1
    assert above == pytest.approx(priced - free, rel=1e-3)
    assert losses(fixed(1.8), here, free=(0.2, 0.999)).leak.item() == pytest.approx(priced, rel=1e-5)


def test_parts_of_an_update_have_the_gradient_of_the_whole(monkeypatch):
    n = 10
    columns = [0.3 + torch.rand(n, generator=torch.Generator().manual_seed(i)) for i in range(5)]
    columns[1] = torch.full((n,), 0.95)
    distributions = Distributions(GAPS.expand(n, -1), COUNTS.expand(n, -1), 1002)
    hidden = torch.randn(n, HIDDEN, generator=torch.Generator().manual_seed(9))
    here, gradients = Decisions(hidden, distributions, torch.arange(n) % 2, *columns), []
    for size in (4, n):
        monkeypatch.setattr(objective, "CPU_CHUNK", size)
        torch.manual_seed(0)
        heads = fixed(0.8)
        sums = add_gradient(heads, here, price=2.0, scale=0.1)
        gradients.append(torch.cat([p.grad.flatten() for p in heads.parameters()]))
    found = losses(fixed(0.8), here)
    expected = ((2.0 * here.price * found.leak - found.gain) * here.weight).sum()
    assert sums[0].item() == pytest.approx(expected.item(), rel=1e-5)
    assert sums[2].item() == pytest.approx((found.leak * here.weight).sum().item(), rel=1e-5)
    assert gradients[0].abs().max() > 1e-4
    torch.testing.assert_close(gradients[0], gradients[1])


def test_a_top_p_that_rests_costs_nothing_and_one_that_left_is_drawn_back():
    """Half the square of the distance in the argument of the sigmoid, on whichever side; no rest, no price."""
    rest = objective.Rest(0.5, 0.9)
    assert losses(fixed(0.5, 0.9), decision(), rest=rest).rest.item() == pytest.approx(0, abs=1e-9)
    for top_p in (0.6, 0.99):
        distance = math.log(top_p / (1 - top_p)) - math.log(9)
        heads = fixed(0.5, top_p)
        assert losses(heads, decision()).rest.item() == 0
        assert losses(heads, decision(), rest=rest).rest.item() == pytest.approx(0.25 * distance**2, rel=1e-4)
        loss = add_gradient(heads, decision(), price=1.0, scale=2.0, rest=rest)[0]
        leak = losses(heads, decision()).leak.item()
        assert loss.item() == pytest.approx(0.25 * distance**2 + 0.3 * leak, rel=1e-4)
        bias = heads.top_p_head.mlp[2].bias.grad.item()
        assert bias == pytest.approx(2 * 0.5 * distance, rel=0.02), "what the nucleus leaks adds next to nothing"
