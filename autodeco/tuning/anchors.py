"""Prompts that nobody scores, at which a tuning holds heads to a cold setting."""

import json
import random
from collections.abc import Iterable
from pathlib import Path

from autodeco.runs.atomic import replacing

PROMPTS = 160
DRAWN, LONGEST = 6, 600  # of a family; characters


def write_anchors(without: Iterable[str], seed: int, path: Path) -> int:
    """Write chats of reasoning-gym's families but those in ``without`` to ``path``; return how many."""
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    rows = []
    for family in sorted(DATASETS.keys() - set(without) - {"composite"}):
        entries = reasoning_gym.create_dataset(family, size=DRAWN, seed=seed)
        questions = (entries[index]["question"].strip() for index in range(DRAWN))
        rows += [question for question in questions if len(question) <= LONGEST]
    random.Random(seed).shuffle(rows)
    rows = rows[:PROMPTS]
    with replacing(path) as part:
        lines = (json.dumps({"prompt": [{"role": "user", "content": row}]}) + "\n" for row in rows)
        part.write_text("".join(lines), encoding="utf-8")
    return len(rows)
