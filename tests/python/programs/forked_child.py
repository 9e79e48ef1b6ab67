"""What processes forked from one that computed with a model can do: arguments are the model, heads, and threads.

Prints a line of JSON: for each way of use what the child's error says, or null. A child that hangs is ended.
"""

import json
import os
import signal
import sys

import autodeco
from autodeco.base.opening import open_base
from autodeco.batch import generate
from autodeco.errors import InputError

model, heads, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
OPTIONS = {"n_ctx": 128, "n_threads": threads, "n_threads_batch": threads, "verbose": False}
SEVERAL, ONE = {**OPTIONS, "n_threads": 2}, {**OPTIONS, "n_threads": 1, "n_threads_batch": 1}

llm = autodeco.Llama(model, heads, **OPTIONS)
left = llm("Hello", max_tokens=8, stream=True)
next(left)
batch = generate(llm, ["Hello"], n=2, max_tokens=8)
begun = generate(llm, ["Hello"], n=2, max_tokens=1, slots=1)
next(begun)
state = llm.save_state()
USES = {
    "call": lambda: llm("Hello", max_tokens=1),
    "chat": lambda: llm.create_chat_completion([{"role": "user", "content": "Hello"}], max_tokens=1),
    "goes on": lambda: next(left),
    "eval": lambda: llm.eval([1]),
    "sample": lambda: llm.sample(),
    "generate": lambda: next(llm.generate([1])),
    "embed": lambda: llm.embed("Hello"),
    "reset": lambda: llm.reset(),
    "save_state": lambda: llm.save_state(),
    "load_state": lambda: llm.load_state(state),
    "heads": lambda: setattr(llm, "heads", None),
    "batch": lambda: list(generate(llm, ["Hello"], max_tokens=1)),
    "batch begins": lambda: next(batch),
    "batch goes on": lambda: next(begun),
    "opens": lambda: autodeco.Llama(model, heads, **SEVERAL)("Hello", max_tokens=1),
    "opens base": lambda: open_base(model, **SEVERAL)("Hello", max_tokens=1),
    "opens for one thread": lambda: autodeco.Llama(model, heads, **ONE)("Hello", max_tokens=1),
}


def in_child(use) -> str | None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            use()
            said = None
        except InputError as error:
            said = str(error)
        llm.close()
        os.write(writing, json.dumps(said).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        said = pipe.read()
    return json.loads(said) if os.waitpid(child, 0)[1] == 0 else "hung or crashed"


print(json.dumps({name: in_child(use) for name, use in USES.items()}))
next(left)  # the parent goes on
