"""The tokens of traces as one sequence of training examples, read from mapped shards as they are needed."""

import os
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from autodeco.data.control import NO_COMMAND
from autodeco.data.records import held_out_records
from autodeco.errors import InputError
from autodeco.traces.format import Manifest, check_shard


class TraceTokens:
    """Every state of the shards, numbered in order; hidden states stay in the mapped files until asked for."""

    def __init__(self, directory: str | os.PathLike, manifest: Manifest):
        self.control, self.directory = manifest.control, directory
        self._hidden, labels, records, prompts, commands = [], [], [], [], []
        for shard in manifest.shards:
            check_shard(directory, shard, manifest)
            with safe_open(Path(directory) / shard.file, framework="pt") as file:
                self._hidden.append(file.get_tensor("hidden"))  # a view of the mapped file
                labels.append(file.get_tensor("label").clone())
                records.append(file.get_tensor("record").numpy().copy())
                prompts.append(file.get_tensor("prompt").numpy().copy() if manifest.prompts else records[-1])
                plain = np.full(len(records[-1]), NO_COMMAND, np.int32)
                commands.append(file.get_tensor("command").numpy().copy() if self.control else plain)
            if labels[-1].min() < 0 or labels[-1].max() >= manifest.model.vocab_size:
                raise InputError(f"{directory}/{shard.file}: holds labels outside the vocabulary; collect again")
            if commands[-1].min() < 0 or (self.control and commands[-1].max() > len(self.control.commands)):
                raise InputError(f"{directory}/{shard.file}: holds commands outside the set; collect again")
        if not self._hidden:
            raise InputError(f"{directory}: holds no tokens; collect again")
        self._starts = np.cumsum([0] + [len(hidden) for hidden in self._hidden])
        self._labels = torch.cat(labels)
        self._records, self._prompts, self._commands = map(np.concatenate, (records, prompts, commands))

    def __len__(self) -> int:
        return len(self._labels)

    def batch(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return (hidden [n, H] float32, labels [n] int64) of the tokens at ``indices`` [n]."""
        hidden = torch.empty(len(indices), self._hidden[0].shape[1])
        shards = np.searchsorted(self._starts, indices, side="right") - 1
        for shard in np.unique(shards):
            rows = np.flatnonzero(shards == shard)
            hidden[torch.from_numpy(rows)] = self._hidden[shard][
                torch.from_numpy(indices[rows] - self._starts[shard])
            ].float()
        return hidden, self._labels[torch.from_numpy(indices)].long()

    def split(self, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (training, validation) token indices; those of equal prompts stay together, and ``share`` of the
        prompts are for validation. Traces of older versions do not tell equal prompts: there, records stay together.

        Of answers with commands, only the reading without one counts; collecting has then decided which records are
        held out. Raises InputError if there are fewer than two prompts.
        """
        if self.control:
            held_out = self.control.held_out
        else:
            held_out = held_out_records(self._records, self._prompts, share, seed)
        mask, plain = np.isin(self._records, list(held_out)), self._commands == NO_COMMAND
        training, validation = np.flatnonzero(plain & ~mask), np.flatnonzero(plain & mask)
        if not len(training) or not len(validation):
            raise InputError(f"{self.directory}: all records are held out, or none; collect more, or with another seed")
        return training, validation

    def records(self, indices: np.ndarray) -> np.ndarray:
        """Return the index of the record that each token at ``indices`` belongs to."""
        return self._records[indices]

    def given(self, indices: np.ndarray) -> np.ndarray:
        """Return the command after which each token at ``indices`` was read: NO_COMMAND, or 1 + its index."""
        return self._commands[indices]
