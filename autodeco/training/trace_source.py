"""Traces as a source of training: hidden states from disk, logits rebuilt with the model's output matrix."""

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import llama_cpp
import numpy as np
from torch import Tensor

from autodeco.base.opening import open_vocabulary
from autodeco.base.output_matrix import OutputMatrix, read_output_matrix
from autodeco.base.token_bytes import TokenBytes
from autodeco.errors import InputError
from autodeco.export.layout import Layout, open_layout
from autodeco.losses.exact import chunk_tokens
from autodeco.reports.token_texts import texts_of
from autodeco.runs.seeds import Stream, generator
from autodeco.traces.format import Manifest, read_manifest
from autodeco.training.arguments import TrainingArguments
from autodeco.training.batches import ShuffledBatches
from autodeco.training.rebuilt_logits import RebuiltLogits
from autodeco.training.source import Chunk
from autodeco.training.trace_answers import TraceAnswers
from autodeco.training.trace_tokens import TraceTokens


class TraceSource:
    """The traces in ``directory``; ``model_path`` is the GGUF that was collected from, if it has moved.

    Raises InputError for traces that are missing, unfinished or damaged, for another model than theirs, and for control
    with traces that were collected without commands.
    """

    rank = 0

    def __init__(
        self,
        directory: str | os.PathLike,
        arguments: TrainingArguments,
        model_path: str | os.PathLike | None = None,
    ):
        manifest = read_manifest(directory)
        if not manifest.complete:
            raise InputError(f"{directory}: collecting was interrupted; run `autodeco collect` again to finish")
        self.identity, self.device = manifest.model, arguments.device
        self.commands = manifest.control.commands if manifest.control else []
        self.made_of = {"data": manifest.data["sha256"], "collect settings": manifest.settings}
        if self.commands:
            self.made_of["commands"] = [asdict(command) for command in self.commands]
        self.details = {"data": manifest.data, "collect_settings": manifest.settings} | {
            "logits_error": manifest.logits_error,
            "collected": manifest.made,
        }
        self._traces = TraceTokens(directory, manifest)
        training, self._validation = self._traces.split(arguments.validation_share, arguments.seed)
        self._batches = ShuffledBatches(training, arguments.batch_tokens, arguments.seed)
        # Records in random order, but whole, so that they can be read in the report.
        records = self._traces.records(self._validation)
        position = generator(arguments.seed, Stream.VALIDATION).permutation(records.max() + 1)[records]
        self._validation = np.sort(self._validation[np.argsort(position, kind="stable")][: arguments.validation_tokens])
        self.tokens = len(training), len(self._validation)
        self._answers = TraceAnswers(self._traces, self._validation, arguments) if arguments.control else None
        self._layout = _open_model(manifest, Path(model_path or manifest.model.path))
        self._logits = RebuiltLogits(_read_matrix(manifest, self._layout), arguments.device)
        self._vocabulary: llama_cpp.Llama | None = None

    def training(self, step: int) -> Iterator[Chunk]:
        return self._chunks(self._batches.batch(step))

    def validation(self) -> Iterator[Chunk]:
        return self._chunks(self._validation)

    def ranked(self, step: int) -> Iterator[Chunk]:
        return self._chunks(self._answers.training(step))

    def ranked_validation(self) -> Iterator[Chunk]:
        return self._chunks(self._answers.validation)

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        return values

    def token_texts(self, tokens: list[int]) -> list[str]:
        try:
            self._vocabulary = self._vocabulary or open_vocabulary(self._layout)
        except InputError:  # training needs the output matrix only
            return [f"[{token}]" for token in tokens]
        pieces = TokenBytes(self._vocabulary.model, special=True)
        return texts_of(pieces[int(token)] for token in tokens)

    def _chunks(self, indices: np.ndarray) -> Iterator[Chunk]:
        size = chunk_tokens(self.identity.vocab_size, self.device)
        for start in range(0, len(indices), size):
            some = indices[start : start + size]
            hidden, labels = (part.to(self.device) for part in self._traces.batch(some))
            yield Chunk(hidden, self._logits(hidden), labels, self._traces.records(some), self._traces.given(some))


def _open_model(manifest: Manifest, path: Path) -> Layout:
    if not path.is_file():
        raise InputError(f"{path}: the model that the traces were collected from is not there; say where with --model")
    layout = open_layout(path)
    if layout.model_fingerprint != manifest.model.fingerprint:
        raise InputError(f"{path}: not the model that the traces were collected from; say where that is with --model")
    return layout


def _read_matrix(manifest: Manifest, layout: Layout) -> OutputMatrix:
    matrix = read_output_matrix(layout)
    if (matrix.hidden_size, matrix.vocab_size) != (manifest.model.hidden_size, manifest.model.vocab_size):
        raise InputError(f"{layout.path}: its output matrix has another size than traces.json says; collect again")
    return matrix
