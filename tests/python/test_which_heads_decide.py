"""A completion in which one head decides, or none: the others' values are the caller's settings."""

import llama_cpp
import numpy as np
import pytest

from autodeco.errors import InputError
from autodeco.llama.completions import HEADS

PROMPT = "Once upon a time"
SETTINGS = {"temperature": 0.7, "top_p": 0.8}


def answered(llm, heads: str, seen: list | None = None, **settings) -> dict:
    """The values of twelve tokens; ``seen`` gets the logits, which has the host draw the tokens."""

    def see(input_ids, logits):
        seen.append(logits.copy())
        return logits

    if seen is not None:
        settings["logits_processor"] = llama_cpp.LogitsProcessorList([see])
    answer = llm(PROMPT, max_tokens=12, seed=3, heads=heads, autodeco=True, **{**SETTINGS, **settings})
    return answer["choices"][0]["autodeco"]


@pytest.mark.parametrize("heads", HEADS)
def test_graph_and_host_draw_by_the_heads_that_decide(llm, heads):
    llm(PROMPT, max_tokens=1)  # so that both read the same of the prompt anew
    logits = []
    graph, host = answered(llm, heads), answered(llm, heads, logits)
    assert graph["token"] == host["token"]
    by_temperature, by_top_p = heads in ("both", "temperature"), heads in ("both", "top_p")
    for name, decides in (("temperature", by_temperature), ("top_p", by_top_p)):
        np.testing.assert_allclose(graph[name], host[name], rtol=1e-3)
        assert (len(set(host[name])) > 1) == decides, name
        assert decides or host[name][0] == pytest.approx(SETTINGS[name])
    for i, row in enumerate(logits):
        temperature = host["temperature"][i] * (SETTINGS["temperature"] if by_temperature else 1.0)
        top_p = host["top_p"][i] * (SETTINGS["top_p"] if by_top_p else 1.0)
        exact = np.exp((row.astype(np.float64) - row.max()) / temperature)
        mass = np.sort(exact / exact.sum())[::-1].cumsum()
        assert host["nucleus"][i] == pytest.approx(np.searchsorted(mass, top_p) + 1, abs=1)
        share = exact[host["token"][i]] / exact.sum() / mass[host["nucleus"][i] - 1]
        assert host["prob"][i] == pytest.approx(share, rel=1e-3)


@pytest.mark.parametrize("heads", HEADS)
def test_temperature_0_is_greedy_whichever_heads_decide(llm, heads):
    logits = []
    row = answered(llm, heads, logits, temperature=0.0)
    assert row["token"] == [int(logits[i].argmax()) for i in range(len(row["token"]))]
    assert row["token"] == answered(llm, heads, temperature=0.0)["token"]


def test_the_next_completion_is_decided_by_both_heads_again(llm):
    llm(PROMPT, max_tokens=1)
    both = answered(llm, "both")
    answered(llm, "none")
    assert answered(llm, "both") == both


def test_heads_that_are_none_of_them_are_refused(llm):
    with pytest.raises(InputError, match=r"heads upper: must be one of both, temperature, top_p, none"):
        llm(PROMPT, heads="upper")
