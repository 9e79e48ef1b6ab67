"""Answers of a Hugging Face model after commands, packed into rows that several processes share."""

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from autodeco.data.control import Control
from autodeco.data.records import read_records
from autodeco.data.tokenizing import RecordTokenizer
from autodeco.errors import InputError
from autodeco.hugging_face.packing import Labelled, Row, pack, row
from autodeco.training.arguments import TrainingArguments
from autodeco.training.batches import ShuffledBatches, ranked_indices


class PackedAnswers:
    """The answers to the records ``training`` and to ``control``'s held-out ones, in rows of ``room`` tokens.

    A record of which no variant's prompt leaves room for the answer is not ranked. Raises InputError where fewer are
    left than there are ``processes``.
    """

    def __init__(
        self,
        data_path: str | os.PathLike,
        tokenizer: RecordTokenizer,
        control: Control,
        training: Sequence[int],
        arguments: TrainingArguments,
        room: int,
        processes: int,
    ):
        self._arguments, self._room, self._processes = arguments, room, processes
        self._answers: dict[int, list[Labelled]] = {}
        wanted = {*training, *control.held_out}
        for index, record in enumerate(read_records(data_path)):
            if index not in wanted:
                continue
            try:
                variants = [(command, *tokenizer(variant)) for command, variant in control.variants(index, record)]
            except InputError as error:
                raise InputError(f"{data_path}, line {record.line}: {error}") from None
            left = room - max(len(prompt) for _, prompt, _ in variants)
            if left > 0:  # the same tokens of the answer after each
                self._answers[index] = [
                    Labelled(index, [*prompt, *completion[:left]], len(prompt), command)
                    for command, prompt, completion in variants
                ]
        held_out = set(control.held_out)
        training = np.array([record for record in self._answers if record not in held_out])
        self._held_out = [record for record in self._answers if record in held_out]
        size = -(-arguments.control_prompts // processes) * processes
        self._batches = ShuffledBatches(training, size, arguments.seed)
        if processes > min(len(training), len(self._held_out)):
            raise InputError(
                f"{data_path}: has {len(training)} prompts to rank and {len(self._held_out)} to measure that on, "
                f"too few for {processes} processes; give more data, or a higher --pack-tokens"
            )

    def training(self, step: int, rank: int) -> list[tuple[Row, bool]]:
        """Return the rows of update ``step`` that process ``rank`` runs, and whether they are its own.

        Every process runs as many, because with FSDP they run the model together.
        """
        return self._shared(self._batches.batch(step).tolist(), rank, step)

    def validation(self, rank: int) -> list[tuple[Row, bool]]:
        """Return the rows of the held-out answers, whole, the same way."""
        return self._shared(self._held_out, rank, None)

    def _shared(self, records: list[int], rank: int, step: int | None) -> list[tuple[Row, bool]]:
        parts = [dict.fromkeys(records[start :: self._processes]) for start in range(self._processes)]
        packed = [pack([answer for r in part for answer in self._ranked(r, step)], self._room) for part in parts]
        most, mine = max(map(len, packed)), packed[rank]
        return [(row(mine[min(i, len(mine) - 1)]), i < len(mine)) for i in range(most)]

    def _ranked(self, record: int, step: int | None) -> list[Labelled]:
        answers = self._answers[record]
        if step is None:
            return answers
        size = min(len(answer.tokens) - answer.prompt for answer in answers)
        indices = tuple(ranked_indices(size, record, step, self._arguments).tolist())
        return [replace(answer, indices=indices) for answer in answers]
