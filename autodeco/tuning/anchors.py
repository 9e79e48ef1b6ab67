"""Prompts that nobody scores, at which a training holds heads to a cold setting."""

import json
import random
from collections.abc import Iterable
from pathlib import Path

from autodeco.data.draws import drawn_entries
from autodeco.runs.atomic import replacing

DRAWN, LONGEST = 6, 600  # of a family; characters


def other_prompts(without: Iterable[str], seed: int, drawn: int, longest: int, most: int) -> list[list[dict]]:
    """Return chats of reasoning-gym's families but those in ``without``.

    Of ``drawn`` problems of a family, up to ``most`` stay that have no more than ``longest`` characters.
    """
    from reasoning_gym.factory import DATASETS

    chats = []
    for family in sorted(DATASETS.keys() - set(without) - {"composite"}):
        questions = (entry["question"].strip() for entry in drawn_entries(family, drawn, seed, {}))
        short = [question for question in questions if len(question) <= longest]
        chats += [[{"role": "user", "content": question}] for question in short[:most]]
    return chats


def write_anchors(without: Iterable[str], seed: int, most: int, path: Path, chats: bool = True) -> int:
    """Write up to ``most`` prompts of reasoning-gym's families but those in ``without`` to ``path``, as ``chats`` or as
    texts; return how many."""
    asked = other_prompts(without, seed, DRAWN, LONGEST, DRAWN)
    random.Random(seed).shuffle(asked)
    prompts = [chat if chats else chat[0]["content"] for chat in asked[:most]]
    with replacing(path) as part:
        part.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts), encoding="utf-8")
    return len(prompts)
