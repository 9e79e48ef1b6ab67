"""The level of an answer: what the control head reads at its first state steers every token, wherever it is drawn."""

import json
import pickle
import subprocess
from dataclasses import replace
from itertools import chain, islice

import llama_cpp
import numpy as np
import pytest

import autodeco
from autodeco import features, native
from autodeco.base.states import StateReader, open_stateful
from autodeco.batch import Sampling, generate, requests, shared
from autodeco.errors import InputError
from autodeco.export.checkpoint import read_heads
from autodeco.export.control_ends import ControlEnds
from autodeco.export.head_tensors import head_tensors
from autodeco.export.layout import open_layout
from autodeco.export.writer import write_embedded, write_merged, write_sidecar
from autodeco.llama.decoding import Decoding
from builders.compiled import compiled
from builders.questions import QUESTIONS, in_order
from builders.random_heads import write_random_heads
from builders.tiny_llama import VOCAB, write_llama

ENDS = ControlEnds(0.2, 1.25, 0.5, 0.95, 0.05)
NEVER = ControlEnds(0.2, 1.25, 0.5, 0.95, 0.9999)  # all levels are within its dead zone
OPTIONS = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1, "verbose": False}
PROMPTS = [[3, 14, 15, 9, 2, 65], [7, 8, 9], [90, 5, 31, 30], [9] * 10]
LENGTH = 12


def keep(input_ids, logits):
    """A logits processor that changes nothing, and so forces the draw onto the host."""
    return logits


HOST = {"logits_processor": llama_cpp.LogitsProcessorList([keep])}


def level_of(heads, hidden) -> np.ndarray:
    """The formula, in float64."""
    weights = {part: heads.tensors[f"control_head.mlp.{part}"].astype(float) for part in ("0.weight", "2.weight")}
    biases = {part: heads.tensors[f"control_head.mlp.{part}"].astype(float) for part in ("0.bias", "2.bias")}
    inner = np.maximum(hidden @ weights["0.weight"].T + biases["0.bias"], 0)
    raw = 2 / (1 + np.exp(-(inner @ weights["2.weight"].T + biases["2.bias"])))[..., 0] - 1
    dead = heads.control.dead_zone
    return np.sign(raw) * np.maximum(np.abs(raw) - dead, 0) / (1 - dead)


