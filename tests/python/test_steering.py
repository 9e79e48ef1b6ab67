"""A control head learns from prompts what they ask for, and it is measured whether its heads follow."""

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
from autodeco.commands import control as control_module  # noqa: E402
from autodeco.data.control import DIRECTIONS  # noqa: E402
from autodeco.data.control_prompts import control_prompts  # noqa: E402
from autodeco.data.statistics import wilson  # noqa: E402
from autodeco.errors import InputError  # noqa: E402
from autodeco.export.control_ends import ControlEnds  # noqa: E402
from autodeco.rewards.hugging_face import HuggingFacePolicy  # noqa: E402
from autodeco.rewards.llama import LlamaPolicy  # noqa: E402
from autodeco.rewards.measuring import Static  # noqa: E402
from autodeco.steering import states as states_module  # noqa: E402
from autodeco.steering import steering as steering_module  # noqa: E402
from autodeco.steering.arguments import MeasuringArguments, SteeringArguments  # noqa: E402
from autodeco.steering.asking import (  # noqa: E402
    PLAIN,
    QUOTED,
    asked_in_measuring,
    asked_in_training,
    graded_in_measuring,
    quoted_in_measuring,
)
from autodeco.steering.learning import (  # noqa: E402
    dead_zone_of,
    distance_loss,
    learned,
    moments,
    order_loss,
    read,
    read_right,
    refuse_other_heads,
    weights,
    with_control,
)
from autodeco.steering.measuring import Measuring  # noqa: E402
from autodeco.steering.parts import CUT, HELD_OUT, TRAINING, VALIDATION, measured_part  # noqa: E402
from autodeco.steering.plan import Pace, Plan, in_words, measure_pace, plan_of, seconds  # noqa: E402
from autodeco.steering.states import NONE, ReadsPrompts, States, ends, kinds  # noqa: E402
from autodeco.steering.states import QUOTED as QUOTATION  # noqa: E402
from autodeco.steering.steering import read_prompts, steer  # noqa: E402
from autodeco.steering.table import tables  # noqa: E402
from builders.hf_folders import TINY, write_tiny_smollm2  # noqa: E402
from builders.told_model import ToldModel, cold_heads  # noqa: E402

ARGUMENTS = SteeringArguments(
    prompts=10, degrees=1, wordings=1, neutral=1, quoted=1, max_tokens=2, epochs=1, batch_prompts=8
)
MEASURED = MeasuringArguments(held_out_prompts=3, answers=2, sums=2, sum_answers=1)


def texts(asked):
    return " ".join(message["content"] for message in asked.prompt)


def test_training_asks_with_training_wordings_alone_and_every_prompt_in_as_many_ways():
    rows = asked_in_training(control_prompts(False, 40), wordings=2, degrees=3, seed=0)
    assert {len(row) for row in rows} == {2 + 2 * 2 + 3 + 1}
    new = [c.text for commands in HELD_OUT.commands().values() for c in commands if "{n}" not in c.text]
    for row in rows:
        assert [each.level for each in row[:6]] == [0, 0, -1, -1, 1, 1]
        assert len({each.level for each in row[6:9]}) == 3
        assert row[0].variant == PLAIN
        assert (row[-1].variant, row[-1].level) == (QUOTED, 0)
        for each in row:
            assert not any(text in texts(each) for text in new)
    assert rows != asked_in_training(control_prompts(False, 40), 2, 3, seed=1)


def test_training_asks_as_many_neutral_sentences_and_quotations_as_are_wanted():
    for row in asked_in_training(control_prompts(False, 5), 1, 0, 0, neutral=3, quoted=4):
        assert [each.variant for each in row] == [PLAIN, *["neutral"] * 3, "low", "high", *[QUOTED] * 4]
        assert {each.level for each in row if each.variant not in DIRECTIONS} == {0}
        assert len({texts(each) for each in row if each.variant == QUOTED}) > 1


def test_validation_has_a_fifth_of_training_and_training_does_without_it():
    assert (measured_part(True), measured_part(False)) == (VALIDATION, HELD_OUT)
    cut, validation = CUT, VALIDATION
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


