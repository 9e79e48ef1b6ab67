"""A prompt without tokens is refused everywhere, and nothing of one request comes into a later one."""

import llama_cpp
import numpy as np
import pytest
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

import autodeco
from autodeco.batch import generate
from autodeco.errors import InputError
from autodeco.llama.streaming import stream

SECRET = "The password of the vault is: correct horse battery staple. The password of the vault is: correct horse"
NO_TOKENS = "no tokens, and nothing predicts a first one"


@pytest.fixture(scope="module", params=["with heads", "without heads", "logits_all", "embedding"])
def model(request, smollm2, exported):
    heads = None if request.param == "without heads" else exported("f32")
    options = {request.param: True} if request.param in ("logits_all", "embedding") else {}
    llm = autodeco.Llama(str(smollm2), heads, n_ctx=128, n_threads=1, n_threads_batch=1, verbose=False, **options)
    yield llm
    llm.close()


@pytest.fixture
def secret_left(model):
    """The model after another caller's request, which its context still holds."""
    model(SECRET, max_tokens=4, seed=1)
    return model


def says_nothing(llm, template="{% for m in messages %}{% endfor %}"):
    llm._chat_handlers["says nothing"] = Jinja2ChatFormatter(template, "", "").to_chat_handler()
    llm.chat_format = "says nothing"


EMPTY = {
    "call": lambda llm: llm("", max_tokens=2),
    "call with ids": lambda llm: llm([], max_tokens=2),
    "create_completion": lambda llm: llm.create_completion("", max_tokens=2),
    "several choices": lambda llm: llm("", max_tokens=2, n=2),
    "echo": lambda llm: llm("", max_tokens=2, echo=True),
    "values": lambda llm: llm("", max_tokens=2, autodeco=True),
    "logits processor": lambda llm: llm(
        "", max_tokens=2, logits_processor=llama_cpp.LogitsProcessorList([lambda ids, z: z])
    ),
    "stream": lambda llm: list(llm("", max_tokens=2, stream=True)),
    "stream of several": lambda llm: list(llm("", max_tokens=2, stream=True, n=2)),
    "generate": lambda llm: next(llm.generate([])),
    "generate without reset": lambda llm: (llm.reset(), next(llm.generate([], reset=False))),
    "array": lambda llm: next(llm.generate(np.array([], np.int32))),
    "our stream": lambda llm: list(stream(llm, [], 2, 1)),
    "batch": lambda llm: list(generate(llm, [""], max_tokens=2)),
    "batch with ids": lambda llm: list(generate(llm, [[], [1]], max_tokens=2)),
    "eval": lambda llm: (llm.reset(), llm.eval([])),
    "sample": lambda llm: (llm.reset(), llm.sample()),
    "sample after nothing was evaluated": lambda llm: (setattr(llm, "n_tokens", 0), llm.sample(temp=0.0)),
}


@pytest.mark.parametrize("use", EMPTY.values(), ids=EMPTY)
def test_a_prompt_without_tokens_is_refused(secret_left, use):
    with pytest.raises(InputError, match="nothing predicts a"):
        use(secret_left)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_chat_template_that_renders_nothing_is_refused(secret_left, streamed):
    before = secret_left.chat_format
    says_nothing(secret_left)
    try:
        messages = [{"role": "user", "content": "Hello"}]
        with pytest.raises(InputError, match=NO_TOKENS):
            list(secret_left.create_chat_completion(messages, max_tokens=2, stream=streamed))
    finally:
        secret_left.chat_format = before


def test_a_refused_prompt_leaves_the_model_as_it_was(secret_left):
    with pytest.raises(InputError, match=NO_TOKENS):
        secret_left("")
    after = secret_left("One two three", max_tokens=4, temperature=0.0)["choices"][0]["text"]
    secret_left.reset()
    assert secret_left("One two three", max_tokens=4, temperature=0.0)["choices"][0]["text"] == after


