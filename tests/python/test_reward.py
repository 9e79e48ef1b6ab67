"""Training on rewards: unbiased advantages, each state scored once, heads that learn what a checker wants."""

import json
from collections import Counter
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from autodeco import Heads, cli, reward_training  # noqa: E402
from autodeco.errors import InputError  # noqa: E402
from autodeco.exact_losses import token_losses  # noqa: E402
from autodeco.llama_policy import LlamaPolicy  # noqa: E402
from autodeco.policy import Sampled  # noqa: E402
from autodeco.prefix_tree import advantages, edges, paths  # noqa: E402
from autodeco.reward_arguments import RewardArguments  # noqa: E402
from autodeco.reward_training import train_on_rewards  # noqa: E402
from autodeco.traces import Model  # noqa: E402
from test_train import weights  # noqa: E402

HIDDEN, VOCAB, END = 8, 12, 0
SHORT = RewardArguments(
    checker="python:test_reward:ends_right",
    steps=25,
    batch_problems=6,
    samples=8,
    max_tokens=2,
    learning_rate=2e-2,
    warmup_steps=2,
    measured_samples=8,
    validation_problems=8,
    evaluate_every=10,
    prob_stats=False,
)


def ends_right(problem, text):
    """The first token has to be the likeliest one; what follows does not matter."""
    return float(text.split()[0] == str(problem["best"]))


class ToyPolicy:
    """A model whose state is a random vector for each (prompt, tokens so far), drawn from as the heads say."""

    rank, device = 0, "cpu"
    model = Model("toy", "toy-fingerprint", "toy", "toy", HIDDEN, VOCAB)

    def __init__(self, max_tokens=2):
        self._max_tokens = max_tokens
        self._matrix = torch.randn(VOCAB, HIDDEN, generator=torch.Generator().manual_seed(1)) / 2

    def prompt_ids(self, prompt):
        return [int(token) for token in prompt.split()]

    def state(self, tokens):
        rng = np.random.default_rng([len(tokens), *tokens])
        hidden = torch.from_numpy(rng.standard_normal(HIDDEN).astype(np.float32))
        return hidden, self._matrix @ hidden

    def sample(self, prompts, n, heads, seed):
        generator = torch.Generator().manual_seed(seed)
        return [[self._answer(list(prompt), heads, generator) for _ in range(n)] for prompt in prompts]

    @torch.no_grad()
    def _answer(self, prompt, heads, generator):
        tokens, values = [], []
        while len(tokens) < self._max_tokens:
            hidden, logits = self.state([*prompt, *tokens])
            temperature, top_p = (value[0] for value in heads(hidden[None], logits[None]))
            p, order = torch.softmax(logits / temperature, -1).sort(descending=True)
            p[(p.cumsum(-1) - p) >= top_p] = 0
            tokens.append(int(order[torch.multinomial(p, 1, generator=generator)]))
            values.append((temperature.item(), top_p.item()))
        temperature, top_p = np.array(values, np.float32).T
        return Sampled(tuple(tokens), " ".join(map(str, tokens)), True, temperature, top_p)

    def states(self, wanted):
        for index, (prompt, beginnings) in enumerate(wanted):
            pairs = [self.state([*prompt, *tokens[:-1]]) for tokens in beginnings]
            yield *(torch.stack(column) for column in zip(*pairs, strict=True)), [(index, each) for each in beginnings]

    def summed(self, values):
        return values

    def pieces(self, tokens):
        return [f" {token}" for token in tokens]


@pytest.fixture
def problems(tmp_path):
    policy = ToyPolicy()
    rows = [{"prompt": f"{a} {b}"} for a, b in product(range(1, 7), range(1, 5))]
    for row in rows:
        row["best"] = int(policy.state(policy.prompt_ids(row["prompt"]))[1].argmax())
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_group_baseline_is_the_mean_of_the_others():
    rewards = [1.0, 0.0, 0.0, 1.0]
    values = advantages([(1,), (2,), (3,), (1, 2)], rewards, "group")
    assert [row[0] for row in values] == pytest.approx([(r - 0.5) * 4 / 3 for r in rewards])