LEARNING = replace(ARGUMENTS, prompts=60, wordings=2, degrees=0, max_tokens=4, epochs=20, learning_rate=0.01)
LEARNING = replace(LEARNING, gain=1.0, moved=0.1, hold=6.0, high_temperature=1.2)


@pytest.fixture(scope="module")
def told():
    policy, base = ToldModel(), cold_heads(ToldModel.width)
    training, validation, _ = read_prompts(policy, LEARNING)
    return policy, base, *with_control(base, training, validation, LEARNING)


def test_what_states_know_of_commands_is_followed_and_texts_without_one_are_left_alone(told):
    policy, base, heads, _ = told
    figures = Measuring(policy, heads, base, LEARNING, replace(MEASURED, held_out_prompts=40))
    followed = figures.followed()
    assert [row["share"] for row in followed["shares"]] == [1.0] * 4
    means = followed["means"]["temperature"]
    assert means["low"] < 0.12 < 0.15 < means[PLAIN] < 0.3 < 0.6 < means["high"]
    assert followed["levels"]["low"]["below"] == followed["levels"]["high"]["above"] == 1.0
    assert followed["levels"][PLAIN]["below"] + followed["levels"][PLAIN]["above"] < 0.25
    held = figures.held()
    for name in ("plain temperature", "plain top_p"):
        assert abs(held[name]["shift"]) <= 0.02
    assert followed["entropy"]["high over plain"]["low_end"] > 0
    assert followed["entropy"]["low over plain"]["high_end"] < 0


def test_learning_leaves_the_first_heads_as_they_were_and_both_in_what_comes_out(told):
    _, base, heads, figures = told
    fresh = cold_heads(ToldModel.width)
    for name, tensor in base.state_dict().items():
        assert torch.equal(tensor, fresh.state_dict()[name])
        assert torch.equal(heads.state_dict()[name], tensor)
    assert base.control_head is None
    assert heads.control.low_temperature_factor == LEARNING.low_factor
    assert heads.control.dead_zone == pytest.approx(figures["dead_zone"], rel=1e-6)
    assert min(figures["read"].values()) > 0.3  # this model is told no commands in front of a prompt
    assert figures["levels"]["low"] < -0.2 < 0.2 < figures["levels"]["high"]
    assert figures["levels"]["none"] < 0.02


def made_up(hidden: torch.Tensor, level: torch.Tensor, kind=(0, 1, 1, 3)) -> States:
    return States(hidden, level, torch.tensor(kind))


def test_a_head_learns_levels_whatever_sizes_the_numbers_of_states_have():
    generator = torch.Generator().manual_seed(0)
    level = torch.tensor([0.0, -1, 1, 0]).expand(64, 4)
    hidden = torch.randn(64, 4, 6, generator=generator)
    hidden[..., 0] += 3 * level
    scaled = made_up(hidden * torch.tensor([1e-3, 1, 1, 100, 1, 1]) + torch.tensor([5.0, 0, 0, -300, 0, 0]), level)
    arguments = replace(LEARNING, batch_prompts=8, dropout=0.0)
    head = learned(scaled, arguments)
    found = read(head, scaled)
    assert found[:, 1].max() < -0.2
    assert found[:, 2].min() > 0.2
    assert found[:, 2].mean() - found[:, 1].mean() > 1.3
    assert found[:, 0].abs().mean() < 0.3
    assert torch.equal(read(learned(scaled, arguments), scaled), found)
    assert not torch.equal(read(learned(scaled, replace(arguments, seed=1)), scaled), found)


