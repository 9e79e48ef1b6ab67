"""Training on rewards: known right answers as trees, their chance, heads that learn what a checker wants."""

import json
import signal
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from autodeco import Heads, cli  # noqa: E402
from autodeco.base.identity import ModelIdentity  # noqa: E402
from autodeco.base.opening import open_base  # noqa: E402
from autodeco.base.states import StateReader  # noqa: E402
from autodeco.errors import InputError  # noqa: E402
from autodeco.rewards import answer_trees, loop  # noqa: E402
from autodeco.rewards.answer_trees import ROOT, AnswerTrees, part_of, values  # noqa: E402
from autodeco.rewards.arguments import RewardArguments  # noqa: E402
from autodeco.rewards.llama import LlamaPolicy  # noqa: E402
from autodeco.rewards.loop import train_on_rewards  # noqa: E402
from autodeco.rewards.policy import Sampled  # noqa: E402
from test_train import weights  # noqa: E402

HIDDEN, VOCAB, END = 8, 12, 0
SHORT = RewardArguments(
    checker="python:test_reward:ends_right",
    steps=40,
    rounds=2,
    batch_problems=6,
    samples=8,
    max_tokens=2,
    learning_rate=2e-2,
    warmup_steps=2,
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
    model = ModelIdentity("toy", "toy-fingerprint", "toy", "toy", HIDDEN, VOCAB)

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
            hidden = torch.stack([self.state([*prompt, *tokens[:-1]])[0] for tokens in beginnings])
            yield hidden, [(index, each) for each in beginnings]

    def logits(self, hidden):
        return hidden @ self._matrix.T

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


def test_values_by_hand():
    """Behind 1 follow 5 (right), 6 (worth 0.5) and 7 (wrong); 2 is wrong at once; what leaves the right ones is 0."""
    trees = trees_of({0: {(1, 5): 1.0, (1, 6): 0.5, (1, 7, 5): 0.0, (2, 5): 0.0}, 3: {(2,): 1.0}, 4: {(9,): 0.0}})
    edges = trees.edges([3, 4, 0], "cpu")
    assert edges.token.tolist() == [2, 1, 2, 5, 6, 7]
    assert edges.parent.tolist() == [ROOT, ROOT, ROOT, 1, 1, 1]
    assert edges.problem.tolist() == [0, 2, 2, 2, 2, 2]
    assert edges.parted().tolist() == [1, 2, 3, 4, 5]
    p = torch.tensor([0.9, 0.3, 0.1, 0.2, 0.1, 0.1])  # what is missing to 1 was never drawn, and has no say
    found = values(torch.log(p), edges, 3)
    behind = 0.5 * 1 + 0.25 * 0.5
    assert found.expected.tolist() == pytest.approx([1.0, 0.0, 0.75 * behind])
    assert found.reach.tolist() == pytest.approx([1, 1, 1, 0.75, 0.75, 0.75])
    expected = 0.75 * (behind - 0.75 * behind), 0.25 * (0 - 0.75 * behind)
    expected += tuple(0.75 * rho * (worth - behind) for rho, worth in ((0.5, 1), (0.25, 0.5), (0.25, 0)))
    assert found.weights.tolist() == pytest.approx([0, *expected])


def test_weights_are_the_derivatives_of_what_is_expected():
    rng = np.random.default_rng(3)
    answers = {(*rng.integers(0, 3, rng.integers(0, 5)).tolist(), 9): round(float(rng.random())) for _ in range(60)}
    edges = trees_of({0: answers, 1: {(1, 9): 1.0, (2, 9): 0.0}}).edges([0, 1], "cpu")
    log_p = torch.from_numpy(np.log(rng.random(len(edges.token))))
    weights = values(log_p, edges, 2).weights
    for place in range(len(log_p)):
        step = torch.zeros_like(log_p)
        step[place] = 1e-5
        up, down = (values(log_p + sign * step, edges, 2).expected.sum() for sign in (1, -1))
        assert weights[place].item() == pytest.approx(((up - down) / 2e-5).item(), abs=1e-6)


def trees_of(answers):
    trees = AnswerTrees(2)
    drawn = [(problem, tokens, reward) for problem, each in answers.items() for tokens, reward in each.items()]
    states = [(problem, edge) for problem, each in answers.items() for edge in trees.missing(problem, each)]
    trees.add(part_of(drawn, states, np.zeros((len(states), 2))))
    return trees


def test_a_right_answer_that_comes_late_turns_a_wrong_token_into_a_choice():
    trees = trees_of({0: {(1, 9): 1.0, (2, 9): 0.0}})
    assert trees.missing(0, {(1, 9): 1.0, (2, 5, 9): 1.0, (3, 9): 0.0}) == [(2, 5), (2, 5, 9)]
    trees.add(part_of([(0, (2, 5, 9), 1.0)], [(0, (2, 5)), (0, (2, 5, 9))], np.zeros((2, 2))))
    edges = trees.edges([0], "cpu")
    assert sorted(zip(edges.token.tolist(), edges.depth.tolist(), strict=True)) == [
        (1, 0),
        (2, 0),
        (5, 1),
        (9, 1),
        (9, 1),
        (9, 2),
    ]
    assert (trees.right(0), trees.right(1)) == (2, 0)


def test_a_damaged_file_of_answers_is_refused(tmp_path):
    part = part_of([(0, (1, 2), 1.0)], [(0, (1,)), (0, (1, 2))], np.ones((2, 3)))
    answer_trees.write_part(tmp_path / "part", part)
    assert answer_trees.read_part(tmp_path / "part", 3)["state_tokens"].tolist() == [1, 1, 2]
    for damage in ({"reward": part["reward"][:0]}, {"state_length": part["state_length"] + 1}):
        answer_trees.write_part(tmp_path / "part", part | damage)
        with pytest.raises(InputError, match="do not belong together"):
            answer_trees.read_part(tmp_path / "part", 3)
    answer_trees.write_part(tmp_path / "part", part)
    with pytest.raises(InputError, match="are not 4 wide"):
        answer_trees.read_part(tmp_path / "part", 4)
    (tmp_path / "part").write_bytes(b"no safetensors")
    with pytest.raises(InputError, match="not readable"):
        answer_trees.read_part(tmp_path / "part", 3)


def test_what_is_expected_is_what_draws_come_to():
    """Nearly all answers of a toy model are known after many draws, so that other draws are right as often as told."""
    policy, heads, prompt = ToyPolicy(), Heads(HIDDEN, prob_stats=False), [3, 1]
    (group,) = policy.sample([prompt], 4000, heads, seed=0)
    trees, answers = AnswerTrees(HIDDEN), {answer.tokens: float(answer.tokens[1] > 5) for answer in group}
    edges = trees.missing(0, answers)
    hidden = np.stack([policy.state([*prompt, *edge[:-1]])[0].numpy() for edge in edges])
    trees.add(part_of([(0, *item) for item in answers.items()], [(0, edge) for edge in edges], hidden))
    edges = trees.edges([0], "cpu")
    with torch.no_grad():
        log_p, *_ = loop.score(heads, edges, policy, explore=0.0, blur=0.01)
    (group,) = policy.sample([prompt], 4000, heads, seed=1)
    seen = np.mean([answer.tokens[1] > 5 for answer in group])
    assert values(log_p, edges, 1).expected.item() == pytest.approx(seen, abs=4 * (seen * (1 - seen) / 4000) ** 0.5)


def test_heads_learn_to_be_right(problems, tmp_path):
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
    assert len(made["updates"]) == 40
    figures = {"reward", "temperature", "temperature_deviation", "top_p", "top_p_deviation", "low_temperature"}
    assert figures <= made["updates"][0].keys()
    assert made["sampled_reward"]["after"] > made["sampled_reward"]["before"] + 0.2
    assert [row["step"] for row in made["rounds"]] == [0, 20]
    assert made["rounds"][1]["known_answers"] >= made["rounds"][0]["known_answers"]
    assert (tmp_path / "report.html").exists()
    assert not (tmp_path / "answers").exists()


@pytest.mark.parametrize(
    ("name", "at"),
    [("write_part", 2), ("_learning_rate", 3), ("write_part", 4)],
    ids=["drawing", "updating", "drawing again"],
)
def test_an_interrupted_run_resumes_to_the_same_heads(problems, tmp_path, monkeypatch, name, at):
    arguments = replace(SHORT, steps=9, evaluate_every=4, keep_close=0.01, slots=8)
    monkeypatch.setattr(loop, "PART_PROBLEMS", 8)
    whole = train_on_rewards(ToyPolicy(), problems, tmp_path / "whole", arguments, progress=False)
    with monkeypatch.context() as patched:
        patched.setattr(loop, name, interrupting(getattr(loop, name), at))
        if (name, at) == ("write_part", 2):  # before there are heads to keep
            with pytest.raises(KeyboardInterrupt):
                train_on_rewards(ToyPolicy(), problems, tmp_path / "part", arguments, progress=False)
        else:
            assert train_on_rewards(ToyPolicy(), problems, tmp_path / "part", arguments, progress=False).interrupted
    assert len(list((tmp_path / "part" / "answers").iterdir())) == {2: 2, 3: 3, 4: 4}[at]
    with pytest.raises(InputError, match="holds an unfinished run"):
        train_on_rewards(ToyPolicy(), problems, tmp_path / "part", arguments, progress=False)
    resumed = train_on_rewards(ToyPolicy(), problems, tmp_path / "part", arguments, resume=True, progress=False)
    assert resumed.history == whole.history
    for name, tensor in weights(tmp_path / "whole").items():
        assert torch.equal(weights(tmp_path / "part")[name], tensor), name


def interrupting(function, at):
    """Press Ctrl-C in call ``at`` of ``function``."""
    calls = []

    def called(*args):
        calls.append(args)
        if len(calls) == at:
            signal.raise_signal(signal.SIGINT)
        return function(*args)

    return called


def test_a_bound_keeps_the_heads_near_their_start(problems, tmp_path):
    moved = []
    for name, weight in (("free", 0.0), ("bound", 3.0)):
        arguments = replace(SHORT, steps=10, keep_close=weight)
        train_on_rewards(ToyPolicy(), problems, tmp_path / name, arguments, progress=False)
        updates = json.loads((tmp_path / name / "training.json").read_text())["updates"]
        moved.append(abs(updates[-1]["temperature"] - 1.0))
    assert moved[1] < 0.5 * moved[0]


def test_a_loss_that_is_no_number_names_its_problem(problems, tmp_path, monkeypatch):
    policy = ToyPolicy()
    monkeypatch.setattr(policy, "logits", lambda hidden: hidden @ policy._matrix.T * torch.nan)
    with pytest.raises(InputError, match=r"the held-out loss is nan after 0 steps"):
        train_on_rewards(policy, problems, tmp_path, SHORT, progress=False)


def test_problems_that_teach_nothing_are_refused(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text('{"prompt": "1", "best": 99}\n{"prompt": "2", "best": 99}\n')
    with pytest.raises(InputError, match="no answer to any training problem is right"):
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
    beginnings = {answer.tokens[: t + 1] for answer in group for t in range(len(answer.tokens))}
    seen = {
        which: (hidden, policy.logits(hidden[None])[0])
        for rows, every in policy.states([(prompt, beginnings)])
        for hidden, which in zip(rows, every, strict=True)
    }
    assert seen.keys() == {(0, beginning) for beginning in beginnings}
    states = StateReader(open_base(smollm2, n_ctx=256, n_threads=1, n_threads_batch=1))
    for beginning in beginnings:
        ((_, hidden, logits),) = states.read([*prompt, *beginning[:-1]], [beginning[-1]])
        mine = seen[0, beginning]
        # quantized activations are rounded otherwise in batches of other sizes; another state is 100% off
        assert np.linalg.norm(mine[0].numpy() - hidden[0]) < 0.15 * np.linalg.norm(hidden[0])
        assert np.argsort(logits[0])[-1] in np.argsort(mine[1].numpy())[-3:]
    with pytest.raises(ValueError, match="drawn last"):
        list(policy.states([(prompt, [(0, 0)])]))
    assert policy.pieces(policy.prompt_ids(" Paris")[-1:]) == [" Paris"]


def test_the_command_trains_on_rewards(smollm2, tmp_path, capsys):
    path, ask = tmp_path / "problems.jsonl", "State the final answer to the following arithmetic problem: {} + 4 ="
    prompts = [[{"role": "user", "content": ask.format(i)}] for i in range(4)]
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    command = f"reward {smollm2} --problems {path} -o {tmp_path / 'heads'} --threads 1".split()
    command += ["--checker", "python:test_reward:length_score", "--max-tokens", "20", "--steps", "1", "--samples", "4"]
    command += ["--batch-problems", "2", "--validation-problems", "2"]
    assert cli.main(command) == 0
    shown = capsys.readouterr().out
    assert "low temperature" in shown
    assert "2 held-out problems" in shown
    Heads.from_pretrained(tmp_path / "heads")
    assert cli.main([*command, "--dtype", "float32"]) == 2
    assert "--dtype: has no meaning with --rollouts llama.cpp" in capsys.readouterr().err


def length_score(problem, text):  # named by python:test_reward:length_score
    return (1 + len(text) % 5) / 5
