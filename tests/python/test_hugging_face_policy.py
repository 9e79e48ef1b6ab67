"""A Hugging Face model as a policy: its answers, the states and logits behind them, and what it refuses."""

import json
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from autodeco import Heads  # noqa: E402
from autodeco.errors import InputError  # noqa: E402
from autodeco.hugging_face.decoder import Decoder  # noqa: E402
from autodeco.hugging_face.model import HuggingFaceModel  # noqa: E402
from autodeco.rewards import hugging_face  # noqa: E402
from autodeco.rewards.hugging_face import HuggingFacePolicy  # noqa: E402
from builders.hf_folders import TINY, write_tiny_smollm2  # noqa: E402


@pytest.fixture(scope="module")
def folder(smollm2, tmp_path_factory):
    path = tmp_path_factory.mktemp("policy") / "tiny"
    write_tiny_smollm2(smollm2, path)
    return path


def policy_of(folder, max_tokens=5, slots=4):
    return HuggingFacePolicy(folder, max_tokens, slots, "cpu", "float32")


def varied_heads():
    """Heads that differ from token to token."""
    heads = Heads(48)
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)) * 0.2)
    return heads


def fixed(hidden, logits):
    return torch.full((len(logits),), 0.7), torch.full((len(logits),), 0.9)


@pytest.mark.parametrize("heads", [varied_heads(), fixed], ids=["heads", "fixed"])
def test_states_logits_and_predictions_are_those_of_a_whole_pass(folder, heads):
    model = HuggingFaceModel(folder, "float32")
    policy = policy_of(model)
    prompts = [policy.prompt_ids(text) for text in ("to be or", "a b c d e f g h i j k l m n o p")]
    told = []
    groups = policy.sample(prompts, 3, heads, 0, ended=lambda *of: told.append(of))
    assert sorted((prompt, sample) for prompt, sample, _ in told) == [(i, j) for i in range(2) for j in range(3)]
    assert all(groups[prompt][sample] is answer for prompt, sample, answer in told)
    numbers = np.concatenate([answer.states for group in groups for answer in group])
    assert sorted(numbers) == list(range(len(numbers)))
    for prompt, group in zip(prompts, groups, strict=True):
        for answer in group:
            with torch.no_grad():
                whole = model.network(torch.tensor([[*prompt, *answer.tokens[:-1].tolist()]]))
            hidden = policy.states(answer.states)
            logits = policy.logits(hidden)
            torch.testing.assert_close(logits, whole.logits[0, len(prompt) - 1 :], rtol=0, atol=2e-4)
            with torch.no_grad():
                temperature, top_p = heads(hidden, logits)
            np.testing.assert_allclose(answer.temperature, temperature, rtol=1e-3)
            np.testing.assert_allclose(answer.top_p, top_p, rtol=1e-3)
            np.testing.assert_allclose(answer.top_probability, logits.softmax(-1).amax(-1), rtol=1e-3)
            assert answer.text == "".join(policy.token_texts(answer.tokens.tolist()[: -1 if answer.finished else None]))


def test_an_answer_depends_on_its_prompts_number_whatever_is_drawn_beside_it(folder):
    policy = policy_of(folder)
    whole = policy.sample([[5, 6], [7], [8, 9, 10]], 3, fixed, 1, numbers=[4, 0, 9])
    (part,) = policy.sample([[8, 9, 10]], 3, fixed, 1, numbers=[9])
    assert [answer.tokens.tolist() for answer in part] == [answer.tokens.tolist() for answer in whole[2]]
    (other,) = policy.sample([[8, 9, 10]], 3, fixed, 1)
    assert [answer.tokens.tolist() for answer in part] != [answer.tokens.tolist() for answer in other]


def test_states_are_kept_of_the_last_draw_alone(folder):
    policy = policy_of(folder, max_tokens=2)
    assert policy.context == json.loads((folder / "config.json").read_text())["max_position_embeddings"]
    policy.sample([[5, 6], [7]], 2, fixed, 0)
    before = policy.states(np.arange(8))
    policy.sample([[9]], 1, fixed, 0)
    assert not torch.equal(policy.states(np.arange(2)), before[:2])
    with pytest.raises(IndexError, match="from 0 to 1"):
        policy.states(np.array([2]))
    ((answer,),) = policy.sample([[9]], 1, fixed, 0, keep_states=False)
    assert answer.states.tolist() == []
    assert len(answer.tokens) == 2
    with pytest.raises(IndexError):
        policy.states(np.array([0]))


