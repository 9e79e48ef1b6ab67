"""Sequences of different lengths packed into rows of one length, without one seeing another."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autodeco.data.control import NO_COMMAND


@dataclass(frozen=True)
class Labelled:
    """The tokens of one record; those from ``prompt`` on are labels, or only those at ``indices`` after it."""

    record: int
    tokens: list[int]
    prompt: int
    command: int = NO_COMMAND
    indices: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Row:
    """Packed sequences: ``tokens``, ``positions`` [1, L]; ``at`` [n] says which states have ``labels``.

    ``records``, ``commands`` [n] are those of the labels. Positions begin at 0 with every sequence. Models of
    transformers read from that where one ends and the next begins, and build their attention mask (block-diagonal, or
    lengths for flash attention) accordingly.
    """

    tokens: Tensor
    positions: Tensor
    at: Tensor
    labels: Tensor
    records: np.ndarray
    commands: np.ndarray


def pack(sequences: Sequence[Labelled], length: int) -> list[list[Labelled]]:
    """Put ``sequences`` into groups of at most ``length`` tokens: the longest first, each into the fullest with room.

    Groups are found by the room they have left, so that time grows with the records and not with records x groups.
    """
    groups: list[list[Labelled]] = []
    waiting: dict[int, list[int]] = {}  # groups by the tokens that they have room for
    rooms: list[int] = []  # the keys of ``waiting``, ascending
    for sequence in sorted(sequences, key=lambda sequence: (-len(sequence.tokens), sequence.record)):
        size = len(sequence.tokens)
        index = bisect.bisect_left(rooms, size)
        if index == len(rooms):
            groups.append([])
            group, room = len(groups) - 1, length
        else:
            room = rooms[index]
            group = waiting[room].pop()
            if not waiting[room]:
                del waiting[room], rooms[index]
        groups[group].append(sequence)
        left = room - size
        if left not in waiting:
            waiting[left] = []
            bisect.insort(rooms, left)
        waiting[left].append(group)
    return groups


def row(group: Sequence[Labelled]) -> Row:
    """Return the sequences of ``group`` one after another."""
    tokens, positions, at, labels, records, commands = [], [], [], [], [], []
    for sequence in group:
        size, start = len(sequence.tokens), len(tokens)
        indices = range(size - sequence.prompt) if sequence.indices is None else sequence.indices
        tokens += sequence.tokens
        positions += range(size)
        at += [start + sequence.prompt - 1 + index for index in indices]
        labels += [sequence.tokens[sequence.prompt + index] for index in indices]
        records += [sequence.record] * len(indices)
        commands += [sequence.command] * len(indices)
    inputs = (torch.tensor(values) for values in ([tokens], [positions], at, labels))
    return Row(*inputs, np.array(records), np.array(commands))
