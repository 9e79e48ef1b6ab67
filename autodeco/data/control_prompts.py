"""Prompts whose answers can be more or less certain, out of templates, and sums with their results.

Of ten kinds two, and of the others a third of the templates and a third of the subjects, are held out: training sees no
prompt that is made of any of them. Twelve more kinds are for training alone. Texts that only quote a command are made
here too.
"""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autodeco.runs.seeds import Stream, generator

PROMPTS_FILE = Path(__file__).with_suffix(".json")
MADE_OF = json.loads(PROMPTS_FILE.read_text(encoding="utf-8"))
KINDS = tuple(MADE_OF["kinds"])
HELD_OUT_KINDS = tuple(MADE_OF["held_out_kinds"])
MORE_KINDS = tuple(MADE_OF["training_kinds"])
OF_A_KIND = 50  # of each of the ten that is not held out
TRAINING_PROMPTS = 1120
HELD_OUT_PROMPTS = 200  # half of them of held-out kinds
EVERY = 3  # of templates and subjects, this one is held out
LEAST_TERM, MOST_TERM = 2, 99  # of a sum


@dataclass(frozen=True)
class ControlPrompt:
    """A prompt, as a user writes it; ``answer`` is the result of a sum, else ""."""

    kind: str
    text: str
    held_out: bool
    answer: str = ""


def control_prompts(held_out: bool, count: int | None = None, seed: int = 0) -> list[ControlPrompt]:
    """Return ``count`` prompts to train with, or held-out ones, in random order; by default all of them.

    The first ones of two counts are the same.
    """
    random = generator(seed, Stream.PROMPTS, int(held_out))
    made = []
    for kind in KINDS:
        new = kind in HELD_OUT_KINDS
        if new and not held_out:
            continue
        if not held_out:
            size = OF_A_KIND
        elif new:
            size = HELD_OUT_PROMPTS // 2 // len(HELD_OUT_KINDS)
        else:
            size = -(-HELD_OUT_PROMPTS // 2 // (len(KINDS) - len(HELD_OUT_KINDS)))
        made += sums(size, held_out, seed) if kind == "sums" else _of_templates(kind, held_out, size, random)
    if not held_out:
        made += [prompt for kind in MORE_KINDS for prompt in _all_of(kind)]
    order = random.permutation(len(made))
    most = TRAINING_PROMPTS if not held_out else HELD_OUT_PROMPTS
    return [made[i] for i in order[: most if count is None else count]]


def sums(count: int, held_out: bool, seed: int = 0) -> list[ControlPrompt]:
    """Return ``count`` different sums of two or three terms; whether they are held out depends on their terms."""
    random = generator(seed, Stream.PROMPTS, 2 + int(held_out))
    templates = split(MADE_OF["kinds"]["sums"]["templates"], held_out)
    made: dict[str, ControlPrompt] = {}
    while len(made) < count:
        terms = [int(term) for term in random.integers(LEAST_TERM, MOST_TERM + 1, random.integers(2, 4))]
        if (sum(terms) % EVERY == EVERY - 1) != held_out:
            continue
        text = str(random.choice(templates)).format(" + ".join(map(str, terms)))
        made[text] = ControlPrompt("sums", text, held_out, str(sum(terms)))
    return list(made.values())


def documents(held_out: bool) -> list[str]:
    """Return the documents of one use, with {} where something is quoted."""
    return MADE_OF["quotations"]["held_out" if held_out else "training"]


def quoting(text: str, held_out: bool, random: np.random.Generator, among: list[str] | None = None) -> tuple[str, str]:
    """Return a prompt with a document that quotes ``text``, and the same with a sentence that asks for nothing.

    The document is one of ``among``, by default all of its use.
    """
    use = "held_out" if held_out else "training"
    document = str(random.choice(among or documents(held_out)))
    return document.format(text), document.format(str(random.choice(MADE_OF["neutral_quotes"][use])))


def split(parts: list[str], held_out: bool) -> list[str]:
    """Return the third of ``parts`` that is held out, or the others."""
    return [part for i, part in enumerate(parts) if (i % EVERY == EVERY - 1) == held_out]


def _all_of(kind: str) -> list[ControlPrompt]:
    parts = MADE_OF["training_kinds"][kind]
    pairs = itertools.product(parts["templates"], parts["subjects"])
    return [ControlPrompt(kind, template.format(subject), False) for template, subject in pairs]


def _of_templates(kind: str, held_out: bool, size: int, random: np.random.Generator) -> list[ControlPrompt]:
    parts = MADE_OF["kinds"][kind]
    if kind in HELD_OUT_KINDS:
        pairs = itertools.product(parts["templates"], parts["subjects"])
    else:
        pairs = itertools.product(split(parts["templates"], held_out), split(parts["subjects"], held_out))
    texts = [template.format(subject) for template, subject in pairs]
    return [ControlPrompt(kind, str(text), held_out) for text in random.permutation(texts)[:size]]