def test_the_prefix_baseline_by_hand():
    # Two answers begin with 1, one of them right; the others are wrong. At the root: others' mean.
    values = advantages([(1, 5), (1, 6), (2, 5)], [1.0, 0.0, 0.0], "prefix")
    assert values[0][0] == pytest.approx(1.0)  # others 0, 0
    assert values[0][1] == pytest.approx(1 - (0.0 + 2 * 0.0) / 3)
    assert values[1][1] == pytest.approx(0 - (1.0 + 2 * 0.5) / 3)
    assert values[2][1] == pytest.approx(0 - 0.5)  # nobody else is there: what was expected before


@pytest.mark.parametrize("baseline", ["prefix", "group"])
def test_both_baselines_give_the_true_gradient_on_average_and_the_prefix_varies_less(baseline):
    """Answers of two binary tokens, each 1 with probability 0.4; only (1, 1) is right. J = p q, and by the logits:
    dJ/da = p (1 - p) q at the first token, dJ/db = p q (1 - q) at the second one behind a first 1."""
    rng, p = np.random.default_rng(0), 0.4
    sums, squares = np.zeros(2), 0.0
    rounds, n = 6000, 8
    for _ in range(rounds):
        answers = [tuple((rng.random(2) < p).astype(int).tolist()) for _ in range(n)]
        values = advantages(answers, [float(a == (1, 1)) for a in answers], baseline)
        first = sum(v[0] * (a[0] - p) for a, v in zip(answers, values, strict=True)) / n
        second = sum(v[1] * (a[1] - p) for a, v in zip(answers, values, strict=True) if a[0] == 1) / n
        wasted = sum(v[1] * (a[1] - p) for a, v in zip(answers, values, strict=True) if a[0] == 0) / n
        sums += first, second
        squares += wasted**2
    error = 4 * 0.2 / rounds**0.5  # a gradient of one round varies by less than 0.2
    assert sums / rounds == pytest.approx([p * (1 - p) * p, p * p * (1 - p)], abs=error)
    # Behind a first 0 all is lost and nothing should be learned; the group's baseline learns noise there.
    noise = (squares / rounds) ** 0.5
    assert noise < 0.012 if baseline == "prefix" else noise > 0.014


def test_edges_sum_advantages_and_drop_what_cancels():
    answers = [(1, 2), (1, 3), (1, 2)]
    assert edges(answers, [[0.5, 1.0], [-0.5, -1.0], [0.0, 0.25]]) == {(1, 2): 1.25, (1, 3): -1.0}


def test_paths_visit_every_edge_once():
    rng = np.random.default_rng(3)
    answers = [tuple(rng.integers(0, 3, rng.integers(1, 6)).tolist()) for _ in range(30)]
    wanted = edges(answers, [[1.0] * len(a) for a in answers])
    for tokens in list(wanted)[::3]:
        del wanted[tokens]
    visited = Counter(
        tokens[: t + 1]
        for tokens, first in paths(wanted)
        for t in range(first, len(tokens))
        if tokens[: t + 1] in wanted
    )
    assert visited == Counter(wanted.keys())


