"""The Triton kernels of the exact losses equal the plain losses, in Triton's interpreter or on a GPU (conftest)."""

import os
from functools import partial

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton", reason="triton, which has wheels for Linux on x86-64 only, is not installed")
from autodeco import losses  # noqa: E402
from autodeco.losses import exact, exact_triton  # noqa: E402
from autodeco.losses.exact import token_losses  # noqa: E402
from builders.golden import golden  # noqa: E402
from builders.loss_cases import gradients, plain, random_case  # noqa: E402

INTERPRETED = os.environ["TRITON_INTERPRET"] == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"


@pytest.fixture(autouse=True)
def tiles(monkeypatch):
    """The interpreter takes as long for a large tile as for a small one."""
    if INTERPRETED:
        monkeypatch.setattr(exact_triton, "WARPS", 64)


def close(case, rtol=1e-5, atol=1e-12):
    """Check losses and derivatives of all tokens of ``case`` against the plain ones in float64."""
    expected = gradients(plain, *(value.double() if value.is_floating_point() else value for value in case))
    ours = partial(token_losses, backend=exact_triton)
    for name, value in gradients(ours, *(value.to(DEVICE) for value in case)).items():
        difference = torch.norm(value.double().cpu() - expected[name])
        assert difference <= rtol * torch.norm(expected[name]) + atol, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_random_tokens(dtype):
    logits, temperature, top_p, labels = random_case(0, n=5)
    top_p[:2] = torch.tensor([0.0, 1.0])
    close((logits.to(dtype), temperature, top_p, labels))


def test_flat_and_peaked_tokens_of_a_large_vocabulary():
    # In the first three more tokens than fit a window are about as likely as those at the crossing.
    logits, _, _, labels = random_case(1, n=5, vocab=30_000, spread=1.0)
    logits *= torch.tensor([0.3, 0.5, 1.0, 3.0, 12.0]).unsqueeze(-1)
    temperature = torch.tensor([1.9, 0.8, 1.0, 1.0, 0.4])
    top_p = torch.tensor([0.3, 0.999, 0.9, 1.0, 0.95])
    labels[2] = logits[2].argsort(descending=True)[20_000]
    close((logits, temperature, top_p, labels))


def test_the_tail_behind_the_window_counts_where_thousands_are_nearly_equal(monkeypatch):
    # The labels come before the crossing, so that the derivative by P is in proportion to what lies beyond it.
    monkeypatch.setattr(exact_triton, "WARPS", 512 if INTERPRETED else 4)
    logits = torch.randn(2, 150_000, generator=torch.Generator().manual_seed(0)).mul_(torch.tensor([[0.3], [0.5]]))
    labels = logits.argsort(descending=True)[[0, 1], [1000, 500]]
    close((logits, torch.ones(2), torch.tensor([0.6, 0.2]), labels))


def test_equal_tokens_keep_the_order_of_their_ids():
    logits = torch.randn(4, 9000, generator=torch.Generator().manual_seed(0)).mul_(2).round_()
    logits[:2] = 0.5
    labels = torch.tensor([5000, 8999, 17, 4000])
    # The first two cross P within 9,000 equal tokens; on the border of two of them rounding would decide.
    top_p = torch.tensor([0.60005, 0.40003, 0.3, 0.9])
    close((logits, torch.full((4,), 1.1), top_p, labels), atol=1e-9)


@pytest.mark.parametrize("temperature", [1e-4, 5e-3])
def test_temperatures_below_the_minimum(temperature):
    logits, _, top_p, labels = random_case(7, n=4)  # the last one is ignored
    close((logits, torch.full((4,), temperature), top_p, labels), rtol=1e-4)


def test_scoring_gives_the_official_values_and_gradients():
    heads, hidden, logits, labels, expected = golden("tiny_plain")
    heads, hidden, logits, labels = (value.to(DEVICE) for value in (heads, hidden, logits, labels))
    scored = exact.predict_and_score(heads, hidden, logits, labels, backend=exact_triton)
    temperature, top_p, first, second, easy = scored
    kept = labels != -100
    for name, value in {"temperature_loss": first, "top_p_loss": second}.items():
        mean = losses.masked_mean(value, kept)
        torch.testing.assert_close(mean.cpu(), expected[name].squeeze(), rtol=1e-5, atol=0, msg=name)
    losses.masked_mean(first + second, kept).backward()
    for name, parameter in heads.named_parameters():
        reference = expected[f"grad.{name}"]
        assert torch.norm(parameter.grad.cpu() - reference) <= 1e-4 * torch.norm(reference), name
    assert torch.equal(easy, logits.argmax(-1) == labels.clamp(min=0))
    torch.testing.assert_close((temperature, top_p), heads(hidden, logits))  # the second through the statistics
