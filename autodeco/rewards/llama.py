"""The quantized file itself as a policy: answers batched in llama.cpp, and the states that they were drawn from."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from autodeco import batch, native
from autodeco.base.identity import ModelIdentity, model_fingerprint
from autodeco.base.opening import open_base
from autodeco.base.output_matrix import read_output_matrix
from autodeco.base.states import CHECKED_POSITIONS, LogitsCheck, refuse_if_wrong
from autodeco.base.tokenizer import Tokenizer
from autodeco.batch import shared
from autodeco.export.checkpoint import read_heads
from autodeco.export.head_tensors import head_tensors
from autodeco.export.layout import open_layout
from autodeco.export.writer import write_sidecar
from autodeco.heads import Heads
from autodeco.rewards.answer_trees import Tokens
from autodeco.rewards.policy import Sampled, Wanted
from autodeco.training.rebuilt_logits import RebuiltLogits


class LlamaPolicy:
    """The GGUF at ``path`` answering in at most ``max_tokens`` tokens, ``slots`` answers at a time.

    What answers to a prompt begin with in common is computed once. Logits for training are rebuilt with the output
    matrix, on ``device``.
    """

    rank = 0

    def __init__(self, path: str | os.PathLike, max_tokens: int, slots: int, device: str, threads: int | None = None):
        self._path, self._max_tokens, self._slots, self.device = path, max_tokens, slots, device
        self._threads = threads or os.cpu_count()
        self._layout, self._matrix = open_layout(path), read_output_matrix(path)
        self._rebuilt: RebuiltLogits | None = None
        self._check: LogitsCheck | None = LogitsCheck(seed=0)
        self._drawn: dict[tuple[int, ...], dict[Tokens, np.ndarray]] = {}  # by prompt: the state behind each beginning
        self._open(512)
        self.model = ModelIdentity(
            str(Path(path).resolve()),
            model_fingerprint(path),
            self._layout.architecture,
            self._layout.base_name,
            self._llm.n_embd(),
            self._llm.n_vocab(),
        )

    def prompt_ids(self, prompt) -> list[int]:
        return self._tokenizer.prompt_ids(prompt)

    def sample(self, prompts: Sequence[Sequence[int]], n: int, heads: Heads, seed: int) -> list[list[Sampled]]:
        longest = max(len(prompt) for prompt in prompts) + self._max_tokens
        if longest > self._llm.n_ctx():
            self._open(longest)
        answers = [[None] * n for _ in prompts]
        self._drawn = {tuple(prompt): {} for prompt in prompts}

        def seen(index: int, beginnings: list[Tokens], hidden: np.ndarray, logits: np.ndarray) -> None:
            self._compare(hidden, logits)
            self._drawn[tuple(prompts[index])] |= dict.fromkeys(beginnings, hidden[0].copy())

        with tempfile.TemporaryDirectory() as folder:
            sidecar = Path(folder) / "heads.gguf"
            heads.save_pretrained(folder)
            write_sidecar(sidecar, head_tensors(read_heads(folder, heads.hidden_size), "f32"), self._layout)
            requests = batch.requests(self._llm, prompts, n, batch.Sampling(), self._max_tokens, seed=seed)
            for answer in shared.answer(self._llm, requests, native.load_heads(sidecar), self._slots, seen):
                decoding = answer.decoding
                answers[answer.prompt][answer.sample] = Sampled(
                    tuple(decoding.token.tolist()), answer.text, answer.finished, decoding.temperature, decoding.top_p
                )
        return answers

    def states(self, wanted: Wanted) -> Iterator[tuple[Tensor, list[tuple[int, Tokens]]]]:
        for index, (prompt, edges) in enumerate(wanted):
            drawn, edges = self._drawn.get(tuple(prompt), {}), list(edges)
            if not drawn.keys() >= set(edges):
                raise ValueError("states are kept of the answers drawn last only")
            if edges:
                yield torch.from_numpy(np.stack([drawn[edge] for edge in edges])), [(index, edge) for edge in edges]

    def logits(self, hidden: Tensor) -> Tensor:
        if self._rebuilt is None:
            self._rebuilt = RebuiltLogits(self._matrix, self.device)
        return self._rebuilt(hidden)

    def _compare(self, hidden: np.ndarray, logits: np.ndarray) -> None:
        """Compare the first logits with rebuilt ones; raises InputError for a model whose logits are more than that."""
        if self._check is not None:
            self._check.offer(hidden, logits)
            if len(self._check.kept) == CHECKED_POSITIONS:
                refuse_if_wrong(self._check.relative_error(self._matrix), self._matrix)
                self._check = None

    def summed(self, values: Tensor) -> Tensor:
        return values

    def pieces(self, tokens: list[int]) -> list[str]:
        return [self._llm.detokenize([token], special=True).decode("utf-8", "replace") for token in tokens]

    def _open(self, context: int) -> None:
        self._llm = open_base(self._path, n_ctx=context, n_threads=self._threads, n_threads_batch=self._threads)
        self._tokenizer = Tokenizer(self._llm)
