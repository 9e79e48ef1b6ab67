"""Answers drawn by a Hugging Face model: the distribution, padding, the states kept, and training on them."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from scipy import stats  # noqa: E402

from autodeco import Heads, cli  # noqa: E402
from autodeco.errors import InputError  # noqa: E402
from autodeco.hugging_face.draw import draw  # noqa: E402
from autodeco.rewards import loop  # noqa: E402
from autodeco.rewards.arguments import RewardArguments  # noqa: E402
from autodeco.rewards.hugging_face import HuggingFacePolicy  # noqa: E402
from autodeco.rewards.llama import LlamaPolicy  # noqa: E402
from autodeco.rewards.loop import train_on_rewards  # noqa: E402
from hf_folders import write_smollm2  # noqa: E402
from test_reward import interrupting  # noqa: E402
from test_train import weights  # noqa: E402

TINY = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TINY |= {"num_key_value_heads": 2, "head_dim": 12, "vocab_size": 49152, "tie_word_embeddings": False}
ARGUMENTS = RewardArguments(
    checker="python:test_hugging_face_policy:ended",
    rollouts="hugging-face",
    dtype="float32",
    steps=8,
    batch_problems=4,
    samples=8,
    max_tokens=1,
    learning_rate=2e-2,
    warmup_steps=1,
    validation_problems=4,
    evaluate_every=4,
    slots=64,
)


def ended(problem, text):
    """Every answer that came to its end is right."""
    return 1.0


@pytest.fixture(scope="module")
def folder(smollm2, tmp_path_factory):
    """A random model with SmolLM2's tokenizer, whose logits are wide enough to tell tokens apart."""
    path = tmp_path_factory.mktemp("policy") / "tiny"
    write_smollm2(smollm2, path, with_weights=False)
    config = transformers.AutoConfig.from_pretrained(path)
    config.update(TINY)
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight.normal_(std=0.5)
    model.save_pretrained(path)
    return path


def policy_of(folder, max_tokens=6, slots=64):
    return HuggingFacePolicy(folder, max_tokens, slots, "cpu", "float32")


def varied_heads(size):
    """Heads that differ from token to token."""
    heads = Heads(size)
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)) * 0.2)
    return heads


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.8), (1.6, 0.35), (1.0, 0.0)])
def test_tokens_are_drawn_from_the_nucleus(temperature, top_p):
    """Counts of 40,000 draws against the probabilities of a sorted nucleus; logits have ties."""
    rng, n = np.random.default_rng(0), 40_000
    z = np.round(rng.standard_normal(60) * 2, 1).astype(np.float32)
    p = np.exp(z.astype(np.float64) / temperature)
    p /= p.sum()
    order = np.argsort(-z, kind="stable")
    inside = order[np.concatenate([[0.0], p[order].cumsum()[:-1]]) < max(top_p, 1e-9)]
    expected = np.zeros(60)
    expected[inside] = p[inside] / p[inside].sum()
    full = torch.full((n,), temperature), torch.full((n,), top_p)
    tokens = draw(torch.from_numpy(z).expand(n, -1), *full, torch.from_numpy(rng.random((n, 2), dtype=np.float32)))
    counts = np.bincount(tokens.numpy(), minlength=60)
    assert counts[expected == 0].sum() == 0
    if len(inside) > 1:
        assert stats.chisquare(counts[inside], expected[inside] * n).pvalue > 1e-3


def test_greedy_takes_the_likeliest_and_temperatures_are_per_row():
    z = torch.tensor([[0.0, 1.0, 3.0], [5.0, 5.0, 1.0], [0.0, 0.0, 9.0]])
    tokens = draw(z, torch.tensor([0.0, 1e-6, 2.0]), torch.tensor([1.0, 1.0, 1e-6]), torch.full((3, 2), 0.999))
    assert tokens.tolist() == [2, 0, 2]


def test_padding_changes_nothing(folder):
    policy = policy_of(folder, slots=7)
    prompts = [policy.prompt_ids(text) for text in ("a", "The capital of France is", "one two three four five " * 8)]
    heads = varied_heads(48)
    together = policy.sample(prompts, 5, heads, seed=3)
    alone = policy_of(folder).sample(prompts[:1], 5, heads, seed=3)
    for one, other in zip(together[0], alone[0], strict=True):
        assert one.tokens == other.tokens
        assert one.text == other.text
        np.testing.assert_allclose(one.temperature, other.temperature, rtol=1e-4)
        np.testing.assert_allclose(one.top_p, other.top_p, rtol=1e-4)
    assert len({answer.tokens for answer in together[0]}) > 1
    assert policy.sample(prompts, 5, heads, seed=3)[2][4].tokens == together[2][4].tokens
    assert policy.sample(prompts, 5, heads, seed=4)[2] != together[2]


def test_kept_states_and_predictions_are_those_of_a_whole_pass(folder):
    policy, heads = policy_of(folder), varied_heads(48)
    prompts = [policy.prompt_ids(text) for text in ("to be or", "a b c d e f g h i j k l m n o p")]
    groups = policy.sample(prompts, 6, heads, seed=0)
    wanted = [
        (prompt, {answer.tokens[: t + 1] for answer in group for t in range(len(answer.tokens))})
        for prompt, group in zip(prompts, groups, strict=True)
    ]
    network, seen = policy._frozen.language_model, {}
    for hidden, which in policy.states(wanted):
        logits = policy.logits(hidden)
        for row, key in enumerate(which):
            assert key not in seen
            seen[key] = hidden[row], logits[row]
    assert seen.keys() == {(index, edge) for index, (_, edges) in enumerate(wanted) for edge in edges}
    for index, (prompt, group) in enumerate(zip(prompts, groups, strict=True)):
        for answer in group:
            with torch.no_grad():
                whole = network(input_ids=torch.tensor([[*prompt, *answer.tokens[:-1]]])).logits[0, len(prompt) - 1 :]
            hidden, logits = (
                torch.stack(part)
                for part in zip(*(seen[index, answer.tokens[: t + 1]] for t in range(len(answer.tokens))), strict=True)
            )
            torch.testing.assert_close(torch.log_softmax(logits, -1), torch.log_softmax(whole, -1), rtol=0, atol=2e-3)
            with torch.no_grad():
                temperature, top_p = heads(hidden, logits)
            np.testing.assert_allclose(answer.temperature, temperature, rtol=1e-3)
            np.testing.assert_allclose(answer.top_p, top_p, rtol=1e-3)


