"""``generate`` and ``eval`` by hand, with heads: what they give, and the one line in which they end."""

import llama_cpp
import numpy as np
import pytest

import autodeco
from autodeco import features
from autodeco.errors import InputError
from builders.llama_calls import PROMPT, text


@pytest.fixture(autouse=True)
def from_the_start(llm):
    llm.reset()


def test_a_generation_ends_in_one_line_where_the_context_does(llm):
    tokens = llm.tokenize(b"word " * (llm.n_ctx() - 3))
    made = []
    with pytest.raises(InputError, match=f"the context of {llm.n_ctx()} tokens is full"):
        made += llm.generate(tokens)
    with pytest.raises(InputError, match="is full"):
        llm.eval([1] * (llm.n_ctx() - llm.n_tokens + 1))
    assert llm.n_tokens == llm.n_ctx()


@pytest.mark.skipif(
    not features.SEVERAL_OUTPUTS,
    reason=f"llama-cpp-python {llama_cpp.__version__} draws from one output of a text at a time",
)
def test_a_draft_model_changes_no_drawn_token(llm, smollm2, exported):
    from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

    draft = LlamaPromptLookupDecoding(num_pred_tokens=3)
    options = {"n_ctx": 128, "n_threads": 1, "n_threads_batch": 1, "verbose": False}
    drafted = autodeco.Llama(str(smollm2), exported("f32"), draft_model=draft, **options)
    prompt = "one two three four one two three four one two"
    runs = []
    for model in (llm, drafted):
        model.reset()
        model(prompt, max_tokens=24, seed=4)
        runs.append(model.decoding)
    assert runs[0].token.tolist() == runs[1].token.tolist()
    np.testing.assert_allclose(runs[0].temperature, runs[1].temperature, atol=0.05)
    drafted.close()


def test_what_a_logits_processor_raises_is_raised(llm):
    def broken(input_ids, logits):
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        text(llm, logits_processor=llama_cpp.LogitsProcessorList([broken]))
    assert text(llm)


def test_a_logit_bias_and_a_logits_processor_both_work(llm):
    """llama-cpp-python loses both when it is given both, and adds the bias to the caller's list for good."""
    seen = []

    def see(input_ids, logits):
        seen.append(logits.copy())
        return logits

    processors = llama_cpp.LogitsProcessorList([see])
    text(llm, temperature=0.0, max_tokens=1)
    banned = int(llm.decoding.token[0])
    text(llm, temperature=0.0, max_tokens=3, logits_processor=processors, logit_bias={banned: -100.0})
    assert banned not in llm.decoding.token.tolist()
    assert len(seen) == 3
    assert len(processors) == 1


def test_tokens_are_sent_to_a_generation_as_in_llama_cpp(llm, smollm2, exported):
    """There it ends the process without logits_all."""
    generator = llm.generate(llm.tokenize(PROMPT.encode()))
    next(generator)
    with pytest.raises(InputError, match="logits_all=True only"):
        generator.send([1, 2])
    options = {"n_ctx": 128, "n_threads": 1, "n_threads_batch": 1, "verbose": False, "logits_all": True}
    runs = []
    for model in (autodeco.Llama(str(smollm2), exported("f32"), **options), llama_cpp.Llama(str(smollm2), **options)):
        generator = model.generate(model.tokenize(PROMPT.encode()), temp=0.0)
        tokens = [next(generator), next(generator), generator.send(model.tokenize(b" but then", add_bos=False))]
        runs.append(tokens + [next(generator) for _ in range(5)])
        generator.close()
        model.close()
    assert runs[0] == runs[1]


def test_a_generation_left_alone_disturbs_no_other(llm):
    def chunks(seed):
        return llm(PROMPT, max_tokens=12, seed=seed, temperature=6.0, top_p=3.0, stream=True)

    def rest(stream) -> str:
        return "".join(chunk["choices"][0]["text"] for chunk in stream)

    expected = rest(chunks(2))
    llm.reset()
    left = chunks(1)
    next(left)
    second = chunks(2)
    llm.reset()
    begun = next(second)["choices"][0]["text"]
    with pytest.raises(InputError, match="another generation has begun"):
        rest(left)
    del left
    assert begun + rest(second) == expected
    assert len(llm.decoding) == 12


def test_a_context_that_pools_embeddings_does_not_generate(smollm2, exported):
    """llama.cpp has one vector for a whole sequence there, which is no token's hidden state."""
    options = {"n_ctx": 64, "n_threads": 1, "verbose": False, "embedding": True}
    model = autodeco.Llama(str(smollm2), exported("f16"), pooling_type=llama_cpp.LLAMA_POOLING_TYPE_MEAN, **options)
    assert len(model.embed("Hello")) == 576
    with pytest.raises(InputError, match=r"pools embeddings.*opened without embedding=True"):
        model("Hello", max_tokens=1)
    model.heads = None
    assert model("Hello", max_tokens=1)["usage"]["completion_tokens"] == 1
    model.close()


def test_a_closed_model_says_so(smollm2, exported):
    model = autodeco.Llama(str(smollm2), exported("f16"), n_ctx=64, n_threads=1, verbose=False)
    model("Hello", max_tokens=1)
    model.close()
    for use in (
        lambda: model("Hello", max_tokens=1),
        lambda: next(model.generate([1])),
        lambda: model.eval([1]),
        lambda: setattr(model, "heads", exported("f16")),
    ):
        with pytest.raises(InputError, match="was closed; open it again"):
            use()
