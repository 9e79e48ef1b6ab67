"""Compressed distributions against the whole vocabulary."""

import pytest

torch = pytest.importorskip("torch")

from autodeco import heads  # noqa: E402
from autodeco.rewards.distributions import TOP, compress, masses, policy, prob_stats, token_atoms  # noqa: E402

VOCABULARY = 5000


def logits_of(kind: str) -> torch.Tensor:
    """Return [8, V] logits: ``peaked`` as a model's at a sure token, ``flat`` as at an open one."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(8, VOCABULARY, generator=generator)
    steps = torch.linspace(0, 12 if kind == "peaked" else 2, VOCABULARY).sqrt() * 3
    return (noise - steps)[:, torch.randperm(VOCABULARY, generator=generator)]


def nucleus(logits: torch.Tensor, temperature: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Return what the hard cut makes of ``logits`` [n, V], sorted by descending logit."""
    p = torch.softmax(logits.sort(-1, descending=True).values.double() / temperature[:, None], -1)
    c = p.cumsum(-1)
    p = p * (c - p < top_p[:, None])
    return p / p.sum(-1, keepdim=True)


@pytest.mark.parametrize("kind", ["peaked", "flat"])
@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 1.9])
def test_masses_and_statistics_are_those_of_the_whole_vocabulary(kind, temperature):
    logits = logits_of(kind)
    t = torch.full((8,), temperature)
    exact = torch.softmax(logits.double().sort(-1, descending=True).values / temperature, -1)
    found = masses(compress(logits), t)
    torch.testing.assert_close(found[:, :TOP].double(), exact[:, :TOP], rtol=0.02, atol=1e-4)
    torch.testing.assert_close(found[:, TOP:].sum(-1).double(), exact[:, TOP:].sum(-1), rtol=0.02, atol=1e-4)
    torch.testing.assert_close(prob_stats(compress(logits), t), heads.prob_stats(logits, t), rtol=0.02, atol=2e-3)


def test_a_small_blur_gives_the_nucleus_that_decoding_draws_from():
    logits = logits_of("peaked")
    t, p = torch.full((8,), 0.7), torch.linspace(0.05, 0.9, 8)
    exact = nucleus(logits, t, p)
    found = policy(compress(logits), t, p, blur=1e-4)
    # a gap of half precision can move the cut by one token
    assert (found[:, :TOP].double() - exact[:, :TOP]).abs().sum(-1).max() < 0.03
    torch.testing.assert_close(found.sum(-1), torch.ones(8))


def test_blurred_probabilities_are_the_mean_over_the_noise():
    logits, generator = logits_of("peaked")[:1], torch.Generator().manual_seed(1)
    t, p, blur, draws = torch.tensor([0.8]), torch.tensor([0.7]), 0.3, 20000
    noise = torch.logit(torch.rand(draws, generator=generator).clamp(1e-6, 1 - 1e-6)) * blur
    cuts = torch.sigmoid(torch.logit(p) + noise)
    mean = nucleus(logits.expand(draws, -1)[:, :], t.expand(draws), cuts).mean(0)
    found = policy(compress(logits), t, p, blur)[0]
    torch.testing.assert_close(found[:TOP].double(), mean[:TOP], rtol=0.03, atol=2e-3)


def test_derivatives_are_those_of_finite_differences():
    distributions = compress(logits_of("peaked"))
    distributions = type(distributions)(distributions.gaps.double(), distributions.counts.double(), VOCABULARY)
    atom = torch.arange(8) * 3

    def log_pi(t, p):
        gaps = distributions.gaps / t[:, None]
        mass = distributions.counts * torch.exp(-gaps)
        mass = mass / mass.sum(-1, keepdim=True)
        c = mass.cumsum(-1).clamp(1e-6, 1 - 1e-6)
        cut = torch.sigmoid((torch.logit(c) - torch.logit(p)[:, None]) / 0.3)
        cut = torch.cat((cut[:, :-1], torch.ones(8, 1, dtype=torch.float64)), 1)
        steps = torch.diff(cut, dim=-1, prepend=torch.zeros(8, 1, dtype=torch.float64)) / c
        return torch.log((mass * steps.flip(-1).cumsum(-1).flip(-1)).gather(1, atom[:, None]))[:, 0]

    t, p = torch.full((8,), 0.6, dtype=torch.float64), torch.full((8,), 0.8, dtype=torch.float64)
    step = 1e-5
    by_t = (log_pi(t + step, p) - log_pi(t - step, p)) / (2 * step)
    by_p = (log_pi(t, p + step) - log_pi(t, p - step)) / (2 * step)
    ours_t, ours_p = t.float().requires_grad_(), p.float().requires_grad_()
    torch.log(policy(distributions, ours_t, ours_p, 0.3).gather(1, atom[:, None])).sum().backward()
    torch.testing.assert_close(ours_t.grad.double(), by_t, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(ours_p.grad.double(), by_p, rtol=2e-3, atol=2e-3)


def test_a_token_is_found_in_its_atom():
    logits = logits_of("peaked")
    distributions = compress(logits)
    order = logits.sort(-1, descending=True).indices
    for rank in (0, 5, 60, TOP - 1):
        gap = logits.amax(-1) - logits.gather(1, order[:, rank : rank + 1])[:, 0]
        gaps = distributions.gaps.float().gather(1, token_atoms(distributions, gap)[:, None])[:, 0]
        torch.testing.assert_close(gaps, gap, rtol=2e-3, atol=2e-3)
    far = logits.amax(-1) - logits.gather(1, order[:, 3000:3001])[:, 0]
    places = token_atoms(distributions, far)
    assert (places >= TOP).all()
    assert (distributions.counts.gather(1, places[:, None]) > 0).all()