def test_the_gradient_is_that_of_all_answers_token_by_token():
    """What is summed over shared states equals the plain sum over every token of every answer."""
    policy, heads, prompt = ToyPolicy(), Heads(HIDDEN), [3, 1]
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)) * 0.1)
    (group,) = policy.sample([prompt], 16, heads, seed=0)
    answers = [answer.tokens for answer in group]
    values = advantages(answers, [float(tokens[0] > 5) for tokens in answers])
    run = SimpleNamespace(heads=heads, source=policy, arguments=SHORT, directory="", step=0)
    reward_training._add_gradient(run, [(prompt, edges(answers, values))], [0], 48, None)
    found = {name: parameter.grad.clone() for name, parameter in heads.named_parameters()}
    heads.zero_grad()
    total = 0.0
    for tokens, row in zip(answers, values, strict=True):
        for t, value in enumerate(row):
            hidden, logits = (part[None] for part in policy.state([*prompt, *tokens[:t]]))
            nll = token_losses(logits, *heads(hidden, logits), torch.tensor([tokens[t]]), weighted=False)[1]
            total = total + value * nll.sum()
    (total / 48).backward()
    for name, parameter in heads.named_parameters():
        assert torch.norm(found[name] - parameter.grad) <= 1e-4 * torch.norm(parameter.grad), name


def test_heads_learn_to_be_right_and_only_where_it_matters(problems, tmp_path):
    policy = ToyPolicy()
    result = train_on_rewards(policy, problems, tmp_path, SHORT, progress=False)
    assert result.before.reward < 0.6
    assert result.after.reward > result.before.reward + 0.2
    heads = Heads.from_pretrained(tmp_path)
    prompts = [policy.prompt_ids(row["prompt"]) for row in map(json.loads, problems.read_text().splitlines())]
    with torch.no_grad():
        first = torch.stack([heads.temperature(policy.state(prompt)[0]) for prompt in prompts])
    assert first.mean() < 0.6
    made = json.loads((tmp_path / "training.json").read_text())
    assert len(made["updates"]) == 25
    assert {"reward", "temperature", "temperature_deviation", "top_p", "top_p_deviation", "low_temperature"} <= made[
        "updates"
    ][0].keys()
    squares = [sum(update[f"advantage_squares_{kind}"] for update in made["updates"]) for kind in ("prefix", "group")]
    assert squares[0] < squares[1]
    assert (tmp_path / "report.html").exists()


def test_an_interrupted_run_resumes_to_the_same_heads(problems, tmp_path, monkeypatch):
    arguments = replace(SHORT, steps=9, evaluate_every=4, keep_close=0.01)
    whole = train_on_rewards(ToyPolicy(), problems, tmp_path / "whole", arguments, progress=False)
    for at in (7, 8):  # in the middle of an update, and between an update and its measurement
        monkeypatch.setattr(reward_training, "_seed", interrupting(reward_training._seed, at))
        assert train_on_rewards(ToyPolicy(), problems, tmp_path / f"{at}", arguments, progress=False).interrupted
        monkeypatch.undo()
        with pytest.raises(InputError, match="holds an unfinished run"):
            train_on_rewards(ToyPolicy(), problems, tmp_path / f"{at}", arguments, progress=False)
        resumed = train_on_rewards(ToyPolicy(), problems, tmp_path / f"{at}", arguments, resume=True, progress=False)
        assert resumed.history == whole.history
        for name, tensor in weights(tmp_path / "whole").items():
            assert torch.equal(weights(tmp_path / f"{at}")[name], tensor), name


def interrupting(seed_of, at):
    """Press Ctrl-C before the answers of update ``at`` are drawn; at a measured one (8) in its measurement instead."""
    updates = []

    def seed(seed, kind, number):
        if kind == 4:
            updates.append(number)
        if updates and updates[-1] == 7 and at == 8 and kind == 2:
            raise KeyboardInterrupt
        if kind == 4 and number == at:
            raise KeyboardInterrupt
        return seed_of(seed, kind, number)

    return seed


def test_a_bound_keeps_the_heads_near_their_start(problems, tmp_path):
    moved = []
    for name, weight in (("free", 0.0), ("bound", 3.0)):
        arguments = replace(SHORT, steps=10, keep_close=weight)
        train_on_rewards(ToyPolicy(), problems, tmp_path / name, arguments, progress=False)
        updates = json.loads((tmp_path / name / "training.json").read_text())["updates"]
        moved.append(abs(updates[-1]["temperature"] - 1.0))
    assert moved[1] < 0.5 * moved[0]