def test_whitened_states_are_uncorrelated_as_far_as_they_vary():
    hidden = torch.randn(70, 30, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([4.0, 1, 1, 100, 1]) + 2
    hidden[..., 1] = hidden[..., 0] + 0.5 * hidden[..., 1]
    mean, deviation, matrix = moments(hidden, 1e-6)
    flat = hidden.flatten(0, 1)
    torch.testing.assert_close(mean, flat.mean(0))
    torch.testing.assert_close(deviation, flat.std(0, correction=0))
    torch.testing.assert_close(torch.cov(((flat - mean) @ matrix).T), torch.eye(5), atol=2e-3, rtol=0)
    _, _, shrunk = moments(hidden, 10.0)
    assert torch.cov(((flat - mean) @ shrunk).T).diagonal().max() < 0.3


def test_the_dead_zone_leaves_few_prompts_without_a_command_outside():
    head = learned(made_up(torch.randn(8, 4, 6), torch.tensor([0.0, -1, 1, 0]).expand(8, 4)), LEARNING)
    states = made_up(torch.randn(500, 4, 6), torch.tensor([0.0, -1, 1, 0]).expand(500, 4))
    dead_zone = dead_zone_of(head, states, 0.1)
    beyond = (read(head, states)[:, 0].abs() > dead_zone).double().mean()
    assert beyond == pytest.approx(0.1, abs=0.005)
    assert dead_zone_of(head, states, 0.0) == pytest.approx(float(read(head, states)[:, 0].abs().max()))
    right = read_right(head, states, dead_zone)
    assert right["read"]["low"] == pytest.approx(float((read(head, states)[:, 1] < -dead_zone).double().mean()))


def test_readings_weigh_by_their_kind_whatever_their_number():
    arguments = replace(ARGUMENTS, neutral=3, wordings=2, degrees=5, quoted=2, hold=6.0, graded=3.0)
    level = torch.zeros(2, 15)
    level[:, 8:13] = torch.tensor([[-1.0, 0, 0.5, 1, 1], [0, 0, 0, 0, 1]])
    states = States(torch.zeros(2, 15, 4), level, kinds(arguments))
    found = weights(states, arguments)
    assert states.kind.tolist() == [NONE] * 4 + [1] * 4 + [2] * 5 + [QUOTATION] * 2
    sums = [float(found[:, states.kind == kind].sum()) / 2 for kind in range(4)]
    assert sums == pytest.approx([6.0, 2.0, 3.0, 3.0])
    assert found[:, 0].tolist() == pytest.approx([2.0, 2.0])  # a third of what asks for nothing
    assert float(found[0, 8] / found[0, 9]) == pytest.approx(3.0)
    assert float(found[0, 10] / found[1, 8]) == pytest.approx(1.5)


def test_the_gain_is_of_the_argument():
    states = made_up(torch.randn(8, 4, 6), torch.tensor([0.0, -1, 1, 0]).expand(8, 4))
    one, three = (learned(states, replace(LEARNING, gain=gain)) for gain in (1.0, 3.0))
    torch.testing.assert_close(three.mlp(states.hidden), 3 * one.mlp(states.hidden))


def test_the_distance_is_weighted():
    u, level = torch.logit(torch.tensor([[0.5, 0.75]])), torch.tensor([[0.0, -0.5]])  # read: 0 and 0.5
    weight = torch.tensor([[1.0, 3.0]])
    assert distance_loss(u, level, weight) == pytest.approx(0.75)


def test_the_ranking_wants_a_margin_between_levels():
    level = torch.tensor([[0.0, -1, 1]])
    assert order_loss(torch.tensor([[0.0, -2, 2]]), level, margin=2.0) == 0
    assert order_loss(torch.zeros(1, 3), level, margin=2.0) == 1
    # 0 - (-1) is half of a margin; 1 - 0 too; 1 - (-1) is half of two
    assert order_loss(torch.tensor([[0.0, -1, 1]]), level, margin=2.0) == pytest.approx(0.5)
    assert order_loss(torch.zeros(1, 2), torch.zeros(1, 2), margin=2.0) == 0


def test_states_are_those_of_their_prompts_whatever_their_lengths(smollm2, tmp_path):
    write_tiny_smollm2(smollm2, tmp_path / "tiny")
    policy = HuggingFacePolicy(tmp_path / "tiny", 2, 3, "cpu", "float32")
    prompts = [[5, 6, 7, 8], [9], [3, 4], [5, 6, 7, 9, 2], [4, 4, 4]]
    together = ends(policy, prompts)
    answers = policy.sample(prompts, 1, Static(1.0), 0, max_tokens=1)
    drawn_from = policy.states(np.array([group[0].states[0] for group in answers]))
    torch.testing.assert_close(together, drawn_from, rtol=1e-4, atol=1e-5)
    for prompt, state in zip(prompts, together, strict=True):
        torch.testing.assert_close(ends(policy, [prompt])[0], state, rtol=1e-4, atol=1e-5)
    assert len({state.numpy().tobytes() for state in together}) == 5
    assert not isinstance(ToldModel(), ReadsPrompts)
    told, told_prompts = ToldModel(), [[0], [2], [1], [2]]
    assert [round(float(state[0])) for state in ends(told, told_prompts)] == [-1, 1, 0, 1]


def test_heads_of_another_model_and_heads_without_one_of_the_two_are_refused():
    for heads, message in ((Heads(9), "heads of this model"), (Heads(8, top_p=False), "one of the two is missing")):
        with pytest.raises(InputError, match=message):
            refuse_other_heads(ToldModel(), heads)
        with pytest.raises(InputError, match=message):
            steer(ToldModel(), heads, ARGUMENTS, MEASURED)


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
    assert [next(iter(row)) for row in rows] == [
        "read",
        "read",
        "learned",
        "followed",
        "scale",
        "quoted",
        "held",
        "sums",
    ]
    example = measured["followed"]["examples"][0]
    assert all(len(a["tokens"]) == len(a["temperature"]) for a in example["answers"].values())
    shown = tables(figures)
    assert f"| tiny, {MEASURED.held_out_prompts} prompts | share | 95% interval | paper |" in shown
    share = measured["followed"]["shares"][0]["share"]
    assert any(line.startswith(f"| low: temperature falls | {share:.1%} | ") for line in shown)
    assert sum(line.startswith("| ---") for line in shown) == 7
    read = figures["learned"]["read"]["low"]
    assert f"| asked to be certain | {read:.1%} |  |" in shown
    level = measured["followed"]["levels"]["low"]
    assert any(
        line.startswith(f"| asked to be certain | {level['mean']:+.2f} | {level['below']:.1%} |") for line in shown
    )


FLAGS = ["--prompts", "10", "--degrees", "1", "--wordings", "1", "--max-tokens", "2", "--epochs", "1"]
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


def interrupted_at_the_second_chunk(monkeypatch) -> list[int]:
    """Have Ctrl-C come when the second chunk of prompts is read, once; return how many prompts each chunk had."""
    read_states, numbers = steering_module.read_states, []

    def interrupted(policy, asked, kind):
        numbers.append(len(asked))
        if len(numbers) == 2:
            raise KeyboardInterrupt
        return read_states(policy, asked, kind)

    monkeypatch.setattr(steering_module, "read_states", interrupted)
    return numbers


def test_the_command_writes_heads_and_a_report_and_goes_on_after_an_interrupt(smollm2, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(states_module, "PROMPTS_AT_A_TIME", 4)
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
    assert "60 prompts are read to learn from" in said.out + said.err

    numbers = interrupted_at_the_second_chunk(monkeypatch)
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
    assert numbers == [4, 4, 4, 2]  # of 8 prompts and a fifth of 2; the second chunk began twice
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(np.array_equal(parts[name], array) for name, array in whole.items())
    assert sorted(path.name for path in (tmp_path / "parts").iterdir() if "lock" not in path.name) == [
        "config.json",
        "control.json",
        "model.safetensors",
        "report.html",
    ]


def test_a_run_is_continued_only_by_what_has_read_its_prompts(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(states_module, "PROMPTS_AT_A_TIME", 4)
    monkeypatch.setattr(control_module, "answering_policy", lambda *_: ToldModel())
    cold_heads(ToldModel.width).save_pretrained(tmp_path / "cold")
    command = ["control", "model.gguf", "--init", str(tmp_path / "cold"), *FLAGS, "-o", str(tmp_path / "out")]
    numbers = interrupted_at_the_second_chunk(monkeypatch)
    assert cli.main(command) == 130
    in_llama_cpp = [word for word in command if word not in ("--answers-from", "hugging-face", "--dtype", "float32")]
    for other, named in (([*command, "--dtype", "float16"], "dtype"), (in_llama_cpp, "answers-from")):
        assert cli.main(other) == 2
        assert f"is of a run with another {named}" in capsys.readouterr().err
    assert numbers == [4, 4]


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
    (tmp_path / "cold" / "unfinished").mkdir()  # of a run that did not end its first chunk
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
    steering = replace(ARGUMENTS, neutral=2, quoted=3)
    measured = replace(MEASURED, sum_answers=3)
    steer(policy, cold_heads(policy.width), steering, measured)
    plan = plan_of(steering, measured)
    assert plan.read == sum(prompts for prompts, _ in asked[:2]) == 10 * 9
    assert plan.measured_prompts == sum(prompts for prompts, _ in asked[2:])
    assert plan.measured_answers == sum(answers for _, answers in asked[2:])
    assert plan.updates == 1 + 2  # 8 prompts, then 10, in eights
    assert plan_of(replace(steering, validate=True), measured).updates == 1


def test_how_long_it_takes_is_said_with_what_it_comes_of():
    plan = Plan(read=300, updates=40, measured_prompts=50, measured_answers=80)
    pace = Pace(prompt=0.1, token=0.01, update=0.25, first=2.0)
    assert seconds(plan, pace, 20) == pytest.approx(350 * 0.1 + 40 * 0.25 + 2 * 2 + 20 * 80 * 0.01)
    assert in_words(plan, pace, 20, done=100) == (
        "200 prompts are read to learn from, and 80 answers of up to 20 tokens drawn behind 50 to measure: at most "
        "55 s at the 10.0 prompts/s and 100 tokens/s measured here"
    )
    found = measure_pace(ToldModel(), cold_heads(ToldModel.width), ARGUMENTS)
    assert min(found.prompt, found.token, found.update) > 0
    with pytest.raises(InputError, match="heads of this model"):
        measure_pace(ToldModel(), Heads(9), ARGUMENTS)


ROOT = Path(__file__).parents[2]
RESULT = ROOT / "benchmarks" / "results" / "control.json"


@pytest.mark.skipif(not RESULT.exists(), reason="the figures of the control head are still to come")
def test_the_tables_of_the_documentation_are_those_of_the_result():
    assert "\n".join(tables(json.loads(RESULT.read_text()))) in (ROOT / "docs" / "control.md").read_text()


def test_wilson_intervals_are_those_of_the_formula():
    # R's prop.test(98, 100, correct = FALSE)
    assert wilson(98, 100) == pytest.approx((0.9300, 0.9945), abs=1e-4)
    assert wilson(200, 200) == pytest.approx((0.98116, 1.0), abs=1e-5)


def test_answers_of_llama_cpp_are_steered_by_the_level_that_the_head_reads(smollm2):
    policy = LlamaPolicy(smollm2, 4, 4, "cpu", 1)
    torch.manual_seed(3)
    heads = Heads(policy.identity.hidden_size, control=ControlEnds(dead_zone=0.1))
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    prompts = [policy.prompt_ids([{"role": "user", "content": text}]) for text in ("Why?", "Count to ten.", "A poem!")]
    levels, heads = [], heads.requires_grad_(False)
    for (answer,) in policy.sample(prompts, 1, heads, 0):
        hidden = policy.states(answer.states)
        level = heads.level(hidden[:1])
        levels.append(float(level))
        t, p = heads.steered(*heads(hidden, policy.logits(hidden)), level)
        np.testing.assert_allclose(answer.temperature, t, rtol=1e-3)
        np.testing.assert_allclose(answer.top_p, p, rtol=1e-3)
    assert max(map(abs, levels)) > 0.2
