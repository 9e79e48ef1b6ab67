"""The losses and their gradients reproduce the official implementation."""

import math

import pytest

torch = pytest.importorskip("torch")

from autodeco import losses  # noqa: E402
from builders.golden import CASES, golden  # noqa: E402


@pytest.mark.parametrize("case", CASES)
def test_losses_reproduce_the_official_values(case):
    heads, hidden, logits, labels, expected = golden(case)
    temperature, top_p = heads(hidden, logits)
    for name, value in {
        "temperature_loss": losses.temperature_loss(logits, temperature, labels, easy_token_drop=0.0),
        "temperature_loss_all_easy_dropped": losses.temperature_loss(logits, temperature, labels, easy_token_drop=1.0),
        "top_p_loss": losses.soft_top_p_loss(logits, temperature, top_p, labels),
    }.items():
        torch.testing.assert_close(value, expected[name].squeeze(), rtol=1e-5, atol=0, msg=name)


@pytest.mark.parametrize("case", CASES)
def test_gradients_reproduce_the_official_ones(case):
    heads, hidden, logits, labels, expected = golden(case)
    temperature, top_p = heads(hidden, logits)
    loss = losses.temperature_loss(logits, temperature, labels, easy_token_drop=0.0)
    (loss + losses.soft_top_p_loss(logits, temperature, top_p, labels)).backward()
    for name, parameter in heads.named_parameters():
        reference = expected[f"grad.{name}"]
        assert torch.norm(parameter.grad - reference) <= 1e-4 * torch.norm(reference), name


def test_any_leading_shape_gives_the_same_loss():
    heads, hidden, logits, labels, _ = golden("tiny_plain")
    temperature, top_p = heads(hidden, logits)
    one = losses.soft_top_p_loss(logits, temperature, top_p, labels)
    shapes = [value.reshape(3, 4, *value.shape[1:]) for value in (logits, temperature, top_p, labels)]
    torch.testing.assert_close(losses.soft_top_p_loss(*shapes), one)
    torch.testing.assert_close(
        losses.temperature_loss(shapes[0], shapes[1], shapes[3], 0.0),
        losses.temperature_loss(logits, temperature, labels, 0.0),
    )


def test_the_loss_of_two_tokens_by_hand():
    # z = (0, log 3): p = (1/4, 3/4) at T = 1; the label is the likely one, so w = 3/4.
    logits, labels = torch.tensor([[0.0, math.log(3)]]), torch.tensor([1])
    one = torch.ones(1)
    loss = losses.temperature_loss(logits, one, labels, easy_token_drop=0.0)
    assert loss.item() == pytest.approx(0.75 * -math.log(0.75), rel=1e-6)
    # P = 0.7: c = (0.75, 1), masks exp(-1.5) and exp(-9).
    first, second = 0.75 * math.exp(-1.5), 0.25 * math.exp(-9)
    loss = losses.soft_top_p_loss(logits, one, torch.tensor([0.7]), labels)
    # That is 0.00014, the logarithm of a number near 1: float32 has three digits of it.
    assert loss.item() == pytest.approx(0.75 * -math.log(first / (first + second)), rel=1e-3)


def test_below_the_minimum_temperature_the_loss_is_that_of_the_minimum():
    logits, labels = torch.tensor([[0.0, 0.02]]), torch.tensor([0])
    temperature = torch.tensor([0.001], requires_grad=True)
    loss = losses.temperature_loss(logits, temperature, labels, easy_token_drop=0.0)
    assert loss.item() == pytest.approx(1 / (1 + math.exp(0.02)) * math.log(1 + math.exp(2)), rel=1e-5)
    loss.backward()
    assert temperature.grad.item() == 0.0


def test_easy_tokens_are_dropped_with_the_given_probability_and_seed():
    logits = torch.tensor([0.0, 1.0]).expand(10_000, 2)
    easy, hard = torch.ones(10_000, dtype=torch.long), torch.zeros(10_000, dtype=torch.long)
    kept = losses.easy_token_mask(logits, easy, 0.6, torch.Generator().manual_seed(0))
    assert kept.float().mean().item() == pytest.approx(0.4, abs=0.02)  # four standard deviations
    assert torch.equal(kept, losses.easy_token_mask(logits, easy, 0.6, torch.Generator().manual_seed(0)))
    assert losses.easy_token_mask(logits, hard, 0.6).all()
    assert not losses.easy_token_mask(logits, easy, 1.0).any()


@pytest.mark.parametrize("labels", [[-100, -100], [1, 1]])
def test_the_mean_over_nothing_is_zero_with_a_gradient(labels):
    logits = torch.tensor([[0.0, 1.0], [0.0, 2.0]])
    temperature = torch.ones(2, requires_grad=True)
    loss = losses.temperature_loss(logits, temperature, torch.tensor(labels), easy_token_drop=1.0)
    loss.backward()
    assert loss.item() == 0.0
    assert temperature.grad.tolist() == [0.0, 0.0]


def test_the_soft_top_p_loss_reaches_the_temperature():
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    temperature = torch.ones(1, requires_grad=True)
    losses.soft_top_p_loss(logits, temperature, torch.tensor([0.5]), torch.tensor([1])).backward()
    assert temperature.grad.abs().item() > 1e-3


def test_ignored_positions_do_not_count():
    logits, labels = torch.randn(6, 20), torch.tensor([3, -100, 5, -100, 7, 8])
    temperature, top_p = torch.rand(6) + 0.5, torch.rand(6)
    kept = labels != -100
    torch.testing.assert_close(
        losses.soft_top_p_loss(logits, temperature, top_p, labels),
        losses.soft_top_p_loss(logits[kept], temperature[kept], top_p[kept], labels[kept]),
    )
