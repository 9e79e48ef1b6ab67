"""Answers drawn through slots: each once, whatever the number of slots, with what was predicted and seen on the way."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from autodeco import Heads  # noqa: E402
from autodeco.export.control_ends import ControlEnds  # noqa: E402
from autodeco.hugging_face import kept_states, slots  # noqa: E402
from autodeco.hugging_face.decoder import Decoder  # noqa: E402
from autodeco.hugging_face.drawing import draw  # noqa: E402
from autodeco.hugging_face.kept_states import KeptStates  # noqa: E402
from autodeco.hugging_face.slots import Slots  # noqa: E402
from builders.transformers_models import PROMPTS, tiny, whole  # noqa: E402

MAX_TOKENS, SAMPLES, ENDS = 12, 3, torch.arange(20, 50)


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture(scope="module")
def heads():
    """Heads that differ from token to token."""
    heads = Heads(64)
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)) * 0.2)
    return heads


@pytest.fixture(scope="module")
def steering():
    """The same with a control head, which reads other levels at other prompts."""
    heads = Heads(64, control=ControlEnds(dead_zone=0.1))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return heads


def logits_of(model):
    matrix = model.network.get_output_embeddings().weight
    return lambda hidden: (6 * hidden @ matrix.t()).float()


def drawn(model, heads, rows=64, seed=3, prompts=PROMPTS, kept=None):
    decoder = Decoder(model, rows, max(map(len, prompts)) + MAX_TOKENS)
    found = Slots(decoder, logits_of(model), heads, prompts, SAMPLES, ENDS, MAX_TOKENS, seed, kept)
    answers = {answer.index: answer for answer in found}
    assert sorted(answers) == list(range(len(prompts) * SAMPLES))
    return answers


@pytest.mark.parametrize("rows", [1, 5])
def test_answers_depend_on_their_place_alone(model, heads, rows, monkeypatch):
    many, few = drawn(model, heads), drawn(model, heads, rows)
    for index, answer in many.items():
        np.testing.assert_array_equal(few[index].tokens, answer.tokens)
        for name in ("temperature", "top_p", "top_probability"):
            np.testing.assert_allclose(getattr(few[index], name), getattr(answer, name), rtol=1e-5)
    lengths = [len(answer.tokens) for answer in many.values()]
    assert min(lengths) < 4
    assert max(lengths) == MAX_TOKENS
    monkeypatch.setattr(slots, "PREFILL_TOKENS", 40)  # prompts in several passes
    again = drawn(model, heads, rows)
    assert all(np.array_equal(again[index].tokens, many[index].tokens) for index in many)


@pytest.mark.parametrize("rows", [2, 7])
def test_looking_late_changes_nothing(model, heads, rows, monkeypatch):
    """As on a GPU, where the host acts some steps after it has looked."""
    many = drawn(model, heads)
    monkeypatch.setattr(slots, "FEWEST_ROWS", 2)
    monkeypatch.setattr(Slots, "pace", lambda self: (3, 2))
    for index, answer in drawn(model, heads, rows).items():
        np.testing.assert_array_equal(answer.tokens, many[index].tokens)


def test_an_answer_ends_with_its_first_end(model, heads):
    ends = set(ENDS.tolist())
    for answer in drawn(model, heads).values():
        tokens = answer.tokens.tolist()
        assert not ends & set(tokens[:-1])
        assert tokens[-1] in ends or len(tokens) == MAX_TOKENS
        assert answer.tokens.dtype == np.int32
        assert answer.top_p.dtype == np.float32


def test_seeds_prompts_and_samples_differ(model, heads):
    one, other = drawn(model, heads, prompts=[PROMPTS[0]] * 2), drawn(model, heads, seed=4, prompts=[PROMPTS[0]] * 2)
    assert len({answer.tokens.tobytes() for answers in (one, other) for answer in answers.values()}) > 8


@pytest.mark.parametrize("kind", ["heads", "steering"])
def test_what_is_kept_is_what_was_seen(model, kind, request):
    heads = request.getfixturevalue(kind)
    kept = KeptStates(64, torch.float64, "cpu")
    answers = drawn(model, heads, rows=5, kept=kept)
    assert len(kept) == sum(len(answer.tokens) for answer in answers.values())
    for index, answer in answers.items():
        prompt, sample = divmod(index, SAMPLES)
        hidden = kept[answer.first_state + np.arange(len(answer.tokens))]
        seen = whole(model, [*PROMPTS[prompt], *answer.tokens[:-1].tolist()])[len(PROMPTS[prompt]) - 1 :]
        torch.testing.assert_close(hidden, seen, rtol=0, atol=1e-9)
        logits = logits_of(model)(seen)
        with torch.no_grad():
            level = heads.level(seen[:1].float())
            temperature, top_p = heads.steered(*heads(seen.float(), logits), level)
        np.testing.assert_allclose(answer.temperature, temperature, rtol=1e-5)
        np.testing.assert_allclose(answer.top_p, top_p, rtol=1e-5)
        np.testing.assert_allclose(answer.top_probability, logits.softmax(-1).amax(-1), rtol=1e-5)
        steps = torch.arange(len(logits))
        counters = torch.stack([torch.full_like(steps, prompt), torch.full_like(steps, sample), steps], -1).int()
        tokens = draw(logits, logits.amax(-1), temperature, top_p, 3, counters)
        assert tokens.tolist() == answer.tokens.tolist()


def test_the_level_of_an_answer_is_that_of_its_prompt(model, steering):
    """Whatever rows an answer is in, and moves to."""
    levels = []
    for prompt in PROMPTS:
        state = whole(model, list(prompt))[-1].float()
        levels.append(steering.level(state).item())
    assert len({np.sign(level) for level in levels}) > 1
    plain = drawn(model, steering.without_control(), prompts=PROMPTS)
    for rows in (3, 64):
        for index, answer in drawn(model, steering, rows).items():
            first, level = plain[index], torch.tensor(levels[index // SAMPLES])
            told = torch.tensor(first.temperature[0]), torch.tensor(first.top_p[0])
            steered = steering.steered(*told, level)
            assert answer.temperature[0] == pytest.approx(float(steered[0]), rel=1e-4)
            assert answer.top_p[0] == pytest.approx(float(steered[1]), rel=1e-4)


def test_states_are_numbered_through_pages(monkeypatch):
    monkeypatch.setattr(kept_states, "PAGE", 8)
    states = torch.arange(60.0).reshape(30, 2)
    kept = KeptStates(2, torch.float32, "cpu")
    firsts = [kept.append(part) for part in states.split([3, 10, 0, 11, 6])]
    assert firsts == [0, 3, 13, 13, 24]
    numbers = np.random.default_rng(0).permutation(30)
    assert torch.equal(kept[numbers], states[numbers])
    assert kept[np.array([], dtype=np.int64)].shape == (0, 2)
    for wrong in (-1, 30):
        with pytest.raises(IndexError, match="from 0 to 29"):
            kept[np.array([0, wrong])]
