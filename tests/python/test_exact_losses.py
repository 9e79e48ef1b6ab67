"""The exact losses equal the plain ones, values and gradients, and keep nothing of the vocabulary's size."""

import threading
from functools import partial

import pytest

torch = pytest.importorskip("torch")
from autodeco import losses  # noqa: E402
from autodeco.losses import exact_torch  # noqa: E402
from autodeco.losses.exact import predict_and_score, token_losses  # noqa: E402
from builders.golden import CASES, golden  # noqa: E402
from builders.loss_cases import gradients, plain, random_case  # noqa: E402

# float32 on a CPU and float64 are two implementations of the same formulas.
DTYPES = pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])


@pytest.mark.parametrize("spread", [0.3, 4.0, 20.0])
@pytest.mark.parametrize("seed", range(3))
def test_exact_equals_plain_in_float64(seed, spread):
    case = random_case(seed, spread=spread, dtype=torch.float64)
    expected = gradients(plain, *case)
    for name, value in gradients(token_losses, *case).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("seed", range(3))
def test_exact_in_float32_stays_within_1e5_of_plain_in_float64(seed):
    # Plain in float32 is itself up to 1e-4 off in the derivative by T, where sums over the vocabulary cancel.
    case = random_case(seed)
    wide = tuple(value.double() if value.is_floating_point() else value for value in case)
    expected = gradients(plain, *wide)
    for name, value in gradients(token_losses, *case).items():
        assert torch.norm(value - expected[name]) <= 1e-5 * torch.norm(expected[name]), name


@pytest.mark.parametrize("spread", [0.5, 3.0, 6.0])
def test_heads_and_tails_without_a_whole_sort_stay_within_1e5_of_plain(spread):
    logits, temperature, top_p, labels = random_case(0, vocab=30_000, spread=spread)
    top_p[:8] = torch.tensor([1.0, 0.9999, 0.999, 0.99, 0.5, 1e-3, 1.0, 0.9999])  # cuts behind the head, too
    labels[8:16] = logits[8:16].argsort(-1)[torch.arange(8), torch.arange(8) * 4000]  # labels behind the head
    case = (logits, temperature, top_p, labels)
    expected = gradients(plain, *(value.double() if value.is_floating_point() else value for value in case))
    for name, value in gradients(partial(token_losses, backend=exact_torch), *case).items():
        assert torch.norm(value - expected[name]) <= 1e-5 * torch.norm(expected[name]), name
    distributions = exact_torch.prepare(logits, temperature, labels.clamp(min=0))
    sizes = [top.p.shape[-1] for top in distributions.prefixes() if len(top.rows)]
    assert sizes == [1024, 8192, 30_000, 30_000][: {0.5: 4, 3.0: 3, 6.0: 2}[spread]]