def test_a_loss_that_is_no_number_names_its_problem():
    policy, heads = ToyPolicy(), Heads(HIDDEN, VOCAB)

    def states(wanted):
        for index, (_, beginnings) in enumerate(wanted):
            beginnings = sorted(beginnings, key=len)
            hidden, logits = torch.ones(len(beginnings), HIDDEN), torch.ones(len(beginnings), VOCAB)
            if index == 1:
                hidden[-1, 0] = torch.nan
            yield hidden, logits, [(index, beginning) for beginning in beginnings]

    policy.states = states
    run = SimpleNamespace(heads=heads, source=policy, arguments=SHORT, directory="folder", step=5)
    wanted = [([1], {(3,): 1.0}), ([2], {(3,): 1.0, (3, 4): -1.0})]
    with pytest.raises(InputError, match=r"^folder: the loss of step 5 is nan \(problem 8, token 2 of an answer\)"):
        reward_training._add_gradient(run, wanted, [2, 7], 3, None)


def test_problems_that_teach_nothing_are_refused(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text('{"prompt": "1", "best": 99}\n{"prompt": "2", "best": 99}\n')
    with pytest.raises(InputError, match="nothing to learn from"):
        train_on_rewards(ToyPolicy(), path, tmp_path / "heads", SHORT, progress=False)
    path.write_text('{"prompt": "1", "best": 99}\n')
    with pytest.raises(InputError, match="at least two"):
        train_on_rewards(ToyPolicy(), path, tmp_path / "heads", SHORT, progress=False)


def test_the_states_of_llama_cpp_belong_to_the_tokens_they_predict(smollm2):
    policy = LlamaPolicy(smollm2, max_tokens=4, slots=4, device="cpu", threads=1)
    prompt = policy.prompt_ids("The capital of France is")
    heads = Heads(policy.model.hidden_size)
    (group,) = policy.sample([prompt], 4, heads, seed=1)
    assert all(len(answer.tokens) == len(answer.temperature) <= 4 for answer in group)
    assert all(np.allclose(answer.temperature, 1.0) for answer in group)
    greedy = []
    for _ in range(3):
        ((_, logits, _),) = policy.states([(prompt, [(*greedy, 0)])])
        greedy.append(int(logits[0].argmax()))
    tokens = (*greedy, 0)
    seen = {
        which: int(row.argmax())
        for _, logits, every in policy.states([(prompt, [tokens[: t + 1] for t in range(4)])])
        for row, which in zip(logits, every, strict=True)
    }
    assert [seen[0, tokens[: t + 1]] for t in range(3)] == greedy
    assert policy.pieces(greedy[:1]) == [" Paris"]


def test_the_command_trains_on_rewards(smollm2, tmp_path, capsys):
    path, ask = tmp_path / "problems.jsonl", "State the final answer to the following arithmetic problem: {} + 4 ="
    prompts = [[{"role": "user", "content": ask.format(i)}] for i in range(4)]
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    command = (
        f"train --objective reward --model {smollm2} --problems {path} -o {tmp_path / 'heads'} --threads 1".split()
    )
    command += ["--checker", "python:test_reward:length_score", "--max-tokens", "20", "--steps", "1", "--samples", "4"]
    command += ["--measured-samples", "4", "--batch-problems", "2", "--validation-problems", "2"]
    assert cli.main(command) == 0
    shown = capsys.readouterr().out
    assert "low temperature" in shown
    assert "2 held-out problems" in shown
    Heads.from_pretrained(tmp_path / "heads")
    assert cli.main([*command, "--batch-tokens", "4"]) == 2
    assert "--batch-tokens: has no meaning in training with --objective reward" in capsys.readouterr().err


def length_score(problem, text):  # named by python:test_reward:length_score
    return (1 + len(text) % 5) / 5
