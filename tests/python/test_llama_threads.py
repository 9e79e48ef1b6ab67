"""Threads, callbacks and forked processes that share one model: refused in one line, never a crash or a hang."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import llama_cpp
import pytest

import autodeco
from autodeco import native
from autodeco.batch import Sampling, generate, requests
from autodeco.batch.shared import answer as shared_answer
from autodeco.errors import InputError

PROMPT = "Once upon a time, in a small village by the sea, there lived"
FORKED = Path(__file__).parent / "programs" / "forked_child.py"
KEPT = Path(__file__).parent / "programs" / "kept_until_the_end.py"
BUSY = "is in use by another thread"


@pytest.fixture(scope="module", params=["with heads", "without heads"])
def shared(request, smollm2, exported):
    heads = exported("f32") if request.param == "with heads" else None
    model = autodeco.Llama(str(smollm2), heads, n_ctx=128, n_threads=1, n_threads_batch=1, verbose=False)
    yield model
    model.close()


@pytest.fixture(scope="module")
def embedding(smollm2, exported):
    model = autodeco.Llama(
        str(smollm2), exported("f32"), n_ctx=128, n_threads=1, n_threads_batch=1, verbose=False, embedding=True
    )
    yield model
    model.close()


def in_thread(use):
    """What ``use`` returns, or the error that it raises, in a thread of its own."""
    found = []

    def run():
        try:
            found.append(use())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


def complete(llm, seed):
    return llm(PROMPT, max_tokens=8, seed=seed, temperature=3.0, top_p=2.0)["choices"][0]["text"]


def streamed(llm, seed):
    chunks = llm(PROMPT, max_tokens=8, seed=seed, temperature=3.0, top_p=2.0, stream=True)
    return "".join(chunk["choices"][0]["text"] for chunk in chunks)


@pytest.mark.parametrize("ask", [complete, streamed])
def test_threads_that_share_a_model_get_their_answer_or_one_clear_error(shared, ask):
    expected = [ask(shared, seed) for seed in range(3) if shared.reset() is None]
    outcomes: list[list] = [[], [], []]
    begin = threading.Barrier(3)

    def work(seed):
        begin.wait()
        for _ in range(6):
            try:
                outcomes[seed].append(ask(shared, seed))
            except InputError as error:
                outcomes[seed].append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    errors = 0
    for seed, found in enumerate(outcomes):
        assert len(found) == 6
        for outcome in found:
            if isinstance(outcome, InputError):
                errors += 1
                assert BUSY in str(outcome) or "another generation has begun" in str(outcome)
            else:
                # the prompt's cache differs, and with it the rounding; a text of another caller has another seed
                assert outcome == expected[seed]
    assert errors
    shared.reset()
    assert ask(shared, 1) == expected[1]


OTHER_USES = {
    "call": lambda llm: llm("Hello", max_tokens=1),
    "stream": lambda llm: next(llm("Hello", max_tokens=1, stream=True)),
    "chat": lambda llm: llm.create_chat_completion([{"role": "user", "content": "Hello"}], max_tokens=1),
    "generate": lambda llm: next(llm.generate([1])),
    "eval": lambda llm: llm.eval([1]),
    "sample": lambda llm: llm.sample(),
    "embed": lambda llm: llm.embed("Hello"),
    "create_embedding": lambda llm: llm.create_embedding("Hello"),
    "reset": lambda llm: llm.reset(),
    "save_state": lambda llm: llm.save_state(),
    "load_state": lambda llm: llm.load_state(None),
    "heads": lambda llm: setattr(llm, "heads", None),
    "close": lambda llm: llm.close(),
}


@pytest.mark.parametrize("use", OTHER_USES.values(), ids=OTHER_USES)
def test_another_thread_cannot_use_a_model_that_computes(shared, use):
    """From a logits processor, which runs in the midst of the first thread's computing."""
    found = []

    def ask(input_ids, logits):
        if not found:
            found.append(in_thread(lambda: use(shared)))
        return logits

    expected = complete(shared, 3)
    shared.reset()
    processor = llama_cpp.LogitsProcessorList([ask])
    answer = shared(PROMPT, max_tokens=8, seed=3, temperature=3.0, top_p=2.0, logits_processor=processor)
    assert isinstance(found[0], InputError)
    assert BUSY in str(found[0])
    if shared.heads:
        assert answer["choices"][0]["text"] == expected


@pytest.mark.parametrize("use", OTHER_USES.values(), ids=OTHER_USES)
def test_a_logits_processor_cannot_use_the_model_that_calls_it(shared, use):
    found = []

    def ask(input_ids, logits):
        with pytest.raises(InputError, match="is sampling a token"):
            use(shared)
        found.append(True)
        return logits

    shared(PROMPT, max_tokens=2, logits_processor=llama_cpp.LogitsProcessorList([ask]))
    assert found == [True, True]


def test_what_a_logits_processor_raises_ends_the_generation(shared):
    def broken(input_ids, logits):
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        shared(PROMPT, max_tokens=2, logits_processor=llama_cpp.LogitsProcessorList([broken]))
    assert isinstance(shared.sample(), int)


def test_a_stream_that_one_thread_begins_goes_on_in_others(shared):
    """As servers do, which take each chunk in another thread of a pool."""
    expected = streamed(shared, 5)
    shared.reset()
    chunks = shared(PROMPT, max_tokens=8, seed=5, temperature=3.0, top_p=2.0, stream=True)
    text = ""
    while isinstance(chunk := in_thread(lambda: next(chunks, None)), dict):
        text += chunk["choices"][0]["text"]
    assert text == expected


