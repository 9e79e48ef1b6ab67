"""The rules that heads are compared with: each is a file here and a name, by which ``--without`` leaves it out."""

from collections.abc import Sequence

import llama_cpp

from autodeco.evaluation.methods import Method
from autodeco.evaluation.rivals import (
    adaptive_p,
    dynatemp,
    edt,
    greedy_threshold,
    inverse_mean,
    min_p,
    phases,
    shuffle,
    stock_defaults,
    top_n_sigma,
)
from autodeco.evaluation.settings import ALL_RIVALS

BY_HAND = {
    "stock-defaults": lambda llm: stock_defaults.methods(),
    "dynatemp": lambda llm: dynatemp.methods(),
    "min-p": lambda llm: min_p.methods(),
    "top-n-sigma": lambda llm: top_n_sigma.methods(),
    "adaptive-p": lambda llm: adaptive_p.methods(),
    "edt": lambda llm: edt.methods(),
    "greedy-threshold": lambda llm: greedy_threshold.methods(),
    "phases": lambda llm: phases.methods(llm.metadata.get("tokenizer.chat_template", "")),
}
OF_HEADS = {
    "inverse-mean": inverse_mean.method,
    "shuffle": shuffle.method,
    "binned-shuffle": shuffle.binned,
}


def by_hand(llm: llama_cpp.Llama, without: Sequence[str]) -> list[Method]:
    """The rules that a user can have without heads, a method for each of their settings."""
    return [method for name, made in BY_HAND.items() if _wanted(name, without) for method in made(llm)]


def of_heads(rows: list[dict], without: Sequence[str]) -> list[Method]:
    """The rules made of what heads predicted in their answers ``rows``."""
    return [made(rows) for name, made in OF_HEADS.items() if _wanted(name, without)]


def number_of_heads(without: Sequence[str]) -> int:
    """How many methods ``of_heads`` makes."""
    return sum(_wanted(name, without) for name in OF_HEADS)


def _wanted(name: str, without: Sequence[str]) -> bool:
    return name not in without and ALL_RIVALS not in without
