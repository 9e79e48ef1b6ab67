"""Calls of a model with heads."""

import contextlib

import autodeco

PROMPT = "Once upon a time, in a small village by the sea, there lived"
SETTINGS = {"max_tokens": 16, "seed": 11, "temperature": 1.5}


@contextlib.contextmanager
def autodeco_model(smollm2, exported, **options):
    """SmolLM2 with the golden heads, until the body ends."""
    model = autodeco.Llama(str(smollm2), exported("f32"), n_threads=1, n_threads_batch=1, verbose=False, **options)
    yield model
    model.close()


def text(llm, prompt=PROMPT, **settings) -> str:
    """What ``llm`` says, by SETTINGS and others."""
    return llm(prompt, **{**SETTINGS, **settings})["choices"][0]["text"]
