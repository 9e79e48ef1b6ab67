"""The kernels' tokens and statistics are those of plain torch, in Triton's interpreter or on a GPU (conftest)."""

import os

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton", reason="triton, which has wheels for Linux on x86-64 only, is not installed")
from autodeco.hugging_face import drawing, drawing_triton  # noqa: E402

DEVICE = "cpu" if os.environ["TRITON_INTERPRET"] == "1" else "cuda"


def case(vocab: int, n: int = 16):
    """Rows between flat and peaked, some with ties or banned tokens; settings with every edge."""
    generator = torch.Generator().manual_seed(vocab)
    logits = torch.randn(n, vocab, generator=generator) * torch.rand(n, 1, generator=generator) * 6
    logits[:8] = logits[:8].round()
    logits[5, ::2] = -torch.inf
    temperature, top_p = torch.rand(n, generator=generator) * 2, torch.rand(n, generator=generator)
    temperature[:3] = torch.tensor([0.0, 9.9e-6, 1.1e-5])
    top_p[3:9] = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 1e-6])
    counters = torch.randint(0, 2**31 - 1, (n, 3), generator=generator, dtype=torch.int32)
    return logits, temperature, top_p, counters


@pytest.mark.parametrize("vocab", [3, 1024, 2500])
def test_the_same_tokens(vocab):
    logits, temperature, top_p, counters = case(vocab)
    for seed in (0, 2**63 + 12345678901):
        expected = drawing.draw(logits, logits.amax(-1), temperature, top_p, seed, counters)
        moved = [part.to(DEVICE) for part in (logits, logits.amax(-1), temperature, top_p)]
        tokens = drawing_triton.draw(*moved, seed, counters.to(DEVICE))
        assert torch.equal(tokens.cpu(), expected)


@pytest.mark.parametrize("vocab", [6, 2500])
def test_the_same_statistics(vocab):
    logits, temperature, _, _ = case(vocab)
    expected = drawing.statistics(logits, temperature)
    known = drawing_triton.statistics(logits.to(DEVICE), temperature.to(DEVICE))
    for name in ("features", "top_probability", "entropy", "largest"):
        torch.testing.assert_close(
            getattr(known, name).cpu(), getattr(expected, name), rtol=3e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_a_row_of_another_stride():
    logits, temperature, top_p, counters = case(1000)
    wide = torch.full((len(logits), 1010), torch.inf)
    wide[:, :1000] = logits
    view = wide.to(DEVICE)[:, :1000]
    settings = [part.to(DEVICE) for part in (logits.amax(-1), temperature, top_p)]
    tokens = drawing_triton.draw(view, *settings, 5, counters.to(DEVICE))
    assert torch.equal(tokens.cpu(), drawing.draw(logits, logits.amax(-1), temperature, top_p, 5, counters))
    known = drawing_triton.statistics(view, temperature.to(DEVICE))
    assert torch.equal(known.largest.cpu(), logits.amax(-1))


def test_logits_that_are_no_numbers_end_with_a_token():
    z = torch.full((2, 2000), torch.nan, device=DEVICE)
    z[1] = torch.inf
    ones = torch.ones(2, device=DEVICE)
    tokens = drawing_triton.draw(z, z.amax(-1), ones, ones, 0, torch.zeros(2, 3, dtype=torch.int32, device=DEVICE))
    assert ((tokens >= 0) & (tokens < 2000)).all()


def test_no_rows_are_no_tokens():
    empty = torch.empty(0, device=DEVICE)
    z = torch.empty(0, 50, device=DEVICE)
    counters = torch.empty(0, 3, dtype=torch.int32, device=DEVICE)
    assert drawing_triton.draw(z, empty, empty, empty, 0, counters).shape == (0,)
    assert drawing_triton.statistics(z, empty).features.shape == (0, 4)