def steered(ends: ControlEnds, temperature, top_p, level) -> tuple[np.ndarray, np.ndarray]:
    cold, hot = max(-level, 0), max(level, 0)
    return (
        temperature * (1 - cold * (1 - ends.low_temperature_factor))
        + hot * np.maximum(ends.high_temperature - temperature, 0),
        top_p * (1 - cold * (1 - ends.low_top_p_factor)) + hot * np.maximum(ends.high_top_p - top_p, 0),
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model, and heads for it that predict the same: without a control head, with one, and with one that is never
    heard."""
    folder = tmp_path_factory.mktemp("levels")
    model = write_llama(folder / "llama.gguf")
    heads = {"control": ENDS, "never": NEVER}
    paths = {name: write_random_heads(folder / f"{name}.gguf", model, control=ends) for name, ends in heads.items()}
    return {"model": model, "plain": without_control(folder / "plain.gguf", paths["control"], model)} | paths


def without_control(path, heads, model):
    """The heads of a file without their control head, in version 1 of the schema."""
    found = read_heads(heads)
    kept = {name: array for name, array in found.tensors.items() if not name.startswith("control")}
    write_sidecar(path, head_tensors(replace(found, tensors=kept, control=None), "f32"), open_layout(model))
    assert open_layout(path).gguf.u32("autodeco.version") == 1
    return path


@pytest.fixture(scope="module")
def states(files):
    """states(prompt, ids): hidden states and logits that the tokens ``ids`` are drawn from behind ``prompt``."""
    llm = open_stateful(files["model"], n_ctx=256, n_threads=1, n_threads_batch=1)

    def read(prompt, ids):
        llm.reset()
        steps = [(hidden.copy(), logits.copy()) for _, hidden, logits in StateReader(llm).read(prompt, ids)]
        return tuple(np.concatenate(parts) for parts in zip(*steps, strict=True))

    yield read
    llm.close()


@pytest.fixture(scope="module")
def expected(files, states):
    """expected(prompt, decoding, level): temperature and top-p of every token, by the formulas."""

    def values(prompt, decoding, level=None):
        hidden, logits = states(prompt, decoding.token.tolist())
        level = level_of(read_heads(files["control"]), hidden)[0] if level is None else level
        return steered(ENDS, *native.predict(files["control"], hidden, logits), level)

    return values


@pytest.fixture(scope="module")
def llm(files):
    llm = autodeco.Llama(str(files["model"]), files["control"], **OPTIONS)
    yield llm
    llm.close()


def draw(llm, prompt, length=LENGTH, **settings):
    llm.set_seed(5)
    generation = llm.generate(prompt, **settings)
    tokens = list(islice(generation, length))
    generation.close()
    assert llm.decoding.token.tolist() == tokens
    return llm.decoding


def check(decoding, values, close=1e-4):
    np.testing.assert_allclose(decoding.temperature, values[0], rtol=close)
    np.testing.assert_allclose(decoding.top_p, values[1], rtol=close)


@pytest.mark.parametrize(("kind", "close"), [("f32", 1e-6), ("f16", 1e-2), ("bf16", 5e-2), ("q8_0", 5e-2)])
def test_levels_are_those_of_the_formula(tmp_path, files, kind, close):
    hidden = np.random.default_rng(2).standard_normal((50, 64)).astype(np.float32)
    path = write_random_heads(tmp_path / "heads.gguf", files["model"], control=ENDS, weight_type=kind)
    levels, wanted = native.levels(path, hidden), level_of(read_heads(path), hidden)
    assert levels.dtype == np.float32
    np.testing.assert_allclose(levels, wanted, atol=1e-6)
    np.testing.assert_allclose(levels, level_of(read_heads(files["control"]), hidden), atol=close)
    assert (levels == 0).any(), "none of them is within the dead zone"
    assert levels.min() < -0.5
    assert levels.max() > 0.5


def test_other_layouts_read_the_same_levels(tmp_path, files):
    hidden = np.random.default_rng(2).standard_normal((9, 64)).astype(np.float32)
    tensors, base = head_tensors(read_heads(files["control"]), "f32"), open_layout(files["model"])
    write_merged(tmp_path / "merged.gguf", tensors, base)
    write_embedded(tmp_path / "embedded.gguf", tensors, base)
    for name in ("merged", "embedded"):
        np.testing.assert_array_equal(
            native.levels(tmp_path / f"{name}.gguf", hidden), native.levels(files["control"], hidden)
        )


def test_heads_without_a_control_head_read_no_level(files):
    assert native.levels(files["plain"], np.ones((3, 64))).tolist() == [0, 0, 0]
    heads = native.load_heads(files["plain"])
    assert (heads.has_control, native.load_heads(files["control"]).has_control) == (False, True)
    assert [values.tolist() for values in heads.steered([0.75, 1.0], [0.5, 0.25], -1.0)] == [[0.75, 1.0], [0.5, 0.25]]


@pytest.mark.parametrize(
    ("hidden", "message"),
    [(np.ones((2, 63)), "expected hidden"), (np.ones(64), "expected hidden"), (np.full((2, 64), np.nan), "holds NaN")],
)
def test_states_that_levels_cannot_be_read_from_are_refused(files, hidden, message):
    with pytest.raises(ValueError, match=message):
        native.levels(files["control"], hidden)


def test_what_heads_predict_does_not_know_of_the_control_head(files):
    random = np.random.default_rng(4)
    arrays = random.standard_normal((20, 64)), random.standard_normal((20, VOCAB)) * 3
    for one, other in zip(
        native.predict(files["control"], *arrays), native.predict(files["plain"], *arrays), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_draws_from_rows_are_steered_by_the_level_that_they_are_given_or_read(files):
    random = np.random.default_rng(4)
    hidden, logits = (random.standard_normal(shape).astype(np.float32) for shape in ((4, 64), (4, VOCAB)))
    rows = np.repeat(np.arange(4), 3)
    given = np.tile(np.array([np.nan, -0.5, 1.0], np.float32), 4)
    heads, n = native.load_heads(files["control"]), len(rows)
    setting = [1.0] * n, [1.0] * n, [True] * n, [True] * n, random.random(n)
    tokens, t, p, levels = native.draw_from_rows(heads, hidden, logits, rows, *setting, level=given)
    read = native.levels(files["control"], hidden)
    np.testing.assert_array_equal(levels, np.where(np.isnan(given), read[rows], given))
    predicted = native.predict(files["control"], hidden, logits)
    for i in range(n):
        wanted = steered(ENDS, *(values[rows[i]] for values in predicted), levels[i])
        np.testing.assert_allclose((t[i], p[i]), wanted, rtol=1e-6)
    np.testing.assert_array_equal(tokens, native.nucleus_sample(logits, t, p, setting[-1], rows))
    unsteered = native.draw_from_rows(heads, hidden, logits, rows, *setting, level=[0.0] * n)
    plain = native.draw_from_rows(native.load_heads(files["plain"]), hidden, logits, rows, *setting, level=given)
    for one, other in zip(unsteered[:3], plain[:3], strict=True):
        np.testing.assert_array_equal(one, other)
    settings_alone = native.draw_from_rows(
        None, hidden, logits, rows, *setting[:2], [False] * n, [False] * n, setting[-1]
    )
    assert np.isnan(settings_alone[3]).all()
    with pytest.raises(ValueError, match="row 1: level is outside"):
        native.draw_from_rows(heads, hidden, logits, rows, *setting, level=[0.0, 1.5] + [0.0] * (n - 2))


@pytest.mark.parametrize("settings", [{}, HOST], ids=["in the graph", "on the host"])
def test_a_whole_generation_is_steered_by_its_first_state(llm, expected, settings):
    levels = []
    for prompt in PROMPTS:
        decoding = draw(llm, prompt, **settings)
        check(decoding, expected(prompt, decoding))
        levels.append(np.ptp(decoding.temperature - expected(prompt, decoding, 0.0)[0]))
    assert max(levels) > 0.05, "no generation is steered"


@pytest.mark.parametrize("settings", [{}, HOST], ids=["in the graph", "on the host"])
def test_contexts_that_tell_every_state_steer_the_same(files, llm, settings):
    every = autodeco.Llama(str(files["model"]), files["control"], logits_all=True, **OPTIONS)
    for prompt in PROMPTS:
        llm.reset()
        decoding = draw(llm, prompt, **settings)
        found = draw(every, prompt, **settings)
        assert found.token.tolist() == decoding.token.tolist()
        check(found, (decoding.temperature, decoding.top_p))
    every.level = -1.0
    llm.level = -1.0
    check(draw(every, PROMPTS[0]), (draw(llm, PROMPTS[0]).temperature, llm.decoding.top_p))
    llm.level = None
    every.close()


def test_a_level_within_the_dead_zone_and_a_level_of_0_change_no_bit(files, llm):
    plain, never = (autodeco.Llama(str(files["model"]), files[name], **OPTIONS) for name in ("plain", "never"))
    llm.level = 0.0
    for prompt in PROMPTS:
        llm.reset()
        wanted = draw(plain, prompt).to_dict()
        assert draw(never, prompt).to_dict() == wanted
        assert draw(llm, prompt).to_dict() == wanted
    llm.level = None
    assert draw(llm, PROMPTS[0]).to_dict() != draw(plain, PROMPTS[0]).to_dict()
    plain.close()
    never.close()


@pytest.mark.parametrize("settings", [{}, HOST], ids=["in the graph", "on the host"])
@pytest.mark.parametrize("level", [-1, 1.0, -0.25])
def test_a_level_that_is_set_takes_the_place_of_the_one_that_is_read(llm, expected, level, settings):
    llm.level = level
    assert llm.level == level
    decoding = draw(llm, PROMPTS[0], **settings)
    llm.level = None
    check(decoding, expected(PROMPTS[0], decoding, level))
    check(draw(llm, PROMPTS[0], **settings), expected(PROMPTS[0], llm.decoding))


@pytest.mark.parametrize("level", [1.01, -2, float("nan"), "hot", True])
def test_a_level_that_is_none_is_refused(llm, level):
    with pytest.raises(InputError, match="level"):
        llm.level = level
    assert llm.level is None


def test_a_copy_of_a_model_keeps_the_level_that_was_set(llm):
    llm.level = 0.5
    copy = pickle.loads(pickle.dumps(llm))
    llm.level = None
    assert copy.level == 0.5
    copy.close()


def test_a_generation_that_continues_a_text_reads_a_level_of_its_own(llm, expected):
    first = draw(llm, PROMPTS[0])
    state = llm.save_state()
    more = [*PROMPTS[0], *first.token.tolist(), 17]
    second = draw(llm, more)
    check(second, expected(more, second))
    llm.load_state(state)
    again = draw(llm, more)
    assert again.token.tolist() == second.token.tolist()
    check(again, expected(more, again))


def test_tokens_that_are_sampled_by_hand_are_steered(llm, expected):
    llm.reset()
    llm.eval(PROMPTS[1])
    for level in (None, 1.0, None, -0.5):  # set between the decode and the draw
        llm.level = level
        llm.sample()
        last = Decoding.from_rows([llm.last_decoding])
        check(last, expected(PROMPTS[1], last, level))
    llm.level = None
    llm.reset()
    llm.eval(PROMPTS[2])
    llm.sample()
    last = Decoding.from_rows([llm.last_decoding])
    check(last, expected(PROMPTS[2], last))


@pytest.mark.skipif(not features.SEVERAL_OUTPUTS, reason="llama.cpp draws from one output of a text at a time")
@pytest.mark.parametrize("settings", [{}, HOST], ids=["in the graph", "on the host"])
@pytest.mark.parametrize("tokens_a_graph", [512, 2])
def test_drafts_change_no_level(files, llm, settings, tokens_a_graph):
    text = []

    def guess(input_ids, /, **kwargs):
        """The text behind the prompt, of which every third token is wrong."""
        begin = len(input_ids) - len(PROMPTS[0])
        return np.array([(token + i % 3 // 2) % VOCAB for i, token in enumerate(text[begin : begin + 5])], np.intc)

    llm.reset()
    wanted = draw(llm, PROMPTS[0], 40, temp=0.0, **settings)
    text += wanted.token.tolist()
    cut = {"draft_model": guess, "n_ubatch": tokens_a_graph}
    drafted = autodeco.Llama(str(files["model"]), files["control"], **cut, **OPTIONS)
    found = draw(drafted, PROMPTS[0], 40, temp=0.0, **settings)
    assert found.token.tolist() == wanted.token.tolist()
    assert drafted.drafting.accepted > 10
    check(found, (wanted.temperature, wanted.top_p))
    drafted.close()


@pytest.mark.parametrize("kind", ["in the graph", "shared"])
def test_answers_of_a_batch_are_steered_each_by_its_own_prompt(files, llm, expected, kind):
    """As many prompts as wait for a slot that another answer has left."""
    heads = native.load_heads(files["control"])
    if kind == "shared":
        answers = shared.answer(llm, requests(llm, PROMPTS, 3, Sampling(1.5), LENGTH, seed=2), heads, 3)
    else:
        answers = generate(llm, PROMPTS, 3, Sampling(1.5), max_tokens=LENGTH, seed=2, slots=3)
    answers = in_order(answers)
    assert len({tuple(answer.decoding.token) for answer in answers}) > 6, "the answers are too alike to test anything"
    for answer in answers:
        # a batch goes through other kernels, which round differently
        check(answer.decoding, expected(PROMPTS[answer.prompt], answer.decoding), 1e-3)


def test_a_batch_and_a_llama_draw_the_same_tokens(smollm2, steered_smollm2):
    """With the same random numbers, one slot, and the same way of decoding."""
    options = {"n_ctx": 512, "n_threads": 1, "n_threads_batch": 1, "flash_attn": True, "verbose": False}
    llm = autodeco.Llama(str(smollm2), steered_smollm2, **options)
    wanted = requests(llm, QUESTIONS[:3], 1, Sampling(2.0, 2.0), 16, seed=4)
    answers = in_order(autodeco.batch.answer(llm, wanted, slots=1))
    for request, answer in zip(wanted, answers, strict=True):
        llm.reset()
        llm.eval(list(request.prompt[:-1]))
        llm.set_seed(request.seed)
        generation = llm.generate(list(request.prompt), temp=2.0, top_p=2.0)
        tokens = list(islice(generation, len(answer.decoding)))
        generation.close()
        assert tokens == answer.decoding.token.tolist()
        np.testing.assert_allclose(llm.decoding.temperature, answer.decoding.temperature, rtol=1e-4)
        np.testing.assert_allclose(llm.decoding.top_p, answer.decoding.top_p, rtol=1e-4)
    llm.close()


@pytest.fixture(scope="module")
def steered_smollm2(smollm2, tmp_path_factory):
    path = tmp_path_factory.mktemp("smollm2") / "heads.gguf"
    return write_random_heads(path, smollm2, control=ENDS, control_scale=0.5)


def test_requests_to_a_server_each_have_the_level_of_their_prompt(smollm2, steered_smollm2):
    from autodeco.serve.served_llama import ServedLlama
    from builders.serving import TEXT, serving

    llm = ServedLlama(str(smollm2), steered_smollm2, n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False)
    told = {}
    with serving(llm) as client:
        for text in ("Once upon a time,", "The answer is", "Once upon a time,"):
            asked = {"prompt": text, "max_tokens": 8, "seed": 3, "autodeco": {"values": True}}
            told.setdefault(text, []).append(client.json(TEXT, asked)["choices"][0]["autodeco"])
        assert client.json("/props")["autodeco"]["control"] is True
    for text, found in told.items():
        llm.reset()
        wanted = llm.create_completion(text, max_tokens=8, seed=3, autodeco=True)["choices"][0]["autodeco"]
        for values in found:
            assert values["token"][0] == wanted["token"][0]
            np.testing.assert_allclose(values["temperature"][0], wanted["temperature"][0], rtol=2e-2)
    llm.level = 0.0
    firsts = [llm.create_completion(text, max_tokens=1, autodeco=True)["choices"][0]["autodeco"] for text in told]
    moved = [
        one["temperature"][0] - found[0]["temperature"][0] for one, found in zip(firsts, told.values(), strict=True)
    ]
    assert np.ptp(moved) > 0.02, "the prompts have the same level"
    llm.close()


def test_answers_that_a_policy_samples_are_steered(smollm2, steered_smollm2):
    torch = pytest.importorskip("torch")
    from autodeco.heads import Heads
    from autodeco.rewards.llama import LlamaPolicy

    policy = LlamaPolicy(smollm2, max_tokens=6, slots=4, device="cpu", threads=1)
    heads = Heads.from_pretrained(steered_smollm2)
    prompts = [policy.prompt_ids(question) for question in QUESTIONS[:2]]
    for answer in chain.from_iterable(policy.sample(prompts, 2, heads, seed=1)):
        hidden = policy.states(answer.states)
        with torch.no_grad():
            predicted = heads(hidden, policy.logits(hidden))
            wanted = heads.steered(*predicted, heads.level(hidden[:1]))
        np.testing.assert_allclose(answer.temperature, wanted[0].numpy(), rtol=5e-3)
        # of logits that are rebuilt with a matrix that is not quantized
        np.testing.assert_allclose(answer.top_p, wanted[1].numpy(), rtol=5e-2)
        assert not np.allclose(answer.temperature, predicted[0].numpy(), rtol=1e-2)


def cli(*arguments) -> subprocess.CompletedProcess:
    command = [str(argument) for argument in (compiled("autodeco-cli"), "-t", 1, "-c", 512, "-s", 7, *arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("level", [None, -1.0, 0.5])
def test_the_program_steers_as_python_does(smollm2, steered_smollm2, level):
    llm = autodeco.Llama(
        str(smollm2), steered_smollm2, n_ctx=512, n_threads=1, n_threads_batch=1, flash_attn=True, verbose=False
    )
    llm.level = level
    llm.set_seed(7)
    generation = llm.generate(llm.tokenize(b"Once upon a time,"))
    tokens = list(islice(generation, 16))
    generation.close()
    asked = [] if level is None else ["--level", level]
    result = cli(
        "-m", smollm2, "--heads", steered_smollm2, "--json", "--ignore-eos", "-n", 16, "-p", "Once upon a time,", *asked
    )
    assert result.returncode == 0, result.stderr
    *rows, _ = map(json.loads, result.stdout.splitlines())
    assert [row["token"] for row in rows] == tokens
    np.testing.assert_allclose([row["temperature"] for row in rows], llm.decoding.temperature, rtol=1e-3)
    np.testing.assert_allclose([row["top_p"] for row in rows], llm.decoding.top_p, rtol=1e-3)
    llm.close()


def test_every_answer_of_a_talk_has_a_level_of_its_own(smollm2, steered_smollm2):
    """Greedy answers are the same at every level; what is told of their temperatures has one factor an answer."""
    talk = {"capture_output": True, "text": True, "check": True, "timeout": 120, "input": "Hi, I am Bob.\nWho am I?\n"}
    told = []
    for asked in ([], ["--level", "0"]):
        command = [
            compiled("autodeco-cli"),
            "-t",
            "1",
            "-c",
            "512",
            "-m",
            smollm2,
            "--heads",
            steered_smollm2,
            "--json",
        ]
        said = subprocess.run([*command, "--chat", "-n", "8", "--temp", "0", *asked], **talk).stdout
        rows = [json.loads(line) for line in said.splitlines()]
        end = next(i for i, row in enumerate(rows) if "end" in row)
        told.append([[row["temperature"] for row in answer] for answer in (rows[:end], rows[end + 1 : -1])])
    factors = [np.divide(steered, plain) for steered, plain in zip(*told, strict=True)]
    for of_answer in factors:
        assert len(of_answer) > 3
        assert np.ptp(of_answer) < 1e-3
    assert abs(factors[0][0] - factors[1][0]) > 0.01


@pytest.mark.parametrize(
    ("level", "message"), [("1.5", "--level must be between -1 and 1"), ("nan", "failed to parse")]
)
def test_the_program_refuses_other_levels(smollm2, steered_smollm2, level, message):
    result = cli("-m", smollm2, "--heads", steered_smollm2, "-p", "x", "--level", level)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr


def test_the_program_refuses_a_level_without_a_control_head(smollm2, exported):
    result = cli("-m", smollm2, "--heads", exported("f32"), "-p", "x", "--level", "0.5")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        f"autodeco-cli: error: {exported('f32')}: has no control head, so there is nothing that --level could steer\n"
    )