@pytest.mark.parametrize("case", CASES)
def test_the_dynamic_weight_is_the_labels_probability_and_can_be_left_out(case):
    heads, hidden, logits, labels, _ = golden(case)
    temperature, top_p = heads(hidden, logits)
    weight = losses.label_weight(logits, labels)
    bare = token_losses(logits, temperature, top_p, labels, weighted=False)
    for value, other in zip(token_losses(logits, temperature, top_p, labels), bare, strict=True):
        torch.testing.assert_close(value, weight * other, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("case", CASES)
def test_exact_losses_reproduce_the_official_values_and_gradients(case):
    heads, hidden, logits, labels, expected = golden(case)
    first, second = token_losses(logits, *heads(hidden, logits), labels)
    kept = labels != -100
    hard = kept & (logits.argmax(-1) != labels)
    for name, value in {
        "temperature_loss": losses.masked_mean(first, kept),
        "temperature_loss_all_easy_dropped": losses.masked_mean(first, hard),
        "top_p_loss": losses.masked_mean(second, kept),
    }.items():
        torch.testing.assert_close(value, expected[name].squeeze(), rtol=1e-5, atol=0, msg=name)
    losses.masked_mean(first + second, kept).backward()
    for name, parameter in heads.named_parameters():
        reference = expected[f"grad.{name}"]
        assert torch.norm(parameter.grad - reference) <= 1e-4 * torch.norm(reference), name


@DTYPES
def test_equal_logits_keep_the_order_of_their_ids(dtype, rtol):
    logits = torch.tensor([[1.0, 2.0, 1.0, 1.0, 2.0, 0.0]]).double().expand(6, 6)
    case = (logits, torch.full((6,), 0.9).double(), torch.full((6,), 0.4).double(), torch.arange(6))
    expected = gradients(plain, *case)
    for name, value in gradients(token_losses, *(each.to(dtype) for each in case[:3]), case[3]).items():
        torch.testing.assert_close(value.double(), expected[name], rtol=rtol, atol=rtol, msg=name)
    assert len(set(expected["second"].tolist())) == 6


@DTYPES
@pytest.mark.parametrize("temperature", [1e-4, 5e-3, 2e-2])
def test_temperatures_around_the_minimum_match_the_plain_version(temperature, dtype, rtol):
    logits, _, top_p, labels = random_case(7)
    case = (logits.double(), torch.full((24,), temperature).double(), top_p.double(), labels)
    expected = gradients(plain, *case)
    for name, value in gradients(token_losses, *(each.to(dtype) for each in case[:3]), labels).items():
        assert torch.norm(value - expected[name]) <= 10 * rtol * torch.norm(expected[name]) + 1e-12, name


def test_a_label_with_no_probability_costs_a_finite_loss_and_no_gradient():
    logits = torch.tensor([[0.0, -3000.0, 1.0]])
    values = gradients(token_losses, logits, torch.tensor([0.1]), torch.tensor([0.5]), torch.tensor([1]))
    assert all(torch.isfinite(value).all() for value in values.values())
    assert values["second"].item() == 0.0


def test_ignored_tokens_have_neither_loss_nor_gradient():
    values = gradients(token_losses, *random_case(0))
    assert all(value[3].item() == 0.0 for value in values.values())


def test_the_graph_keeps_nothing_as_wide_as_the_vocabulary():
    logits, temperature, top_p, labels = random_case(0)
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        token_losses(logits, temperature.requires_grad_(), top_p.requires_grad_(), labels)
    assert sizes
    assert max(sizes) <= len(labels)


@pytest.mark.parametrize("case", CASES)
def test_scoring_with_the_heads_gives_what_heads_and_losses_give_apart(case):
    heads, hidden, logits, labels, _ = golden(case)
    temperature, top_p = heads(hidden, logits)
    easy = logits.argmax(-1) == labels.clamp(min=0)
    expected = (temperature, top_p, *token_losses(logits, temperature, top_p, labels), easy)
    for value, other in zip(predict_and_score(heads, hidden, logits, labels), expected, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-5, atol=1e-8)


def test_a_temperature_that_rounds_to_zero_gives_finite_losses():
    logits, _, top_p, labels = random_case(0)
    values = gradients(token_losses, logits, torch.zeros(24), top_p, labels)
    assert torch.isfinite(values["first"]).all()
    assert torch.isfinite(values["second"]).all()


@pytest.mark.parametrize("where", ["logits", "temperature", "top_p"])
def test_what_is_no_number_gives_a_loss_that_is_none(where):
    """And no error: training says which sample it was."""
    values = {"logits": torch.randn(2, 50), "temperature": torch.ones(2), "top_p": torch.full((2,), 0.9)}
    values[where][1] = torch.nan
    first, second, *_ = token_losses(*values.values(), torch.tensor([3, 4]))
    assert torch.isfinite(first[0])
    assert torch.isfinite(second[0])
    assert torch.isnan(second[1])


def test_the_threads_that_score_on_a_cpu_are_started_once(monkeypatch):
    def running():
        return {thread.ident for thread in threading.enumerate() if "autodeco-losses" in thread.name}

    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    case, before = random_case(0, n=8), running()
    token_losses(*case)
    first = running() - before
    assert 1 <= len(first) <= 3
    for _ in range(3):
        token_losses(*case)
    later = running() - before
    assert first <= later
    assert len(later) <= 3