def test_a_decoder_is_made_again_for_longer_prompts_alone(folder, monkeypatch):
    policy, made = policy_of(folder, max_tokens=2), []
    monkeypatch.setattr(hugging_face, "Decoder", lambda *given: made.append(given) or Decoder(*given))
    (first,) = policy.sample([[5, 6]], 2, fixed, 3)
    assert len(made) == 1
    policy.sample([[7] * 30] * 3, 2, fixed, 4)
    assert len(made) == 1
    policy.sample([[7] * 100], 1, fixed, 4)
    assert len(made) == 2
    (again,) = policy.sample([[5, 6]], 2, fixed, 3)
    assert [answer.tokens.tolist() for answer in again] == [answer.tokens.tolist() for answer in first]
    assert policy.sample([], 2, fixed, 3) == []
    assert policy.sample([[5]], 0, fixed, 3) == [[]]


def test_what_cannot_be_decoded_is_refused(folder, tmp_path):
    policy = policy_of(folder)
    with pytest.raises(InputError, match="no tokens"):
        policy.sample([[5], []], 1, fixed, seed=0)
    with pytest.raises(InputError, match="8188 tokens, with 5 for the answer more than the 8192"):
        policy.sample([[5] * 8188], 1, fixed, seed=0)
    config = transformers.MistralConfig(**TINY, sliding_window=40)
    transformers.MistralForCausalLM(config).save_pretrained(tmp_path)
    for file in folder.glob("tokenizer*"):
        shutil.copy(file, tmp_path)
    with pytest.raises(InputError, match="draw with llama"):
        policy_of(tmp_path).sample([[5] * 60], 1, fixed, seed=0)


def test_logits_that_are_no_numbers_are_refused(folder, monkeypatch):
    policy = policy_of(folder)
    monkeypatch.setattr(policy, "logits", lambda hidden: torch.full((len(hidden), 49152), torch.nan))
    with pytest.raises(InputError, match="tiny: it gives logits that are not numbers"):
        policy.sample([[5]], 1, fixed, seed=0)


def test_answers_end_with_the_end_of_the_turn(folder):
    model = HuggingFaceModel(folder, "float32")
    policy = policy_of(model)
    assert policy.token_texts(sorted(model.tokenizer.ends)) == ["<|im_end|>"]
    end = next(iter(model.tokenizer.ends))

    def always_end(hidden, logits):
        logits[:, end] = 1e4
        return torch.ones(len(logits)), torch.ones(len(logits))

    ((answer,),) = policy.sample([policy.prompt_ids("a")], 1, always_end, seed=0)
    assert (answer.tokens.tolist(), answer.text, answer.finished) == ([end], "", True)


@pytest.mark.slow
def test_a_gguf_is_the_model_that_llama_cpp_runs(smollm2):
    """The same prompt ids and fingerprint, and an answer that rounding does not change."""
    from autodeco.rewards.llama import LlamaPolicy

    theirs = LlamaPolicy(smollm2, max_tokens=1, slots=1, device="cpu", threads=1)
    ours = HuggingFacePolicy(smollm2, 1, 1, "cpu", "float32")
    assert ours.identity.fingerprint == theirs.identity.fingerprint
    for ask in ("The capital of France is", [{"role": "user", "content": "What is 14 + 357?"}]):
        assert ours.prompt_ids(ask) == theirs.prompt_ids(ask)
    heads = Heads(576)
    with torch.no_grad():
        heads.temp_head.mlp[2].bias.fill_(-8)  # T 0.0007
    prompt = ours.prompt_ids("The capital of France is")
    assert [policy.sample([prompt], 1, heads, 0)[0][0].text for policy in (ours, theirs)] == [" Paris", " Paris"]
