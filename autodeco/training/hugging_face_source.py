"""A Hugging Face model as a source of training: run frozen, on the fly, on one process or many."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from autodeco.data.control import Control, read_commands
from autodeco.data.records import PromptNumbers, held_out_records, read_records
from autodeco.errors import InputError
from autodeco.hugging_face.model import HuggingFaceModel
from autodeco.hugging_face.packing import Labelled, Row, pack, row
from autodeco.losses.exact import chunk_tokens
from autodeco.runs.provenance import file_hash
from autodeco.runs.seeds import Stream, generator
from autodeco.training.arguments import HuggingFaceSettings, TrainingArguments
from autodeco.training.batches import ShuffledBatches
from autodeco.training.device import take_device
from autodeco.training.packed_answers import PackedAnswers
from autodeco.training.source import Chunk


class HuggingFaceSource:
    """The model at ``path`` (a folder, a name on the hub, a GGUF file, or loaded) over the records of ``data_path``.

    Several processes (``accelerate launch``) share each update's rows; with FSDP they share the model too. The logits
    are the model's own. Raises InputError for a model or data that cannot be used.
    """

    def __init__(
        self,
        path: str | os.PathLike | HuggingFaceModel,
        data_path: str | os.PathLike,
        arguments: TrainingArguments,
        settings: HuggingFaceSettings | None = None,
    ):
        from accelerate import Accelerator

        settings = settings or HuggingFaceSettings()
        take_device(arguments.device)  # which Accelerator then takes too
        self._accelerator = Accelerator(cpu=arguments.device == "cpu")
        self._settings = settings
        self.rank, self._processes = self._accelerator.process_index, self._accelerator.num_processes
        self.device = str(self._accelerator.device)
        self.commands = read_commands(settings.control_commands or None) if arguments.control else []
        self._load(path)
        sequences, skipped, cut = self._sequences(data_path)
        training, validation = split_sequences(sequences, self._prompts, arguments)
        self._training, self._validation = (pack(part, settings.pack_tokens) for part in (training, validation))
        self.tokens = tuple(
            sum(len(s.tokens) - s.prompt for group in groups for s in group)
            for groups in (self._training, self._validation)
        )
        if self._processes > min(len(self._training), len(self._validation)):
            raise InputError(
                f"{data_path}: fills {len(self._training)} rows to train and {len(self._validation)} to validate on, "
                f"too few for {self._processes} processes; give more data, or a lower --pack-tokens"
            )
        rows = -(-arguments.batch_tokens // settings.pack_tokens)
        rows = -(-rows // self._processes) * self._processes  # every process has as many
        self._batches = ShuffledBatches(np.arange(len(self._training)), rows, arguments.seed)
        if arguments.control:
            control = Control(self.commands, [s.record for s in validation], arguments.seed)
            records = [s.record for s in training]
            self._answers = PackedAnswers(
                data_path, self._tokenizer, control, records, arguments, settings.pack_tokens, self._processes
            )
        digest, run = file_hash(data_path), {"pack_tokens": settings.pack_tokens, "dtype": settings.dtype}
        run |= {"commands": [asdict(command) for command in self.commands]} if self.commands else {}
        self.made_of = {"data": digest, "run settings": run}
        self.details = {"data": {"file": Path(data_path).name, "sha256": digest}, "run_settings": run}
        self.details |= {"processes": self._processes, "records_skipped": skipped, "records_cut": cut}

    def training(self, step: int) -> Iterator[Chunk]:
        for index in self._batches.batch(step)[self.rank :: self._processes]:
            yield from self._chunks(row(self._training[index]))

    def validation(self) -> Iterator[Chunk]:
        indices = range(self.rank, -(-len(self._validation) // self._processes) * self._processes, self._processes)
        # Where the last round has too few rows, the model still has to be run: with FSDP, all run it together.
        rows = ((index, index < len(self._validation)) for index in indices)
        return self._own_chunks((row(self._validation[index if own else 0]), own) for index, own in rows)

    def ranked(self, step: int) -> Iterator[Chunk]:
        return self._own_chunks(self._answers.training(step, self.rank))

    def ranked_validation(self) -> Iterator[Chunk]:
        return self._own_chunks(self._answers.validation(self.rank))

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        return self._accelerator.reduce(values, "sum") if self._processes > 1 else values

    def token_texts(self, tokens: list[int]) -> list[str]:
        return self._tokenizer.token_texts(tokens)

    def _own_chunks(self, rows: Iterable[tuple[Row, bool]]) -> Iterator[Chunk]:
        """Run all ``rows``; yield the chunks of those that are this process's own."""
        for packed, own in rows:
            for chunk in self._chunks(packed):
                if own:
                    yield chunk

    @torch.no_grad()
    def _chunks(self, packed: Row) -> Iterator[Chunk]:
        logits = self._network(
            input_ids=packed.tokens.to(self.device),
            position_ids=packed.positions.to(self.device),
            logits_to_keep=packed.at.to(self.device),
            use_cache=False,
        ).logits[0]
        hidden, labels = self._frozen.hidden[0], packed.labels.to(self.device)
        for rows in torch.arange(len(labels)).split(chunk_tokens(self.identity.vocab_size, self.device)):
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            here = packed.records[part], packed.commands[part]
            yield Chunk(hidden[part].float(), logits[part], labels[part], *here)

    def _load(self, path: str | os.PathLike | HuggingFaceModel) -> None:
        from accelerate.utils import broadcast_object_list

        shared = self._accelerator.distributed_type.value == "FSDP"
        # accelerate then hands out the weights of the first process; a copy for each could fill the memory
        empty = shared and self.rank > 0 and self._accelerator.state.fsdp_plugin.cpu_ram_efficient_loading
        given = isinstance(path, HuggingFaceModel)
        self._frozen = path if given else HuggingFaceModel(path, self._settings.dtype, empty)
        self._tokenizer = self._frozen.tokenizer
        # an empty model knows neither its fingerprint nor what its generation config adds
        self.identity, self._tokenizer.ends = broadcast_object_list([self._frozen.identity, self._tokenizer.ends])
        if shared:
            # FSDP2 wants an optimizer with the model; this one gets no gradients.
            model = self._frozen.network
            self._network, _ = self._accelerator.prepare(model, torch.optim.SGD(model.parameters()))
        else:
            self._network = self._frozen.network.to(self.device)

    def _sequences(self, data_path: str | os.PathLike) -> tuple[list[Labelled], int, int]:
        """Return what there is to learn from, and how many records are too long altogether or were cut."""
        room, sequences, skipped, cut = self._settings.pack_tokens, [], 0, 0
        self._prompts, number = [], PromptNumbers()  # of the sequences' prompts
        for index, record in enumerate(read_records(data_path)):
            asked = number(index, record)
            try:
                prompt, completion = self._tokenizer(record)
            except InputError as error:
                raise InputError(f"{data_path}, line {record.line}: {error}") from None
            tokens = [*prompt, *completion][:room]
            if len(tokens) <= len(prompt):
                skipped += 1
                continue
            cut += len(prompt) + len(completion) > room
            sequences.append(Labelled(index, tokens, len(prompt)))
            self._prompts.append(asked)
        if not sequences:
            raise InputError(
                f"{data_path}: has no token to learn from; every completion is empty or every prompt fills "
                f"--pack-tokens {room}"
            )
        return sequences, skipped, cut


def split_sequences(
    sequences: list[Labelled], prompts: list[int], arguments: TrainingArguments
) -> tuple[list[Labelled], list[Labelled]]:
    """Return the sequences, of prompts of these numbers, to train and to validate on, the same split as of traces."""
    records = [s.record for s in sequences]
    held_out = held_out_records(records, prompts, arguments.validation_share, arguments.seed)
    by_record = {s.record: s for s in sequences}
    validation, tokens = [], 0
    for record in generator(arguments.seed, Stream.VALIDATION).permutation(sorted(held_out)):
        if tokens < arguments.validation_tokens:
            validation.append(by_record[record])
            tokens += len(by_record[record].tokens) - by_record[record].prompt
    return [s for s in sequences if s.record not in held_out], validation
