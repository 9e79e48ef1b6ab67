"""The probability of a token under a blurred hard top-p: against draws, against a full sort, its limits."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from autodeco.losses.hard_top_p import log_probability  # noqa: E402


def naive(z, temperature, top_p, labels, blur):
    """The sum of the docstring, by a full sort in float64 and automatic differentiation."""
    order = z.sort(dim=-1, descending=True, stable=True).indices
    rank = (order == labels[:, None]).double().argmax(-1, keepdim=True)
    s = z.double().gather(-1, order) / temperature[:, None]
    log_p = torch.log_softmax(s, -1)
    c = log_p.exp().cumsum(-1).clamp(1e-12, 1 - 1e-12)
    F = torch.sigmoid((torch.logit(c) - torch.logit(top_p)[:, None]) / blur)
    F = torch.cat([F[:, :-1], torch.ones_like(F[:, :1])], -1)
    w = torch.diff(F, dim=-1, prepend=torch.zeros_like(F[:, :1]))
    kept = torch.arange(z.shape[-1]) >= rank
    return log_p.gather(-1, rank).squeeze(-1) + torch.log((w / c * kept).sum(-1))


def rows(vocab, deviation, n=12, seed=0):
    rng = np.random.default_rng(seed)
    z = torch.from_numpy(rng.normal(0, deviation, (n, vocab)).astype(np.float32))
    temperature = torch.from_numpy(rng.uniform(0.2, 1.8, n))
    top_p = torch.from_numpy(rng.uniform(0.2, 0.99, n))
    likely = z.sort(-1, descending=True).indices
    labels = likely[torch.arange(n), torch.from_numpy(rng.integers(0, 6, n))]
    labels[-2:] = likely[-2:, vocab // 2]  # and some far behind
    return z, temperature, top_p, labels


@pytest.mark.parametrize("blur", [0.1, 0.3, 1.0])
@pytest.mark.parametrize(("vocab", "deviation"), [(7, 2.0), (300, 1.0), (5000, 4.0), (20_000, 6.0)])
def test_value_and_gradients_are_those_of_a_full_sort(vocab, deviation, blur):
    z, temperature, top_p, labels = rows(vocab, deviation)
    found, wanted = [], []
    for function, out in ((log_probability, found), (naive, wanted)):
        t, p = temperature.clone().requires_grad_(), top_p.clone().requires_grad_()
        value = function(z, t, p, labels, blur)
        out += [value, *torch.autograd.grad(value.sum(), (t, p))]
    seen = wanted[0] > -9  # behind that the reference's own cumulative sums have no digits left
    assert seen.sum() >= 5
    assert (found[0][~seen] < -8).all()
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.allclose(ours[seen], theirs[seen], rtol=1e-4, atol=1e-5)


def test_probabilities_of_all_tokens_sum_to_one():
    z, temperature, top_p, _ = rows(40, 2.0, n=1)
    every = torch.arange(40)
    value = log_probability(z.expand(40, -1), temperature.expand(40), top_p.expand(40), every)
    assert value.exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_draws_with_a_blurred_p_and_a_hard_cut_have_this_distribution():
    rng, n, blur, t, p = np.random.default_rng(0), 40_000, 0.3, 0.9, 0.7
    z = torch.from_numpy(rng.normal(0, 2, 12).astype(np.float32))
    order = z.argsort(descending=True).numpy()
    c = torch.softmax(z.double() / t, -1).numpy()[order].cumsum()
    u = rng.random(n)
    cut = 1 / (1 + np.exp(-(np.log(p / (1 - p)) + blur * np.log(u / (1 - u)))))
    last = np.searchsorted(c, cut).clip(max=11)  # the token that crosses the cut is kept
    drawn = np.searchsorted(c, rng.random(n) * c[last]).clip(max=11)
    counts = np.bincount(drawn, minlength=12)
    every = torch.from_numpy(order.copy())
    full = torch.full((12,), t, dtype=torch.float64), torch.full((12,), p, dtype=torch.float64)
    expected = n * log_probability(z.expand(12, -1), *full, every, blur).exp().numpy()
    common = expected >= 5
    chi_square = ((counts - expected)[common] ** 2 / expected[common]).sum()
    assert chi_square < 30, (counts, expected)  # at most 11 degrees of freedom: beyond 30 once in 600 right programs


def test_with_little_blur_the_cut_is_hard():
    z = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).expand(4, -1)
    one, p, every = torch.ones(4, dtype=torch.float64), torch.full((4,), 0.7, dtype=torch.float64), torch.arange(4)
    assert log_probability(z, one, p, every, 0.01).exp().tolist() == pytest.approx([0.625, 0.375, 0, 0], abs=1e-6)


def test_p_has_somewhere_to_fall():
    """Where the likeliest token is right a smaller P is better, and the soft top-p has no such slope below the cut."""
    z = torch.log(torch.tensor([[0.6, 0.4]]))
    p = torch.tensor([0.9], requires_grad=True)
    log_probability(z, torch.ones(1), p, torch.tensor([0])).sum().backward()
    assert p.grad.item() < -0.03


def test_extremes_are_numbers():
    z, _, _, labels = rows(300, 2.0)
    for t, p in ((0.0, 0.0), (1e-6, 1.0), (2.0, 1.0), (2.0, 0.0), (1e-3, 0.5)):
        t, p = torch.full((12,), t, requires_grad=True), torch.full((12,), p, requires_grad=True)
        value = log_probability(z, t, p, labels)
        assert value.isfinite().all()
        value.sum().backward()
        assert p.grad.isfinite().all()
        assert t.grad.isfinite().all()
