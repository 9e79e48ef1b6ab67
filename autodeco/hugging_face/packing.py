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
    """The tokens of one record; those from ``prompt`` on are labels, or only those at ``places`` behind it."""

    record: int
    tokens: list[int]
    prompt: int
    command: int = NO_COMMAND
    places: tuple[int, ...] | None = None


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
        place = bisect.bisect_left(rooms, size)
        if place == len(rooms):
            groups.append([])
            group, room = len(groups) - 1, length
        else:
            room = rooms[place]
            group = waiting[room].pop()
            if not waiting[room]:
                del waiting[room], rooms[place]
        groups[group].append(sequence)
        left = room - size
        if left not in waiting:
            waiting[left] = []
            bisect.insort(rooms, left)
        waiting[left].append(group)
    return groups


def row(group: Sequence[Labelled]) -> Row:
    """Return the sequences of ``group`` behind each other."""
    tokens, positions, at, labels, records, commands = [], [], [], [], [], []
    for sequence in group:
        size, start = len(sequence.tokens), len(tokens)
        places = range(size - sequence.prompt) if sequence.places is None else sequence.places
        tokens += sequence.tokens
        positions += range(size)
        at += [start + sequence.prompt - 1 + place for place in places]
        labels += [sequence.tokens[sequence.prompt + place] for place in places]
        records += [sequence.record] * len(places)
        commands += [sequence.command] * len(places)
    inputs = (torch.tensor(values) for values in ([tokens], [positions], at, labels))
    return Row(*inputs, np.array(records), np.array(commands))
