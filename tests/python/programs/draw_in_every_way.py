"""Draw tokens in every way: python draw_in_every_way.py MODEL HEADS [LIBGGML_RPC.so HOST:PORT] prints them as JSON.

With an endpoint, all layers of the model are computed there.
"""

import json
import os
import sys
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import llama_cpp

import autodeco
from autodeco import native
from autodeco.base.states import StateReader, open_stateful
from autodeco.batch import Sampling, generate, requests
from autodeco.batch.shared import answer
from builders.rpc import add_server

PROMPT = [3, 14, 15, 9, 2, 65]
UNCHANGED = llama_cpp.LogitsProcessorList([lambda _, logits: logits])
OPTIONS = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1, "verbose": False, "n_gpu_layers": 99}


def one_text(model, heads, settings=(), **options) -> list[int]:
    llm = autodeco.Llama(model, heads, **OPTIONS, **options)
    llm.set_seed(5)
    tokens = list(islice(llm.generate(PROMPT, **dict(settings)), 16))
    llm.close()
    return tokens


def by_hand(model, heads) -> list[int]:
    llm = autodeco.Llama(model, heads, **OPTIONS)
    llm.set_seed(5)
    llm.eval(PROMPT)
    tokens = []
    for _ in range(16):
        tokens.append(llm.sample(top_k=0, temp=0.0))
        llm.eval(tokens[-1:])
    llm.close()
    return tokens


def in_batch(model, heads) -> list[list[int]]:
    llm = autodeco.Llama(model, heads, **OPTIONS)
    answers = sorted(generate(llm, [PROMPT, PROMPT[:3]], 2, max_tokens=8, seed=5), key=lambda a: (a.prompt, a.sample))
    llm.close()
    return [answer.decoding.token.tolist() for answer in answers]


def shared(model, heads) -> list[list[int]]:
    llm = autodeco.Llama(model, heads, **OPTIONS)
    wanted = requests(llm, [PROMPT, PROMPT[:3]], 2, Sampling(), 8, seed=5)
    answers = sorted(answer(llm, wanted, native.load_heads(heads), 4), key=lambda a: (a.prompt, a.sample))
    llm.close()
    return [answer.decoding.token.tolist() for answer in answers]


def likeliest(model) -> list[int]:
    llm = open_stateful(model, n_ctx=256, n_gpu_layers=99)
    ((_, hidden, logits),) = StateReader(llm).read(PROMPT, PROMPT)
    assert hidden.any(axis=1).all()
    tokens = logits.argmax(axis=1).tolist()
    llm.close()
    return tokens


def main(model: str, heads: str, *server: str) -> dict:
    if server:
        add_server(*server)
    drawn = {
        "graph": one_text(model, heads),
        "logits processor": one_text(model, heads, {"logits_processor": UNCHANGED}),
        "penalty": one_text(model, heads, {"repeat_penalty": 1.5}),
        "top-k": one_text(model, heads, {"top_k": 20}),
        "logits_all": one_text(model, heads, logits_all=True),
        "by hand": by_hand(model, heads),
        "batch": in_batch(model, heads),
        "shared": shared(model, heads),
        "states": likeliest(model),
    }
    os.environ["AUTODECO_NUCLEUS"] = "cpu"
    return drawn | {"nucleus here": one_text(model, heads), "batch here": in_batch(model, heads)}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