def test_a_text_without_tokens_is_not_embedded(smollm2):
    llm = autodeco.Llama(str(smollm2), n_ctx=64, n_threads=1, n_threads_batch=1, verbose=False, embedding=True)
    llm.embed("a secret")
    for texts, which in (("", 0), (["one", ""], 1)):
        with pytest.raises(InputError, match=f"text {which} has no tokens"):
            llm.embed(texts)
        with pytest.raises(InputError, match=f"text {which} has no tokens"):
            llm.create_embedding(texts)
    llm.close()


def fresh(model, tokens) -> int:
    """The likeliest token after ``tokens`` in a context that holds nothing else."""
    model.reset()
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(model.ctx), True)
    model.eval(tokens)
    return model.sample(temp=0.0)


def refused(use, *given) -> None:
    with pytest.raises(InputError):
        use(*given)


def left_alone(llm) -> None:
    LEFT.append(llm(SECRET, max_tokens=4, stream=True))
    next(LEFT[-1])


LEFT = []
OTHERS = {
    "completion": lambda llm: llm(SECRET, max_tokens=4, seed=1),
    "greedy completion": lambda llm: llm(SECRET, max_tokens=4, temperature=0.0),
    "on the host": lambda llm: llm(SECRET, max_tokens=4, seed=1, top_k=5),
    "refused": lambda llm: refused(llm, ""),
    "stream left alone": left_alone,
    "by hand": lambda llm: (llm.reset(), llm.eval(llm.tokenize(SECRET.encode())), llm.sample()),
    "failed": lambda llm: (llm.reset(), refused(llm.eval, [*llm.tokenize(SECRET.encode()), 10**6])),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_nothing_of_an_earlier_request_comes_into_a_later_one(model, other):
    """Each way to ask, after each way that another request may have ended: as in a context that held nothing."""
    tokens = model.tokenize(b"The capital of France is")
    expected = fresh(model, tokens)
    asked = {
        "completion": lambda: model.generate(tokens, temp=0.0),
        "goes on": lambda: (model.reset(), model.eval(tokens), model.generate([], reset=False, temp=0.0))[-1],
        "by hand": lambda: iter([(model.reset(), model.eval(tokens), model.sample(temp=0.0))[-1]]),
    }
    for name, ask in asked.items():
        other(model)
        generator = ask()
        assert next(generator) == expected, name


def test_sampling_by_hand_goes_on_from_a_completion(model):
    """The completion's last token was sampled and not decoded, so it comes again."""
    model.reset()
    model("One two three four five", max_tokens=3, temperature=0.0)
    held = model.input_ids[: model.n_tokens].tolist()
    drawn = model.sample(temp=0.0)
    assert drawn == fresh(model, held)
    model.load_state(model.save_state())
    assert model.sample(temp=0.0) == drawn, "a state brings no logits"
    model(held, max_tokens=1, temperature=5.0, top_p=3.0)
    assert len({(model.set_seed(seed), model.sample(temp=9.0, top_p=3.0))[1] for seed in range(12)}) > 4


def test_sampling_reads_no_tokens_that_the_last_batch_lacks(model):
    model.reset()
    model.eval(model.tokenize(b"One two three four"))
    n = model.n_tokens
    for idx in (n, n + 5, -n - 1, *(() if model._logits_all else (0, n - 2))):
        with pytest.raises(InputError, match=rf"idx {idx}: the last batch has logits"):
            model.sample(idx=idx)
    assert model.sample(temp=0.0, idx=n - 1) == model.sample(temp=0.0)


def test_heads_that_are_taken_off_leave_no_draw_behind(smollm2, exported):
    llm = autodeco.Llama(str(smollm2), exported("f32"), n_ctx=64, n_threads=1, n_threads_batch=1, verbose=False)
    tokens = llm.tokenize(b"The capital of France is")
    expected = fresh(llm, tokens)
    llm(tokens, max_tokens=1)
    llm.heads = None
    assert llm.sample(temp=0.0) == expected
    llm.heads = exported("f32")
    llm(tokens, max_tokens=1)
    llm.heads = None
    assert next(llm.generate(tokens, temp=0.0)) == expected
    llm.close()
