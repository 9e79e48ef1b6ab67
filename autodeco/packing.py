"""Sequences of different lengths packed into rows of one length, without one seeing another."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Labelled:
    """The tokens of one record; those from ``prompt`` on are labels."""

    record: int
    tokens: list[int]
    prompt: int


@dataclass(frozen=True)
class Row:
    """Packed sequences: ``tokens``, ``positions`` [1, L]; ``at`` [n] says which states have ``labels``, ``records``.

    Positions begin at 0 with every sequence. Models of transformers read from that where one ends and the next begins,
    and build their attention mask (block-diagonal, or lengths for flash attention) accordingly.
    """

    tokens: Tensor
    positions: Tensor
    at: Tensor
    labels: Tensor
    records: np.ndarray


def pack(sequences: Sequence[Labelled], length: int) -> list[list[Labelled]]:
    """Put ``sequences`` into groups of at most ``length`` tokens, the longest first, each where it first fits."""
    groups, room = [], []
    for sequence in sorted(sequences, key=lambda sequence: (-len(sequence.tokens), sequence.record)):
        size = len(sequence.tokens)
        place = next((i for i, left in enumerate(room) if left >= size), None)
        if place is None:
            groups.append([])
            room.append(length)
            place = len(room) - 1
        groups[place].append(sequence)
        room[place] -= size
    return groups


def row(group: Sequence[Labelled]) -> Row:
    """Return the sequences of ``group`` behind each other."""
    tokens, positions, at, labels, records = [], [], [], [], []
    for sequence in group:
        size, start = len(sequence.tokens), len(tokens)
        tokens += sequence.tokens
        positions += range(size)
        at += range(start + sequence.prompt - 1, start + size - 1)
        labels += sequence.tokens[sequence.prompt :]
        records += [sequence.record] * (size - sequence.prompt)
    return Row(
        torch.tensor([tokens]), torch.tensor([positions]), torch.tensor(at), torch.tensor(labels), np.array(records)
    )