def test_what_is_done_by_hand_ends_a_stream_with_a_clear_error(shared):
    state = shared.save_state()
    for use in (
        lambda: shared.reset(),
        lambda: shared.eval([1]),
        lambda: shared.load_state(state),
        lambda: next(shared.generate([1, 2])),
    ):
        chunks = shared(PROMPT, max_tokens=8, stream=True)
        next(chunks)
        use()
        with pytest.raises(InputError, match=r"another generation has begun .* or its context was changed by hand"):
            list(chunks)
    chunks = shared(PROMPT, max_tokens=8, stream=True)
    next(chunks)
    with pytest.raises(InputError, match="is generating; sample by hand when that is done or closed"):
        shared.sample()
    chunks.close()
    assert isinstance(shared.sample(), int)


@pytest.mark.parametrize("heads", [True, False], ids=["with heads", "without heads"])
def test_embedding_during_a_stream_changes_neither(embedding, exported, heads):
    embedding.heads = exported("f32") if heads else None
    vector = embedding.embed("The capital of France")
    embedding.reset()
    expected = streamed(embedding, 7)
    embedding.reset()
    chunks = embedding(PROMPT, max_tokens=8, seed=7, temperature=3.0, top_p=2.0, stream=True)
    text = ""
    for chunk in chunks:
        text += chunk["choices"][0]["text"]
        assert embedding.embed("The capital of France") == vector
    assert text == expected


def test_an_embedding_that_is_refused_leaves_a_stream_as_it_was(shared):
    shared.reset()
    expected = streamed(shared, 7)
    shared.reset()
    chunks = shared(PROMPT, max_tokens=8, seed=7, temperature=3.0, top_p=2.0, stream=True)
    text = ""
    for chunk in chunks:
        text += chunk["choices"][0]["text"]
        with pytest.raises(RuntimeError, match="embedding=True"):
            shared.embed("Hello")
    assert text == expected


def test_embedding_between_the_tokens_of_a_draft(smollm2, exported):
    """Several tokens are sampled from one batch there, whose logits the embedding replaces."""
    from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

    options = {"n_ctx": 128, "n_threads": 1, "n_threads_batch": 1, "verbose": False, "embedding": True}
    draft = LlamaPromptLookupDecoding(num_pred_tokens=4)
    llm = autodeco.Llama(str(smollm2), exported("f32"), draft_model=draft, **options)
    tokens = llm.tokenize(b"one two three four one two three four one two")
    runs = []
    for embeds in (False, True):
        llm.reset()
        generator = llm.generate(tokens, temp=0.0)
        runs.append([(next(generator), embeds and llm.embed("another text"))[0] for _ in range(10)])
        generator.close()
    assert runs[0] == runs[1]
    llm.close()


def test_batches_of_one_model_in_several_threads_do_not_disturb_each_other(shared):
    heads = "both" if shared.heads else "none"

    def answers(seed):

        found = generate(shared, [PROMPT], n=2, max_tokens=4, seed=seed, slots=2, sampling=Sampling(heads=heads))
        return sorted((answer.sample, answer.text) for answer in found)

    expected = [answers(seed) for seed in range(2)]
    found = [None, None]

    def work(seed):
        found[seed] = [answers(seed) for _ in range(3)]

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[expected[seed]] * 3 for seed in range(2)]


INHERITED = (
    "call,chat,goes on,eval,sample,generate,embed,reset,save_state,load_state,heads,batch,batch begins,batch goes on,"
    "after one thread, call"
)


@pytest.mark.parametrize("shares", [False, True], ids=["batch", "shared batch"])
def test_a_batch_ends_with_its_model(smollm2, exported, shares):
    """It computes with the weights of the model, which are freed."""
    llm = autodeco.Llama(str(smollm2), exported("f32"), n_ctx=64, n_threads=1, n_threads_batch=1, verbose=False)
    wanted = requests(llm, ["Hello", "You"], 2, Sampling(), 3)
    answers = (
        shared_answer(llm, wanted, native.load_heads(llm.heads), 2)
        if shares
        else generate(llm, ["Hello"], n=2, max_tokens=3, slots=1)
    )
    next(answers)
    in_thread(llm.close)
    with pytest.raises(InputError, match="was closed; open it again"):
        list(answers)
    late = autodeco.Llama(str(smollm2), exported("f32"), n_ctx=64, n_threads=1, n_threads_batch=1, verbose=False)
    answers = generate(late, ["Hello"], n=2, max_tokens=3, slots=1)
    late.close()
    with pytest.raises(InputError, match="was closed; open it again"):
        next(answers)


@pytest.mark.parametrize("threads", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_forked_children_are_told_what_they_cannot_do(smollm2, exported, threads):
    """llama.cpp's threads stay in the parent, and a child would wait for them for ever."""
    command = [sys.executable, str(FORKED), str(smollm2), str(exported("f32")), str(threads)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    opens = {use: said.pop(use) for use in ("opens", "opens base", "opens for one thread")}
    assert len(said) == 14
    for use, error in said.items():
        assert "forked child" in str(error), use
        assert 'start processes with multiprocessing\'s "spawn"' in error
    assert opens.pop("opens for one thread") is None
    for error in opens.values():
        assert error is None if threads == 1 else "this process was forked from one that opened a model" in error


@pytest.mark.parametrize("used", ["idle", "used"])
@pytest.mark.parametrize("with_heads", [True, False], ids=["heads", "none"])
def test_a_model_that_outlives_python_s_modules_ends_without_a_crash(smollm2, exported, with_heads, used):
    """llama.cpp logs as it frees a context, to a function of Python that is gone by then."""
    command = [sys.executable, KEPT, smollm2, exported("f32") if with_heads else "", used]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (run.returncode, run.stderr) == (0, "")
