"""Log-probabilities of tokens, in the form that completions have them."""

import llama_cpp
import numpy as np


def no_logprobs() -> dict[str, list]:
    """Return the form without any token."""
    return {"tokens": [], "text_offset": [], "token_logprobs": [], "top_logprobs": []}


def joined(parts: list[dict[str, list]]) -> dict[str, list]:
    """Return one of all tokens of ``parts``."""
    return {name: [value for part in parts for value in part[name]] for name in no_logprobs()}


def logprobs_of(llm: llama_cpp.Llama, token: int, text: str, offset: int, position: int, most: int) -> dict[str, list]:
    """Return those of ``token``, at ``position`` of the context, and of the ``most`` likeliest tokens there.

    ``text`` is the token's, ``offset`` where it begins. The first token of a context has none: nothing predicts it.
    """
    if position == 0:
        return {"tokens": [text], "text_offset": [offset], "token_logprobs": [None], "top_logprobs": [None]}
    logprobs = llama_cpp.Llama.logits_to_logprobs(llm.scores[position - 1])
    likeliest = np.argsort(-logprobs, kind="stable")[:most].tolist()
    top = {llm.detokenize([other]).decode("utf-8", "ignore"): float(logprobs[other]) for other in likeliest}
    own = float(logprobs[token])
    return {"tokens": [text], "text_offset": [offset], "token_logprobs": [own], "top_logprobs": [top | {text: own}]}
