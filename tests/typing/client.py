"""A program that uses every public name, as a type checker sees it. It is checked and never run."""

from pathlib import Path
from typing import assert_type

import numpy as np
import numpy.typing as npt

import autodeco
from autodeco.batch import Answer, Request
from autodeco.cli import main
from autodeco.errors import InputError
from autodeco.llama.decoding import Decoding, TokenDecoding
from autodeco.traces import CollectSettings


def one_stream(model: str, heads: Path) -> TokenDecoding:
    llm = autodeco.Llama(model, heads, n_ctx=512)
    assert_type(llm.heads, str | None)
    llm.heads = None
    assert_type(llm.decoding, Decoding)
    assert_type(llm.last_decoding.temperature, float)
    return llm.last_decoding


def many_answers(model: str) -> list[Answer]:
    try:
        llm = autodeco.Llama(model)
    except InputError:
        return []
    sampling = autodeco.Sampling(temperature=0.7, top_p=0.9, heads="none")
    wanted = autodeco.batch.requests(llm, ["1 + 1 ="], 2, sampling, max_tokens=8)
    assert_type(wanted, list[Request])
    chats = autodeco.batch.generate(llm, [[{"role": "user", "content": "Hi"}]], sampling=sampling, slots=4)
    return [*autodeco.batch.answer(llm, wanted, heads="heads.gguf"), *chats]


def arrays(path: Path, hidden: npt.NDArray[np.float32], logits: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    heads = autodeco.native.load_heads(path)
    assert_type(heads.vocab_size, int)
    temperature, top_p = autodeco.native.predict(path, hidden, logits)
    return autodeco.native.nucleus_sample(logits, temperature, top_p, np.zeros(len(logits)))


def arguments() -> float:
    assert_type(autodeco.TrainingArguments().steps, int)
    return autodeco.TrainingArguments(learning_rate=1e-3).learning_rate


def the_way_to_heads(model: str) -> Path:
    manifest = autodeco.collect(model, "answers.jsonl", "traces", CollectSettings(context=512))
    assert_type(manifest.tokens, int)
    result = autodeco.train("traces", "heads", autodeco.TrainingArguments(steps=manifest.tokens))
    return Path(model) if result.interrupted else Path("heads")


def a_program(argv: list[str]) -> int:
    return main(argv)
