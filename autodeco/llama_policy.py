"""The quantized file itself as a policy: answers batched in llama.cpp, states read back from it."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from autodeco import batch
from autodeco.base_model import open_base
from autodeco.collecting import StateReader
from autodeco.export.checkpoint import read_heads
from autodeco.export.head_tensors import head_tensors
from autodeco.export.layout import open_layout
from autodeco.export.writer import write_sidecar
from autodeco.heads import Heads
from autodeco.policy import Sampled, Wanted
from autodeco.prefix_tree import Tokens, paths
from autodeco.tokenizing import Tokenizer
from autodeco.traces import Model, model_fingerprint


class LlamaPolicy:
    """The GGUF at ``path`` answering in at most ``max_tokens`` tokens; ``context`` holds prompt and answer."""

    rank = 0

    def __init__(self, path: str | os.PathLike, max_tokens: int, slots: int, device: str, threads: int | None = None):
        self._path, self._max_tokens, self._slots, self.device = path, max_tokens, slots, device
        self._threads = threads or os.cpu_count()
        self._layout = open_layout(path)
        self._open(512)
        self.model = Model(
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
        with tempfile.TemporaryDirectory() as folder:
            sidecar = Path(folder) / "heads.gguf"
            heads.save_pretrained(folder)
            write_sidecar(sidecar, head_tensors(read_heads(folder, heads.hidden_size), "f32"), self._layout)
            for answer in batch.generate(
                self._llm, prompts, n, max_tokens=self._max_tokens, seed=seed, heads=sidecar, slots=self._slots
            ):
                decoding = answer.decoding
                answers[answer.prompt][answer.sample] = Sampled(
                    tuple(decoding.token.tolist()), answer.text, answer.finished, decoding.temperature, decoding.top_p
                )
        return answers

    def states(self, wanted: Wanted) -> Iterator[tuple[Tensor, Tensor, list[tuple[int, Tokens]]]]:
        for index, (prompt, edges) in enumerate(wanted):
            edges = set(edges)
            for tokens, first in paths(edges):
                read = self._states.read([*prompt, *tokens[:first]], list(tokens[first:]))
                for offset, hidden, logits in read:
                    beginnings = [tokens[: first + offset + row + 1] for row in range(len(hidden))]
                    rows = [row for row, beginning in enumerate(beginnings) if beginning in edges]
                    if rows:
                        which = [(index, beginnings[row]) for row in rows]
                        yield torch.from_numpy(hidden[rows]), torch.from_numpy(logits[rows]), which

    def summed(self, values: Tensor) -> Tensor:
        return values

    def pieces(self, tokens: list[int]) -> list[str]:
        return [self._llm.detokenize([token], special=True).decode("utf-8", "replace") for token in tokens]

    def _open(self, context: int) -> None:
        self._llm = open_base(self._path, n_ctx=context, n_threads=self._threads, n_threads_batch=self._threads)
        self._tokenizer = Tokenizer(self._llm)
        self._states = StateReader(self._llm)
