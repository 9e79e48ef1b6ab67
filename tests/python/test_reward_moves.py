"""At the end of a run, heads are moved as a whole where held-out problems say so."""

import json
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from autodeco import Heads  # noqa: E402
from autodeco.rewards import judging  # noqa: E402
from autodeco.rewards.arguments import RewardArguments  # noqa: E402
from autodeco.rewards.loop import train_on_rewards  # noqa: E402
from autodeco.rewards.measuring import MOVES, moves  # noqa: E402
from builders import reward_world as world  # noqa: E402

STILL = RewardArguments(
    checker="python:builders.reward_score:score",
    rounds=1,
    batch_problems=4,
    samples=4,
    validation_problems=80,
    validation_samples=2,
    screening_problems=8,
    learning_rate=1e-9,  # heads stay where they begin
    first_temperature=0.8,
    first_top_p=0.3,
)


def arguments_of_sigmoids(heads, hidden, logits):
    temperature, top_p = heads(hidden, logits)
    return torch.logit(temperature / 2), torch.logit(top_p)


def test_moved_heads_add_a_number_to_the_arguments_of_their_sigmoids():
    torch.manual_seed(1)
    heads, hidden, logits = Heads(8, prob_stats=False), torch.randn(5, 8), torch.randn(5, 20)
    with torch.no_grad():
        for head in (heads.temp_head, heads.top_p_head):
            head.mlp[2].weight.normal_(0, 0.3)
            # top-p reads the temperature: only its own last layer is looked at here
            head.mlp[0].weight[:, 8:] = 0
    before, after = (arguments_of_sigmoids(each, hidden, logits) for each in (heads, heads.moved(-0.4, 1.5)))
    torch.testing.assert_close(after[0], before[0] - 0.4, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after[1], before[1] + 1.5, rtol=1e-4, atol=1e-5)


def test_only_heads_that_are_trained_are_moved():
    assert moves(True, True) == list(MOVES)
    assert moves(True, False) == [(0.0, 0.0), (-0.4, 0.0)]
    assert moves(False, True) == [(0.0, 0.0), (0.0, 1.5)]
    one = Heads(8, top_p=False)
    assert one.moved(-0.4, 1.5).temp_head.mlp[2].bias.item() == pytest.approx(one.temp_head.mlp[2].bias.item() - 0.4)


def test_moves_are_compared_by_other_answers_than_those_that_chose_the_heads(tmp_path, monkeypatch):
    problems, drawn = tmp_path / "problems.jsonl", []
    problems.write_text("".join(json.dumps({"prompt": str(i), "number": i}) + "\n" for i in range(40)))
    answers = judging.held_out_answers

    def noted(problems, arguments, predictor, n, number):
        drawn.append((number, predictor.top_p_head.mlp[2].bias.item() if isinstance(predictor, Heads) else None))
        return answers(problems, arguments, predictor, n, number)

    monkeypatch.setattr(judging, "held_out_answers", noted)
    arguments = replace(STILL, rounds=4, evaluate_every=2, validation_problems=10)
    train_on_rewards(world.WorldPolicy(), problems, tmp_path / "heads", arguments, progress=False)
    of_heads = [(number, bias) for number, bias in drawn if bias is not None]
    first = {number for number, _ in of_heads if number < judging.AGAIN}
    again = {number for number, _ in of_heads if judging.AGAIN <= number < 100}
    assert len(first) >= 2
    assert len(again) >= 2
    biases = [bias for number, bias in of_heads if number == min(again)]
    assert len(biases) == len(MOVES)
    assert len({round(bias, 3) for bias in biases}) == 2  # as they are, and moved


def test_a_run_keeps_its_heads_moved_by_what_answers_held_out_problems_best(tmp_path):
    problems, folder = tmp_path / "problems.jsonl", tmp_path / "heads"
    problems.write_text("".join(json.dumps({"prompt": str(i), "number": i}) + "\n" for i in range(200)))
    train_on_rewards(world.WorldPolicy(), problems, folder, STILL, progress=False)
    first = Heads(world.HIDDEN, prob_stats=False)
    with torch.no_grad():
        for head, share in ((first.temp_head, 0.4), (first.top_p_head, 0.3)):
            head.mlp[2].bias.fill_(torch.logit(torch.tensor(share)).item())
    values = {by: world.value(first.moved(*by), range(1000, 1100)) for by in MOVES}
    best = max(values, key=values.get)
    assert values[best] > 1.02 * max(value for by, value in values.items() if by != best)
    kept = Heads.from_pretrained(folder)
    for head, other, by in zip(
        (kept.temp_head, kept.top_p_head), (first.temp_head, first.top_p_head), best, strict=True
    ):
        assert head.mlp[2].bias.item() == pytest.approx(other.mlp[2].bias.item() + by, abs=1e-4)
    assert json.loads((folder / "training.json").read_text())["moved"] == {"temperature": best[0], "top_p": best[1]}
