"""The losses of commands of many levels have the values that their formulas say."""

import pytest

torch = pytest.importorskip("torch")
from autodeco.losses.levels import (  # noqa: E402
    LEAST_STEP,
    distance_loss,
    hold_loss,
    mean_arguments,
    order_loss,
    temperature_steps,
    top_p_steps,
)


def argument(temperature):
    return torch.logit(torch.tensor(temperature, dtype=torch.float64) / 2)


def test_levels_are_0_at_the_first_heads_and_1_at_the_ends():
    first = torch.tensor([0.1, 0.6], dtype=torch.float64)
    steps = temperature_steps(first, factor=0.3, high=0.9)
    shown = [steps.level(argument(values)).tolist() for values in ([0.1, 0.6], [0.03, 0.18], [0.9, 0.9])]
    assert shown[0] == pytest.approx([0, 0], abs=1e-12)
    assert shown[1] == pytest.approx([-1, -1])
    assert shown[2][0] == pytest.approx(1)
    # from 0.6 to 0.9 is more than the least step, too
    assert shown[2][1] == pytest.approx(1)


def test_the_first_heads_show_level_0_however_cold_they_are():
    cold = torch.tensor([1e-5, 1e-4, 0.05])
    steps = temperature_steps(cold, factor=0.35, high=0.9)
    assert steps.level(torch.logit(cold / 2)).tolist() == pytest.approx([0.0] * 3, abs=1e-4)
    assert steps.level(torch.logit(cold / 2) - 1).tolist() == sorted(steps.level(torch.logit(cold / 2) - 1).tolist())
    assert max(steps.level(torch.logit(cold / 2) - 1).tolist()) < -0.9


def test_a_hot_temperature_rises_a_little_and_no_step_is_shorter_than_the_least():
    steps = temperature_steps(torch.tensor([1.0, 1.9]), factor=0.9, high=0.9)
    assert steps.level(torch.logit(torch.tensor([0.65, 0.5]))).tolist()[0] == pytest.approx(1, abs=1e-5)
    assert steps.down.tolist() == [LEAST_STEP] * 2 or min(steps.down.tolist()) >= LEAST_STEP
    high = top_p_steps(torch.tensor([0.999]), factor=0.9, high=0.98)
    assert high.up.tolist() == pytest.approx([LEAST_STEP])


def test_the_distance_weighs_tokens_without_a_command():
    shown, level = torch.tensor([0.2, -0.5, 1.0]), torch.tensor([0.0, -1.0, 1.0])
    assert distance_loss(shown, level, hold=3.0).item() == pytest.approx((3 * 0.04 + 0.25 + 0) / 5)


def test_pairs_of_levels_are_ranked_by_their_distance():
    levels = torch.tensor([[0.0, 0.0, -1.0, 1.0]])
    apart = torch.tensor([[0.0, 0.3, -1.0, 1.0]])
    # 0 over -1 by 1, 0.3 over -1 by 1.3, 1 over -1 by 2: enough; 1 over 0 by 1; 1 over 0.3 by 0.7: enough for 0.5
    assert order_loss(apart, levels, 0.5).item() == 0
    same = torch.zeros(1, 4)
    assert order_loss(same, levels, 0.5).item() == pytest.approx(1)
    # the five pairs with another margin: 0, 0, 0, 0, and one that is 0.3 short of 1
    assert order_loss(apart, levels, 1.0).item() == pytest.approx(0.3 / 5)


def test_the_mean_of_an_answer_is_that_of_its_values():
    u = torch.logit(torch.tensor([0.1, 0.3, 0.8, 0.2], dtype=torch.float64))
    means = mean_arguments(u, torch.tensor([0, 0, 2, 2]), 3)
    assert torch.sigmoid(means[[0, 2]]).tolist() == pytest.approx([0.2, 0.5])


def test_answers_without_a_command_alone_are_held():
    means, first = torch.tensor([0.5, 3.0, -1.0]), torch.tensor([0.0, 0.0, -3.0])
    assert hold_loss(means, first, torch.tensor([0.0, 1.0, 0.0])).item() == pytest.approx((0.25 + 4) / 2)


def test_readings_of_one_level_have_no_order():
    assert order_loss(torch.randn(3, 2), torch.zeros(3, 2), 0.5).item() == 0
