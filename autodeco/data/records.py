"""Training data: JSON lines with ``prompt`` and ``completion``, ``messages``, or ``text``, as TRL reads them."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autodeco.data.json_lines import json_lines
from autodeco.data.messages import Messages, Tools, check_messages, checked_tools
from autodeco.errors import InputError
from autodeco.runs.seeds import Stream, generator


@dataclass(frozen=True)
class Record:
    """One line: what the model is given and what it should answer, both as text or both as chat messages."""

    line: int  # 1-based, as editors count
    prompt: str | Messages  # empty where all of a text is the completion
    completion: str | Messages
    tools: Tools | None = None  # that the chat may call
    completion_ids: tuple[int, ...] | None = None  # the tokens that a model drew as the completion, its end included


def read_records(path: str | os.PathLike) -> Iterator[Record]:
    """Yield the records of the JSON lines file at ``path``; empty lines are passed over.

    ``{"prompt": text, "completion": text}``; ``{"prompt": messages, "completion": messages}``; ``{"messages":
    messages}``, whose last message is the completion; or ``{"text": text}``, all of it completion. Raises InputError
    with the line for anything else.
    """
    for fields in json_lines(Path(path), "prompt and completion, or messages"):
        # data sets that were joined from several hold null where a line lacks what others have
        yield _record(fields.where, fields.number, {name: value for name, value in fields.items() if value is not None})


def _record(where: str, number: int, fields: dict) -> Record:
    tools, drawn = checked_tools(where, fields.get("tools")), _token_ids(fields.get("completion_ids"))
    if "messages" in fields:
        messages = fields["messages"]
        check_messages(where, "messages", messages)
        if messages[-1]["role"] != "assistant" or len(messages) < 2:
            raise InputError(f"{where}: the last of several messages must be the assistant's; there is no completion")
        return Record(number, messages[:-1], messages[-1:], tools, drawn)
    if "text" in fields:
        if not isinstance(fields["text"], str) or not fields["text"]:
            raise InputError(f"{where}: text must be text that is not empty")
        return Record(number, "", fields["text"])
    for name in ("prompt", "completion"):
        if not fields.get(name):
            raise InputError(f"{where}: the record has no {name}; give prompt and completion, or messages")
    prompt, completion = fields["prompt"], fields["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):
        check_messages(where, "prompt", prompt)
        check_messages(where, "completion", completion)
        return Record(number, prompt, completion, tools, drawn)
    if not isinstance(prompt, str) or not isinstance(completion, str):
        raise InputError(f"{where}: prompt and completion must both be text, or both be lists of messages")
    return Record(number, prompt, completion, completion_ids=drawn)


def _token_ids(ids) -> tuple[int, ...] | None:
    """``ids`` if they are token ids; other data may have a column of this name."""
    is_ids = isinstance(ids, list) and all(isinstance(token, int) and token >= 0 for token in ids)
    return tuple(map(int, ids)) if is_ids and ids else None


class PromptNumbers:
    """Numbers prompts: equal ones, with the same tools, are called by the index of the first record that has them.

    Of a text that is all completion, the text counts.
    """

    def __init__(self) -> None:
        self._first: dict[bytes, int] = {}  # by digest: prompts may be long, and many

    def __call__(self, index: int, record: Record) -> int:
        """The number of the prompt of ``record``, the ``index``-th."""
        asked = json.dumps([record.prompt or record.completion, record.tools])
        return self._first.setdefault(hashlib.blake2b(asked.encode(), digest_size=16).digest(), index)


def held_out_records(
    records: Sequence[int] | np.ndarray, prompts: Sequence[int] | np.ndarray, share: float, seed: int
) -> set[int]:
    """Return which of ``records`` [n] to validate on: all those with ``share`` of the different ``prompts`` [n], so
    that none of these is trained on, too. Raises InputError for fewer than two prompts."""
    distinct = np.unique(prompts)
    if len(distinct) < 2:
        raise InputError("there is one prompt to learn from; give at least two, one of them to validate on")
    size = max(1, min(len(distinct) - 1, round(share * len(distinct))))
    chosen = generator(seed, Stream.SPLIT).permutation(distinct)[:size]
    return set(np.unique(np.asarray(records)[np.isin(prompts, chosen)]).tolist())
