"""The ranking loss has the values and gradients that its formula says, and commands reach prompts as they should."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from autodeco import Heads  # noqa: E402
from autodeco.data.control import NO_COMMAND, Command, Control, commanded, read_commands  # noqa: E402
from autodeco.data.records import Record  # noqa: E402
from autodeco.errors import InputError  # noqa: E402
from autodeco.losses.ranking import HIGH, LOW, NONE, answer_means, ranking_loss  # noqa: E402
from autodeco.training.control import predict  # noqa: E402
from autodeco.training.source import Chunk  # noqa: E402

MARGINS = (0.2, 0.05)
COMMANDS = [Command("low", "l", False), Command("low", "m", True), Command("high", "h", False)]
COMMANDS += [Command("high", "i", True)]


def test_the_loss_of_one_prompt_by_hand():
    # T: 0.5 -> 0.6 is half a margin short, 0.6 -> 0.9 is enough. P: falls by 0.05, one margin below; then rises by 0.1.
    means = torch.tensor([[[0.5], [0.6], [0.9]], [[0.9], [0.85], [0.95]]], dtype=torch.float64)
    assert ranking_loss(means, MARGINS).item() == pytest.approx((0.5 + 0.0 + 2.0 + 0.0) / 4)


def test_commands_that_change_nothing_cost_1_and_full_margins_cost_0():
    same = torch.full((2, 3, 4), 0.7, dtype=torch.float64)
    assert ranking_loss(same, MARGINS).tolist() == [1.0] * 4
    steps = torch.tensor([0.0, 1.01, 2.02], dtype=torch.float64)[None, :, None]
    apart = same + steps * torch.tensor(MARGINS, dtype=torch.float64)[:, None, None]
    assert ranking_loss(apart, MARGINS).tolist() == [0.0] * 4


def test_the_gradient_by_a_token_is_what_the_docstring_says():
    values = torch.tensor([[0.3, 0.5, 0.45, 0.55, 2.0]], dtype=torch.float64, requires_grad=True)
    places = np.array([LOW, LOW, NONE, NONE, HIGH])
    means, _ = answer_means(values, np.zeros(5, int), places)
    ranking_loss(means, (0.2,)).sum().backward()
    # N - L = 0.1 is short of 0.2, H - N is not; the mean of two hinges, answers of 2 tokens.
    unit = 1 / (2 * 2 * 0.2)
    assert values.grad[0].tolist() == pytest.approx([unit, unit, -unit, -unit, 0.0])


def test_the_gradient_by_the_heads_is_that_of_finite_differences():
    torch.manual_seed(0)
    heads = Heads(8).double()
    for head in (heads.temp_head, heads.top_p_head):
        torch.nn.init.normal_(head.mlp[2].weight, std=0.1)
    chunk = chunk_of(records=[0, 0, 0, 0, 1, 1, 1], commands=[0, 0, 1, 3, 3, 1, 0])

    def losses():
        means, _ = predict(heads, [chunk]).means(COMMANDS, held_out=False)
        return [ranking_loss(means[i : i + 1], MARGINS[i : i + 1]).mean() for i in (0, 1)]

    # Each value by its own head: T enters the top-p head as an input without gradient.
    for index, head in enumerate((heads.temp_head, heads.top_p_head)):
        heads.zero_grad()
        losses()[index].backward()
        for parameter, place in ((head.mlp[0].weight, (3, 5)), (head.mlp[0].bias, (7,)), (head.mlp[2].weight, (0, 9))):
            around = []
            for step in (1e-6, -1e-6):
                with torch.no_grad():
                    parameter[place] += step
                    around.append(losses()[index].item())
                    parameter[place] -= step
            assert parameter.grad[place].item() == pytest.approx((around[0] - around[1]) / 2e-6, rel=1e-5, abs=1e-9)


def chunk_of(records, commands):
    generator = torch.Generator().manual_seed(1)
    n = len(records)
    hidden, logits = (torch.randn(n, size, generator=generator, dtype=torch.float64) for size in (8, 12))
    return Chunk(hidden, logits, torch.zeros(n, dtype=torch.long), np.array(records), np.array(commands))


def test_means_are_taken_over_each_answer_by_itself():
    values = torch.arange(8.0)[None]
    records = np.array([7, 7, 2, 2, 2, 7, 2, 7])
    places = np.array([LOW, NONE, LOW, NONE, HIGH, HIGH, HIGH, LOW])
    means, distinct = answer_means(values, records, places)
    assert distinct.tolist() == [2, 7]
    assert means.tolist() == [[[2.0, 3.5], [3.0, 1.0], [5.0, 5.0]]]


def test_held_out_wordings_are_compared_apart_from_training_ones():
    chunk = chunk_of(records=[4] * 5, commands=[0, 1, 2, 3, 4])
    heads = Heads(8).double()
    torch.nn.init.normal_(heads.temp_head.mlp[2].weight)
    predicted = predict(heads, [chunk])
    temperature = predicted.values[0].tolist()
    for held_out, (low, high) in ((False, (1, 3)), (True, (2, 4))):
        means, _ = predicted.means(COMMANDS, held_out)
        assert means[0, :, 0].tolist() == [temperature[low], temperature[0], temperature[high]]


def test_an_answer_without_one_of_its_variants_is_refused():
    with pytest.raises(ValueError, match="record 6 lacks"):
        answer_means(torch.zeros(1, 5), np.array([3, 3, 3, 5, 5]), np.array([LOW, NONE, HIGH, LOW, HIGH]))


def test_our_commands_are_enough_to_learn_from_and_to_be_tested_with():
    commands = read_commands()
    for direction in ("low", "high"):
        counts = [sum(c.direction == direction and c.held_out == use for c in commands) for use in (False, True)]
        assert counts == [114, 17]


def test_a_record_gets_the_same_wordings_every_time_and_held_out_ones_only_where_it_is_held_out():
    control = Control(read_commands(), held_out=[3], seed=0)
    record = Record(1, "Why?", "Because.")
    assert control.variants(5, record) == control.variants(5, record)

    def directions(index):
        places = [place for place, _ in control.variants(index, record)]
        assert places[0] == NO_COMMAND
        return [(c.direction, c.held_out) for c in (control.commands[place - 1] for place in places[1:])]

    training = [("low", False), ("high", False)]
    assert directions(5) == training
    assert directions(3) == [*training, ("low", True), ("high", True)]
    low = [control.variants(index, record)[1] for index in range(4, 1144)]
    counts = np.bincount([place - 1 for place, _ in low], minlength=114)[:114]
    assert ((counts - 10) ** 2 / 10).sum() < 150.9  # chi-square, 113 degrees of freedom, 1%
    assert all(changed.prompt == f"{control.commands[place - 1].text}\nWhy?" for place, changed in low)


def test_a_command_ends_the_last_message_and_begins_a_plain_prompt():
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "Why?"}]
    answer = [{"role": "assistant", "content": "Because."}]
    command = Command("low", "Be sure.", False)
    changed = commanded(Record(1, messages, answer), command)
    assert [message["content"] for message in changed.prompt] == ["s", "Why? Be sure."]
    assert (messages[1]["content"], changed.completion) == ("Why?", answer)
    assert commanded(Record(1, "1 + 1 =", " 2"), command).prompt == "Be sure.\n1 + 1 ="
    with pytest.raises(InputError, match="without a prompt"):
        commanded(Record(1, "", "text"), command)


SET = {name: {"training": [f"{name} 1"], "held_out": [f"{name} 2"]} for name in ("low", "high")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("{}", "the file must hold low and high, and holds nothing"),
        (json.dumps(SET | {"middle": SET["low"]}), "holds low, high, middle"),
        (json.dumps({"low": SET["low"]}), "must hold low and high, and holds low"),
        (json.dumps(SET | {"high": ["h"]}), "high must hold training and held_out"),
        (json.dumps(SET | {"high": {"training": [], "held_out": ["h"]}}), "training of high must be a list with at"),
        (json.dumps(SET | {"low": {"training": ["l"], "held_out": [" "]}}), "held_out of low must be a list"),
        (
            json.dumps(SET | {"low": {"training": {"curt": ["l"]}, "held_out": ["h"]}}),
            "training of low holds 'curt'; reg",
        ),
        (
            json.dumps(SET | {"low": {"training": {}, "held_out": ["h"]}}),
            "training of low must be a list with at least",
        ),
        (json.dumps(SET | {"low": SET["high"]}), "'high 1' is there twice"),
    ],
)
def test_a_command_set_that_cannot_be_used_is_refused(tmp_path, content, message):
    path = tmp_path / "commands.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_commands(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_commands(tmp_path / "absent.json")
