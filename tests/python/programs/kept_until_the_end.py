"""A process that ends while a context variable keeps its model, and maybe while a thread uses it."""

import contextvars
import sys
import threading

import autodeco

model, heads, used = sys.argv[1:]
KEPT: contextvars.ContextVar = contextvars.ContextVar("kept")
llm = autodeco.Llama(model, heads or None, n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False)
llm("Once", max_tokens=2)
KEPT.set(llm)
if used == "used":
    begun = threading.Event()

    def answer() -> None:
        for _ in llm("Once", max_tokens=500, temperature=0.0, stream=True):
            begun.set()

    threading.Thread(target=answer, daemon=True).start()
    assert begun.wait(60)