def test_what_cannot_be_decoded_is_refused(folder, tmp_path):
    policy = policy_of(folder)
    with pytest.raises(InputError, match="no tokens"):
        policy.sample([[5], []], 1, varied_heads(48), seed=0)
    with pytest.raises(InputError, match="8187 tokens, with 6 for the answer more than the 8192"):
        policy.sample([[5] * 8187], 1, varied_heads(48), seed=0)
    config = transformers.MistralConfig(**TINY, sliding_window=40)
    transformers.MistralForCausalLM(config).save_pretrained(tmp_path)
    for file in folder.glob("tokenizer*"):
        shutil.copy(file, tmp_path)
    policy = policy_of(tmp_path)
    with pytest.raises(InputError, match="draw with llama"):
        policy.sample([[5] * 30], 1, varied_heads(48), seed=0)


def test_answers_end_with_the_end_of_the_turn(folder):
    policy = policy_of(folder, max_tokens=4)
    assert policy.pieces(sorted(policy._tokenizer.ends)) == ["<|im_end|>"]
    end = next(iter(policy._tokenizer.ends))

    def always_end(hidden, logits):
        logits[:, end] = 1e4
        return torch.ones(len(logits)), torch.ones(len(logits))

    ((answer,),) = policy.sample([policy.prompt_ids("a")], 1, always_end, seed=0)
    assert (answer.tokens, answer.text, answer.finished) == ((end,), "", True)


@pytest.mark.slow
def test_a_gguf_is_the_model_that_llama_cpp_runs(smollm2):
    """The same prompt ids and fingerprint, and an answer that rounding does not change."""
    theirs = LlamaPolicy(smollm2, max_tokens=1, slots=1, device="cpu", threads=1)
    ours = HuggingFacePolicy(smollm2, 1, 1, "cpu", "float32")
    assert ours.model.fingerprint == theirs.model.fingerprint
    for ask in ("The capital of France is", [{"role": "user", "content": "What is 14 + 357?"}]):
        assert ours.prompt_ids(ask) == theirs.prompt_ids(ask)
    heads = Heads(576)
    with torch.no_grad():
        heads.temp_head.mlp[2].bias.fill_(-8)  # T 0.0007
    prompt = ours.prompt_ids("The capital of France is")
    assert [policy.sample([prompt], 1, heads, 0)[0][0].text for policy in (ours, theirs)] == [" Paris", " Paris"]


WORDS = ["red", "green", "blue", "white", "black", "north", "south", "east"]


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    path = tmp_path_factory.mktemp("policy") / "problems.jsonl"
    path.write_text("".join(json.dumps({"prompt": word}) + "\n" for word in WORDS))
    return path


def one_token_policy(folder):
    """A policy whose answers are one token, and at their end with the likeliest ones: the lower T, the more often."""
    policy = policy_of(folder, 1)
    with torch.no_grad():
        for word in WORDS:
            logits = policy._frozen.language_model(torch.tensor([policy.prompt_ids(word)])).logits[0, -1]
            policy._tokenizer.ends |= set(logits.topk(5).indices.tolist())
    policy._ends = torch.tensor(sorted(policy._tokenizer.ends))
    return policy


def test_reward_rises(folder, problems, tmp_path):
    result = train_on_rewards(one_token_policy(folder), problems, tmp_path, ARGUMENTS, progress=False)
    sampled = json.loads((tmp_path / "training.json").read_text())["sampled_reward"]
    assert sampled["after"] > sampled["before"] + 0.2
    assert result.after.reward > result.before.reward + 0.1
    assert result.after.temperature < result.before.temperature


def test_an_interrupted_run_resumes_to_the_same_heads(folder, problems, tmp_path, monkeypatch):
    arguments = replace(ARGUMENTS, steps=4, evaluate_every=2)
    whole = train_on_rewards(one_token_policy(folder), problems, tmp_path / "whole", arguments, progress=False)
    monkeypatch.setattr(loop, "_learning_rate", interrupting(loop._learning_rate, 3))
    run = problems, tmp_path / "part", arguments
    assert train_on_rewards(one_token_policy(folder), *run, progress=False).interrupted
    monkeypatch.undo()
    resumed = train_on_rewards(one_token_policy(folder), *run, resume=True, progress=False)
    assert resumed.history == whole.history
    for name, tensor in weights(tmp_path / "whole").items():
        assert torch.equal(weights(tmp_path / "part")[name], tensor), name


def test_the_command_draws_answers_with_transformers(folder, tmp_path, capsys):
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{i} + 1 ="}) + "\n" for i in range(4)))
    command = f"reward {folder} --rollouts hugging-face --problems {path}".split()
    command += f"-o {tmp_path / 'heads'} --dtype float32 --checker python:test_reward:length_score".split()
    command += ["--max-tokens", "2", "--steps", "1", "--samples", "4", "--batch-problems", "2"]
    assert cli.main(command) == 2
    assert "there is nothing to learn from" in capsys.readouterr().err
