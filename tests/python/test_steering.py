"""Heads learn to follow commands from answers of the model's own, and it is measured whether they do."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from safetensors.numpy import load_file  # noqa: E402

from autodeco import Heads, cli  # noqa: E402
from autodeco.data.control import DIRECTIONS  # noqa: E402
from autodeco.data.control_prompts import control_prompts  # noqa: E402
from autodeco.data.statistics import wilson  # noqa: E402
from autodeco.errors import InputError  # noqa: E402
from autodeco.rewards.hugging_face import HuggingFacePolicy  # noqa: E402
from autodeco.steering import learning  # noqa: E402
from autodeco.steering.answers import Drawn  # noqa: E402
from autodeco.steering.arguments import MeasuringArguments, SteeringArguments  # noqa: E402
from autodeco.steering.asking import (  # noqa: E402
    PLAIN,
    QUOTED,
    asked_in_measuring,
    asked_in_training,
    graded_in_measuring,
    quoted_in_measuring,
)
from autodeco.steering.learning import learn  # noqa: E402
from autodeco.steering.measuring import Measuring  # noqa: E402
from autodeco.steering.parts import HELD_OUT, TRAINING, parts  # noqa: E402
from autodeco.steering.plan import Pace, Plan, in_words, measure_pace, plan_of, seconds  # noqa: E402
from autodeco.steering.probe import probe  # noqa: E402
from autodeco.steering.steering import steer  # noqa: E402
from autodeco.steering.table import tables  # noqa: E402
from builders.hf_folders import TINY, write_tiny_smollm2  # noqa: E402

ARGUMENTS = SteeringArguments(rounds=1, prompts=4, degrees=1, wordings=1, neutral=1, quoted=1, max_tokens=2, epochs=1)
MEASURED = MeasuringArguments(held_out_prompts=3, answers=2, sums=2, sum_answers=1)


def texts(asked):
    return " ".join(message["content"] for message in asked.prompt)


def test_training_asks_with_training_wordings_alone_and_every_prompt_in_as_many_ways():
    rows = asked_in_training(control_prompts(False, 40), wordings=2, degrees=3, seed=0, round_=0)
    assert {len(row) for row in rows} == {2 + 2 * 2 + 3 + 1}
    new = [c.text for commands in HELD_OUT.commands().values() for c in commands if "{n}" not in c.text]
    for row in rows:
        assert [each.level for each in row[:6]] == [0, 0, -1, -1, 1, 1]
        assert len({each.level for each in row[6:9]}) == 3
        assert row[0].variant == PLAIN
        assert (row[-1].variant, row[-1].level) == (QUOTED, 0)
        for each in row:
            assert not any(text in texts(each) for text in new)
    assert rows != asked_in_training(control_prompts(False, 40), 2, 3, 0, round_=1)


def test_training_asks_as_many_neutral_sentences_and_quotations_as_are_wanted():
    for row in asked_in_training(control_prompts(False, 5), 1, 0, 0, 0, neutral=3, quoted=4):
        assert [each.variant for each in row] == [PLAIN, *["neutral"] * 3, "low", "high", *[QUOTED] * 4]
        assert {each.level for each in row if each.variant not in DIRECTIONS} == {0}
        assert len({texts(each) for each in row if each.variant == QUOTED}) > 1


def test_validation_has_a_fifth_of_training_and_training_does_without_it():
    cut, validation = parts(True)
    assert parts(False) == (TRAINING, HELD_OUT)
    for all_, one, other in zip(
        (TRAINING.commands().values()), cut.commands().values(), validation.commands().values(), strict=True
    ):
        assert 0.1 < len(other) / len(all_) <= 0.2
        assert {*one, *other} == {*all_}
        assert not {*one} & {*other}
    prompts = [part.prompts(2000, 0) for part in (TRAINING, cut, validation)]
    assert [len(each) for each in prompts] == [1120, 896, 224]
    assert {*prompts[1], *prompts[2]} == {*prompts[0]}
    quoted = [{part.quoting("Be sure.", np.random.default_rng(i))[0] for i in range(200)} for part in (cut, validation)]
    assert quoted[0]
    assert quoted[1]
    assert not quoted[0] & quoted[1]


def test_each_round_asks_other_prompts_until_all_were_asked():
    rounds = [TRAINING.prompts_of_round(400, 0, number) for number in range(4)]
    assert [len(each) for each in rounds] == [400] * 4
    assert len({*rounds[0], *rounds[1], *rounds[2]}) == 1120
    assert rounds[0] == TRAINING.prompts(400, 0)
    assert rounds[2][320:] == rounds[0][:80]


def test_measuring_asks_with_held_out_wordings_alone():
    prompts = control_prompts(True, 30)
    new = {d: [c.text for c in commands] for d, commands in HELD_OUT.commands().items()}
    for row in asked_in_measuring(prompts, 0):
        for direction in DIRECTIONS:
            assert any(text in texts(row[direction]) for text in new[direction])
    for row in graded_in_measuring(prompts, 0):
        assert [each.level for each in row] == pytest.approx(np.linspace(-1, 1, 11).tolist())
        assert any(all(text.format(n=i) in texts(each) for i, each in enumerate(row)) for text in new["scale"])
    for quoted, twin in quoted_in_measuring(10, "high", 0):
        assert any(text in texts(quoted) for text in new["high"])
        assert not any(text in texts(twin) for text in new["high"])


def test_a_batch_has_all_tokens_of_its_prompts_and_no_others():
    # 2 prompts of 2 variants; answers of 1, 2, 1 and 3 tokens
    answers = Drawn(torch.zeros(7, 4), torch.tensor([0, 1, 1, 2, 3, 3, 3]), torch.zeros(2, 2))
    indices, answer = answers.batch(torch.tensor([1]))
    assert (indices.tolist(), answer.tolist()) == ([3, 4, 5, 6], [0, 1, 1, 1])
    indices, answer = answers.batch(torch.tensor([1, 0]))
    assert (indices.tolist(), answer.tolist()) == ([0, 1, 2, 3, 4, 5, 6], [2, 3, 3, 0, 1, 1, 1])


class ToldModel:
    """A policy whose hidden states know the level that was asked for, and little else."""

    device, vocab, width = "cpu", 16, 8

    def __init__(self):
        from types import SimpleNamespace

        self.identity = SimpleNamespace(name="told", hidden_size=self.width, vocab_size=self.vocab)
        self._matrix = torch.randn(self.vocab, self.width, generator=torch.Generator().manual_seed(1)) / 4
        self._low = [c.text.split("{n}")[0] for c in self._commands("low")]
        self._high = [c.text.split("{n}")[0] for c in self._commands("high")]

    @staticmethod
    def _commands(direction):
        return TRAINING.commands()[direction] + HELD_OUT.commands()[direction]

    def prompt_ids(self, prompt, tools=None):
        from autodeco.steering.asking import chat

        text = " ".join(message["content"] for message in prompt)
        ends = [message["content"] for message in prompt]
        told = [any(end.endswith(t) for end in ends for t in texts) for texts in (self._low, self._high)]
        assert chat(text)
        return [1 + told[1] - told[0]]

    def sample(self, prompts, n, heads, seed, keep_states=True, ended=None, numbers=None, max_tokens=None):
        from autodeco.rewards.policy import Sampled

        random = np.random.default_rng(seed % 2**32)
        self._kept, groups = [], []
        for prompt in prompts:
            groups.append([])
            for _ in range(n):
                states = random.standard_normal((max_tokens, self.width)).astype(np.float32)
                states[:, 0] = (prompt[0] - 1) + 0.1 * states[:, 0]
                rows = np.arange(len(self._kept), len(self._kept) + max_tokens)
                self._kept += list(states)
                with torch.no_grad():
                    t, p = heads(torch.from_numpy(states), self.logits(torch.from_numpy(states)))
                tokens = np.zeros(max_tokens, np.int32)
                groups[-1].append(Sampled(tokens, "a b c", True, t.numpy(), p.numpy(), t.numpy(), rows))
        return groups

    def states(self, rows):
        return torch.from_numpy(np.stack([self._kept[row] for row in rows]))

    def logits(self, hidden):
        return hidden @ self._matrix.T

    def token_texts(self, tokens):
        return ["a"] * len(tokens)


def cold_heads(width):
    torch.manual_seed(0)
    heads = Heads(width)
    with torch.no_grad():
        heads.temp_head.mlp[2].bias.fill_(-2.2)  # T 0.2
        heads.top_p_head.mlp[2].bias.fill_(2.0)  # P 0.88
    return heads


@pytest.fixture(scope="module")
def told():
    policy, base = ToldModel(), cold_heads(ToldModel.width)
    arguments = replace(ARGUMENTS, rounds=2, prompts=60, wordings=2, degrees=0, max_tokens=4, epochs=20)
    arguments = replace(arguments, learning_rate=0.01)
    return policy, base, arguments, learn(policy, base, arguments)


def test_what_states_know_of_commands_is_followed_and_texts_without_one_are_left_alone(told):
    policy, base, arguments, heads = told
    measured = replace(MEASURED, held_out_prompts=40)
    figures = Measuring(policy, heads, base, arguments, measured)
    followed = figures.followed()
    assert [row["share"] for row in followed["shares"]] == [1.0] * 4
    means = followed["means"]["temperature"]
    assert means["low"] < 0.12 < 0.15 < means[PLAIN] < 0.3 < 0.6 < means["high"]
    assert set(followed["first_tokens"]) == {"1", "4", "16"}
    assert set(followed["first_tokens"]["4"].values()) == {1.0}  # all tokens of these answers
    assert min(followed["first_tokens"]["1"].values()) > 0.9
    noise = followed["noise"]["temperature"]
    assert noise["step"]["high"] == pytest.approx(means["high"] - means[PLAIN], abs=0.02)
    assert noise["share_of_averages"] == {"low": 1.0, "high": 1.0}
    assert 0 < noise["between_answers"] < noise["step"]["high"] / 10
    held = figures.held()
    for name in ("plain temperature", "plain top_p"):
        assert abs(held[name]["shift"]) <= 0.02
    assert followed["entropy"]["high over plain"]["low_end"] > 0
    assert followed["entropy"]["low over plain"]["high_end"] < 0


def test_a_round_may_go_on_from_the_one_before(told):
    policy, base, arguments, _ = told
    short = replace(arguments, prompts=8, epochs=1, learning_rate=0.0, calibrate=False)
    weights: dict = {False: [], True: []}
    for continued, mine in weights.items():
        given = replace(short, continued=continued)
        learn(policy, base, given, lambda heads, row, to=mine: to.append(heads.temp_head.mlp[0].weight))
    first, going_on = weights[True]
    assert torch.equal(first, going_on)
    assert not torch.equal(weights[False][1], going_on)


def test_a_few_units_may_learn_while_the_others_stay(told):
    policy, base, arguments, _ = told
    given = replace(arguments, prompts=20, epochs=2, units=16, presence=True, weight_decay=1.0, continued=True)
    heads = learn(policy, base, given)
    for mlp, first in ((heads.temp_head.mlp, base.temp_head.mlp), (heads.top_p_head.mlp, base.top_p_head.mlp)):
        same = (mlp[0].weight == first[0].weight).all(1)
        assert int(same.sum()) == 256 - 16
        assert torch.equal(mlp[2].weight[:, same], first[2].weight[:, same])
        assert torch.equal(mlp[0].bias[same], first[0].bias[same])


def test_the_last_bias_keeps_the_mean_of_texts_that_ask_for_nothing():
    torch.manual_seed(0)
    mlp = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
    # 2 prompts of 3 variants, of which the last one asks for something; answers of 1 and of 5 tokens
    counts = torch.tensor([1, 5, 3, 5, 1, 3])
    answers = Drawn(torch.randn(18, 8), torch.arange(6).repeat_interleave(counts), torch.tensor([[0.0, 0, 1]] * 2))
    first = torch.randn(18) - 3
    learning.calibrate(mlp, answers.hidden, first, answers, 2)
    after = torch.sigmoid(mlp(answers.hidden).squeeze(-1)).detach()
    means = [
        torch.stack([each[answers.answer == a].mean() for a in (0, 1, 3, 4)]).mean()
        for each in (after, first.sigmoid())
    ]
    assert means[0] == pytest.approx(float(means[1]), abs=1e-5)


def test_what_states_tell_of_commands_is_said_for_tokens_and_for_answers(told):
    policy, base, arguments, _ = told
    found = probe(policy, base, replace(arguments, prompts=40), replace(MEASURED, held_out_prompts=30))
    assert set(found) == {"straight line", "network", "network, over answers", "the same, in training"}
    seen = found.pop("the same, in training")
    assert min(seen["answer"].values()) > 0.7  # commands in front of a prompt are not among what this model is told
    for guess in found:
        assert found[guess]["answer"] == {"low": 1.0, "high": 1.0}
        assert found[guess]["token"]["low"] > 0.99
        assert found[guess]["by place"]["2 to 4"]["high"] > 0.99
        assert found[guess]["by place"]["17 to 64"]["high"] == 0.5  # there are none
        assert found[guess]["step"]["low"] > 5 * found[guess]["between two answers"]
    told_level, policy.prompt_ids = policy.prompt_ids, lambda prompt, tools=None: [1]
    try:
        nothing = probe(policy, base, replace(arguments, prompts=40), replace(MEASURED, held_out_prompts=30))
    finally:
        policy.prompt_ids = told_level
    assert 0.3 < nothing["straight line"]["token"]["high"] < 0.7


def test_learning_leaves_the_first_heads_as_they_were(told):
    _, base, _, heads = told
    fresh = cold_heads(ToldModel.width)
    for name, tensor in base.state_dict().items():
        assert torch.equal(tensor, fresh.state_dict()[name])
    assert not torch.equal(heads.temp_head.mlp[2].weight, base.temp_head.mlp[2].weight)


def test_heads_of_another_model_and_heads_without_one_of_the_two_are_refused():
    for heads, message in ((Heads(9), "heads of this model"), (Heads(8, top_p=False), "one of the two is missing")):
        with pytest.raises(InputError, match=message):
            learn(ToldModel(), heads, ARGUMENTS)


def test_a_transformer_goes_all_the_way_and_its_figures_are_json(smollm2, tmp_path):
    write_tiny_smollm2(smollm2, tmp_path / "tiny")
    policy = HuggingFacePolicy(tmp_path / "tiny", 2, 32, "cpu", "float32")
    rows = []
    heads, _, figures = steer(policy, cold_heads(TINY["hidden_size"]), ARGUMENTS, MEASURED, rows.append)
    assert isinstance(heads, Heads)
    json.dumps(figures)
    measured = figures["measured"]
    assert set(measured) == {"settings", "followed", "scale", "quoted", "held", "sums"}
    assert len(measured["scale"]["temperature"]["means"]) == 11
    assert {"low", "plain", "first heads, low"} < set(measured["sums"])
    assert [next(iter(row)) for row in rows] == ["round", "followed", "scale", "quoted", "held", "sums"]
    example = measured["followed"]["examples"][0]
    assert all(len(a["tokens"]) == len(a["temperature"]) for a in example["answers"].values())
    shown = tables(figures)
    assert f"| tiny, {MEASURED.held_out_prompts} prompts | share | 95% interval | paper |" in shown
    share = measured["followed"]["shares"][0]["share"]
    assert any(line.startswith(f"| low: temperature falls | {share:.1%} | ") for line in shown)
    assert sum(line.startswith("| ---") for line in shown) == 7
    probed = {"token": {"low": 0.5, "high": 0.625}, "answer": {"low": 0.75, "high": 1.0}}
    probed["by place"] = {"1 to 1": {"low": 0.25, "high": 0.875}, "2 to 4": {"low": 0.5, "high": 0.5}}
    measured["probe"] = {"straight line": probed}
    shown = tables(figures)
    assert "| straight line | 50.0% | 62.5% | 75.0% | 100.0% |" in shown
    assert shown[-4:] == [
        "| a token's place in the answer | 1 to 1 | 2 to 4 |",
        "| --- | --- | --- |",
        "| straight line: low | 25.0% | 50.0% |",
        "| straight line: high | 87.5% | 50.0% |",
    ]


FLAGS = ["--rounds", "2", "--prompts", "4", "--degrees", "1", "--wordings", "1", "--max-tokens", "2", "--epochs", "1"]
FLAGS += [
    "--neutral",
    "1",
    "--quoted",
    "1",
    "--held-out-prompts",
    "3",
    "--answers",
    "2",
    "--sums",
    "2",
    "--sum-answers",
    "1",
]
FLAGS += ["--answers-from", "hugging-face", "--dtype", "float32"]


def test_the_command_writes_heads_and_a_report_and_goes_on_after_an_interrupt(smollm2, tmp_path, capsys, monkeypatch):
    write_tiny_smollm2(smollm2, tmp_path / "tiny")
    cold_heads(TINY["hidden_size"]).save_pretrained(tmp_path / "cold")
    command = ["control", str(tmp_path / "tiny"), "--init", str(tmp_path / "cold"), *FLAGS, "-o"]
    assert cli.main([*command, str(tmp_path / "whole")]) == 0
    html = (tmp_path / "whole" / "report.html").read_text()
    figures = json.loads((tmp_path / "whole" / "control.json").read_text())
    assert html.count("<svg") == 1 + len(figures["measured"]["followed"]["examples"])
    assert "asked to be certain" in html
    said = capsys.readouterr()
    assert "low: temperature falls" in said.out
    assert "2 rounds draw 48 answers" in said.out + said.err

    draw, drawn = learning.draw, []

    def interrupted(policy, heads, prompts, arguments, number):
        drawn.append(number)
        if drawn == [0, 1]:
            raise KeyboardInterrupt
        return draw(policy, heads, prompts, arguments, number)

    monkeypatch.setattr(learning, "draw", interrupted)
    assert cli.main([*command, str(tmp_path / "parts")]) == 130
    assert not (tmp_path / "parts" / "control.json").exists()
    assert cli.main([*command, str(tmp_path / "parts"), "--seed", "1"]) == 2
    assert "is of a run with another seed; use the same again" in capsys.readouterr().err
    shutil.copytree(tmp_path / "cold", tmp_path / "kept")
    cold_heads(TINY["hidden_size"]).moved(0.5, 0.0).save_pretrained(tmp_path / "cold")
    assert cli.main([*command, str(tmp_path / "parts")]) == 2
    assert "is of a run with another first heads; use the same again" in capsys.readouterr().err
    command[3] = str(tmp_path / "kept")
    assert cli.main([*command, str(tmp_path / "parts")]) == 0
    assert drawn == [0, 1, 1]
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(np.array_equal(parts[name], array) for name, array in whole.items())
    assert sorted(path.name for path in (tmp_path / "parts").iterdir() if "lock" not in path.name) == [
        "config.json",
        "control.json",
        "model.safetensors",
        "report.html",
    ]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("model.safetensors", "holds heads already"),
        ("training.json", "holds heads already"),
        ("config.json", "holds config.json of a model or of other heads"),
        ("resume.safetensors", "holds an unfinished run"),
    ],
)
def test_the_command_writes_over_no_model_and_no_other_heads(tmp_path, capsys, name, told):
    cold_heads(8).save_pretrained(tmp_path / "cold")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes(b"{}")
    command = ["control", str(tmp_path / "no model"), "--init", str(tmp_path / "cold"), "-o"]
    assert cli.main([*command, str(tmp_path / "out")]) == 2
    assert told in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
    (tmp_path / "cold" / "unfinished").mkdir()  # of a run that did not end its first round
    assert cli.main([*command, str(tmp_path / "cold")]) == 2
    assert "holds heads already" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_read(tmp_path, capsys, monkeypatch, device):
    for there in (torch.cuda, torch.backends.mps):
        monkeypatch.setattr(there, "is_available", lambda: False)
    command = ["control", str(tmp_path / "no model"), "--init", str(tmp_path / "none"), "-o", str(tmp_path / "out")]
    assert cli.main([*command, "--device", device]) == 2
    error = capsys.readouterr().err
    assert f"device {device}: torch finds no such GPU here; use --device cpu" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_plan_counts_what_is_drawn():
    policy, asked = ToldModel(), []
    sample = policy.sample

    def counted(prompts, n, *rest, **settings):
        asked.append((len(prompts), len(prompts) * n))
        return sample(prompts, n, *rest, **settings)

    policy.sample = counted
    steering = replace(ARGUMENTS, rounds=2, neutral=2, quoted=3)
    measured = replace(MEASURED, sum_answers=3)
    steer(policy, cold_heads(policy.width), steering, measured)
    plan = plan_of(steering, measured)
    assert plan.left()[:2] == tuple(map(sum, zip(*asked, strict=True)))
    assert plan.left(done=1)[:2] == tuple(map(sum, zip(*asked[1:], strict=True)))
    assert [plan.left(done)[2] for done in (0, 1, 2)] == [2 * 4 * 9, 4 * 9, 0]


def test_how_long_it_takes_is_said_with_what_it_comes_of():
    plan = Plan(rounds=3, prompts_of_a_round=100, measured_prompts=50, measured_answers=80)
    pace = Pace(prompt=0.1, token=0.01, learning=0.002)
    assert seconds(plan, pace, 20) == pytest.approx(350 * 0.1 + 20 * (380 * 0.01 + 300 * 0.002))
    assert in_words(plan, pace, 20, done=1) == (
        "2 rounds draw 200 answers, and measuring 80, of up to 20 tokens behind 250 prompts: at most 89 s at the "
        "100 tokens/s and 10.0 prompts/s measured here"
    )
    found = measure_pace(ToldModel(), cold_heads(ToldModel.width), ARGUMENTS)
    assert min(found.prompt, found.token, found.learning) > 0
    with pytest.raises(InputError, match="heads of this model"):
        measure_pace(ToldModel(), Heads(9), ARGUMENTS)


def test_the_tables_of_the_documentation_are_those_of_the_result():
    root = Path(__file__).parents[2]
    figures = json.loads((root / "benchmarks" / "results" / "control.json").read_text())
    assert "\n".join(tables(figures)) in (root / "docs" / "control.md").read_text()


def test_wilson_intervals_are_those_of_the_formula():
    # R's prop.test(98, 100, correct = FALSE)
    assert wilson(98, 100) == pytest.approx((0.9300, 0.9945), abs=1e-4)
    assert wilson(200, 200) == pytest.approx((0.98116, 1.0), abs=1e-5)
