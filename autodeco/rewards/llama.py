"""The quantized file itself as a policy: answers batched in llama.cpp, and the states that they were sampled from."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import llama_cpp
import numpy as np
import torch
from torch import Tensor

from autodeco import batch, native
from autodeco.base.identity import ModelIdentity, model_fingerprint
from autodeco.base.opening import open_base, open_vocabulary
from autodeco.base.output_matrix import read_output_matrix
from autodeco.base.states import CHECKED_POSITIONS, LogitsCheck, refuse_if_wrong
from autodeco.base.token_bytes import TokenBytes
from autodeco.base.tokenizer import Tokenizer
from autodeco.base.trained_context import trained_context
from autodeco.batch import shared
from autodeco.errors import InputError
from autodeco.export.checkpoint import read_heads
from autodeco.export.head_tensors import head_tensors
from autodeco.export.layout import open_layout
from autodeco.export.writer import write_sidecar
from autodeco.heads import Heads
from autodeco.reports.token_texts import texts_of
from autodeco.rewards.measuring import Static
from autodeco.rewards.policy import Ended, Predictor, Sampled
from autodeco.settings.machine import Processors
from autodeco.training.processes import Processes
from autodeco.training.rebuilt_logits import RebuiltLogits

LEAST_CONTEXT = 512


class LlamaPolicy:
    """The GGUF at ``path`` answering in at most ``max_tokens`` tokens, ``slots`` answers at a time.

    A common prefix of answers to a prompt is computed once, and its states are kept once (4 x H bytes each). Logits for
    training are rebuilt with the output matrix, on ``device``.
    """

    rank, processes = 0, Processes()

    def __init__(
        self,
        path: str | os.PathLike,
        max_tokens: int,
        slots: int,
        device: str,
        threads: int | None = None,
        gpu_layers: int = 0,
    ):
        if slots > (most := llama_cpp.llama_max_parallel_sequences()):
            raise InputError(f"slots {slots}: llama.cpp computes at most {most} answers at a time; give fewer")
        self._max_tokens, self._slots, self.device = max_tokens, slots, device
        self._machine = Processors(threads, gpu_layers)
        self._layout = open_layout(path)
        self.context = trained_context(self._layout)
        self._matrix = read_output_matrix(self._layout)
        self._rebuilt: RebuiltLogits | None = None
        self._check: LogitsCheck | None = LogitsCheck(seed=0)
        self._states: list[np.ndarray] = []
        self._vocabulary = open_vocabulary(self._layout)  # prompts are known before a context for them is opened
        self._tokenizer = Tokenizer(self._vocabulary)
        self._llm: llama_cpp.Llama | None = None
        self.identity = ModelIdentity(
            str(Path(path).resolve()),
            model_fingerprint(self._layout),
            self._layout.architecture,
            self._layout.base_name,
            self._matrix.hidden_size,
            self._vocabulary.n_vocab(),
        )

    def prompt_ids(self, prompt, tools=None) -> list[int]:
        return self._tokenizer.prompt_ids(prompt, tools)

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        heads: Predictor,
        seed: int,
        keep_states: bool = True,
        ended: Ended | None = None,
        numbers: Sequence[int] | None = None,
        max_tokens: int | None = None,
        blur: float = 0.0,
    ) -> list[list[Sampled]]:
        self._have_room(max(len(prompt) for prompt in prompts) + self._max_tokens)
        answers = [[None] * n for _ in prompts]
        states_of = [
            [[] for _ in range(n)] for _ in prompts
        ]  # of each answer: its states, and their largest probability
        self._states = []

        def seen(index: int, samples: list[int], hidden: np.ndarray, logits: np.ndarray) -> None:
            self._compare(hidden, logits)
            state = (len(self._states), native.spread(logits[0])[1])
            for sample in samples:
                states_of[index][sample].append(state)
            self._states.append(hidden[0].copy())

        with tempfile.TemporaryDirectory() as folder:
            most = max_tokens or self._max_tokens
            requests = batch.requests(self._llm, prompts, n, self._sampling(heads, blur), most)
            numbers = range(len(prompts)) if numbers is None else numbers
            requests = [replace(each, seed=batch.seed_of(seed, numbers[each.index], each.sample)) for each in requests]
            loaded = None if isinstance(heads, Static) else self._loaded(heads, Path(folder))
            on_state = seen if keep_states else None
            for answer in shared.answer(self._llm, requests, loaded, self._slots, on_state):
                decoding = answer.decoding
                states, largest = (
                    zip(*states_of[answer.prompt][answer.sample], strict=True) if keep_states else ((), ())
                )
                found = Sampled(
                    decoding.token.astype(np.int32),
                    answer.text,
                    answer.finished,
                    decoding.temperature,
                    decoding.top_p,
                    np.array(largest, np.float32),
                    np.array(states, np.int64),
                )
                answers[answer.prompt][answer.sample] = found
                if ended:
                    ended(answer.prompt, answer.sample, found)
        return answers

    def states(self, rows: np.ndarray) -> Tensor:
        states = np.array([self._states[row] for row in rows], np.float32)
        return torch.from_numpy(states.reshape(-1, self.identity.hidden_size)).to(self.device)

    def logits(self, hidden: Tensor) -> Tensor:
        if self._rebuilt is None:
            self._rebuilt = RebuiltLogits(self._matrix, self.device)
        return self._rebuilt(hidden)

    def token_texts(self, tokens: Sequence[int]) -> list[str]:
        pieces = TokenBytes(self._vocabulary.model, special=True)
        return texts_of(pieces[int(token)] for token in tokens)

    @staticmethod
    def _sampling(heads: Predictor, blur: float) -> batch.Sampling:
        if isinstance(heads, Static):
            return batch.Sampling(heads.temperature, heads.top_p, heads="none", top_p_blur=blur)
        return batch.Sampling(top_p_blur=blur)

    def _loaded(self, heads: Heads, folder: Path) -> native.Heads:
        sidecar = folder / "heads.gguf"
        heads.save_pretrained(folder)
        write_sidecar(sidecar, head_tensors(read_heads(folder, heads.hidden_size), "f32"), self._layout)
        return native.load_heads(sidecar)

    def _compare(self, hidden: np.ndarray, logits: np.ndarray) -> None:
        """Compare the first logits with rebuilt ones; raises InputError for a model whose logits are more than that."""
        if self._check is not None:
            self._check.offer(hidden, logits)
            if len(self._check.kept) == CHECKED_POSITIONS:
                refuse_if_wrong(self._check.relative_error(self._matrix), self._matrix)
                self._check = None

    def _have_room(self, context: int) -> None:
        """Have a context of at least ``context`` tokens."""
        if self._llm is None or self._llm.n_ctx() < context:
            if self._llm is not None:
                self._llm.close()  # its memory first
            self._llm = open_base(self._layout, n_ctx=max(context, LEAST_CONTEXT), **self._machine.opening)
