"""Decoding many sequences of a Hugging Face model at once: a step adds one token to each, whatever their lengths.

A decoder has rows. When a sequence ends, another is admitted to its row; that one's prompt has been computed meanwhile.
On a GPU one decoding step of a number of rows is a CUDA graph, recorded once: without it, small models wait for Python
to launch their kernels. The logits are not computed here: the output matrix gets no rows.
"""

import contextlib
import inspect
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autodeco.errors import InputError
from autodeco.hugging_face.drawing import triton_compiles
from autodeco.hugging_face.model import HuggingFaceModel
from autodeco.terminal import one_line


@dataclass(frozen=True)
class Prefilled:
    """Computed prompts: by layer their keys and values [n, kv_heads, P, D], of which the first ``lengths`` count."""

    layers: list[tuple[Tensor, Tensor]]
    lengths: Tensor  # [n] int64
    hidden: Tensor  # [n, H], at the prompts' ends


class Decoder:
    """Room for ``rows`` sequences of up to ``length`` tokens.

    ``hidden`` [rows, H] are the states that predict the next token of each row, in the model's dtype.
    """

    def __init__(self, model: HuggingFaceModel, rows: int, length: int):
        self.rows, self.length = rows, length
        self._model, self._network = model, model.network
        self._device = self._network.device
        output = self._network.get_output_embeddings().weight
        self.hidden = torch.zeros(rows, output.shape[1], dtype=output.dtype, device=self._device)
        self._tokens = torch.zeros(rows, 1, dtype=torch.long, device=self._device)
        self._running, self._lengths = (torch.zeros(rows, dtype=torch.long, device=self._device) for _ in range(2))
        self._index = torch.arange(rows, device=self._device)
        self._layers: list[tuple[Tensor, Tensor]] = []
        # newer and older versions of transformers name it differently
        takes = inspect.signature(self._network.forward).parameters
        self._cache_name = "cache" if "cache" in takes else "past_key_values"
        self._own_attention = False  # whether the model's attention gets a mask, instead of the kernel the lengths
        self._graphs: dict[int, torch.cuda.CUDAGraph | None] = {}

    @torch.no_grad()
    def prefill(self, prompts: Sequence[Sequence[int]]) -> Prefilled:
        """Compute ``prompts``, padded at their ends, in one pass.

        Raises InputError if not every layer keeps the keys and values of ``length`` tokens.
        """
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        tokens = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)] = torch.as_tensor(prompt)
        lengths = _sent(lengths, self._device)
        with self._reading_hidden() as read:
            out = self._network(input_ids=_sent(tokens, self._device), use_cache=True)
        layers = out[self._cache_name].layers
        expected = self._network.config.get_text_config().num_hidden_layers
        if len(layers) != expected or not all(self._keeps_all(layer, tokens.shape[1]) for layer in layers):
            raise InputError(
                f"{self._model.identity.name}: not every layer keeps the keys and values of {self.length} tokens, "
                "which drawing with transformers needs; draw with llama.cpp"
            )
        ends = read[0][torch.arange(len(prompts), device=self._device), lengths - 1]
        return Prefilled([(layer.keys, layer.values) for layer in layers], lengths, ends)

    @torch.no_grad()
    def admit(self, rows: Tensor, prefilled: Prefilled, owners: Tensor) -> None:
        """Begin each of ``rows`` [k] with the prompt ``owners`` [k] of ``prefilled``."""
        if not self._layers:
            self._make_layers(prefilled)
        for room, computed in zip(self._layers, prefilled.layers, strict=True):
            for part, values in zip(room, computed, strict=True):
                part[:, :, : values.shape[2]].index_copy_(0, rows, values.index_select(0, owners))
        self._lengths.index_copy_(0, rows, prefilled.lengths.index_select(0, owners))
        self.hidden.index_copy_(0, rows, prefilled.hidden.index_select(0, owners))

    @torch.no_grad()
    def move(self, sources: Tensor, targets: Tensor) -> None:
        """Move the sequences in rows ``sources`` [k] to rows ``targets`` [k], none of which is a source."""
        for tensor in (self._lengths, self.hidden, *(part for layer in self._layers for part in layer)):
            tensor.index_copy_(0, targets, tensor.index_select(0, sources))

    @torch.no_grad()
    def release(self, rows: Tensor) -> None:
        """Forget what ``rows`` [k] hold, so that steps no longer read it."""
        self._lengths.index_fill_(0, rows, 0)

    @torch.no_grad()
    def step(self, tokens: Tensor, running: Tensor) -> None:
        """Append ``tokens`` [k] to the first k rows, update their ``hidden``.

        Rows that are not ``running`` [k] forget the token that they append.
        """
        rows = len(tokens)
        self._tokens[:rows, 0] = tokens
        self._running[:rows] = running
        if rows not in self._graphs:
            self._graphs[rows] = self._recorded(rows)
        if self._graphs[rows] is None:
            self._forward(rows)
        else:
            self._graphs[rows].replay()

    def _forward(self, rows: int) -> None:
        lengths = self._lengths[:rows]
        with self._reading_hidden() as read:
            self._append(rows, lengths)
        self.hidden[:rows] = read[-1][:, -1]
        lengths += self._running[:rows]

    def _append(self, rows: int, lengths: Tensor) -> None:
        from transformers.cache_utils import Cache

        from autodeco.hugging_face.slot_attention import SlotLayer

        layers = [SlotLayer(keys[:rows], values[:rows], self._index[:rows], lengths) for keys, values in self._layers]
        inputs = {"input_ids": self._tokens[:rows], "position_ids": lengths.unsqueeze(-1), "use_cache": True}
        inputs[self._cache_name] = Cache(layers=layers)
        if not self._own_attention:
            try:
                with self._slot_attention():
                    self._network(**inputs, slot_lengths=lengths + 1)
                return
            except NotImplementedError:
                self._own_attention = True
        dtype = self._network.dtype
        hidden = torch.arange(self.length, device=self._device) > lengths.unsqueeze(-1)
        mask = torch.zeros(hidden.shape, dtype=dtype, device=self._device)
        mask = mask.masked_fill_(hidden, torch.finfo(dtype).min)[:, None, None]
        self._network(**inputs, attention_mask=mask)

    @contextlib.contextmanager
    def _slot_attention(self) -> Iterator[None]:
        """Have the model attend with the kernel, which reads each row's own keys alone."""
        from autodeco.hugging_face.slot_attention import ATTENTION

        config = self._network.config.get_text_config()
        before = config._attn_implementation
        config._attn_implementation = ATTENTION
        try:
            yield
        finally:
            config._attn_implementation = before

    @contextlib.contextmanager
    def _reading_hidden(self) -> Iterator[list[Tensor]]:
        """Collect what the output matrix is to read, and have it read nothing."""
        read = []

        def take(module, inputs):
            read.append(inputs[0])
            return (inputs[0][:, :0],)

        handle = self._network.get_output_embeddings().register_forward_pre_hook(take, prepend=True)
        try:
            yield read
        finally:
            handle.remove()

    def _keeps_all(self, layer, tokens: int) -> bool:
        """Whether a layer's cache, after a prefill of ``tokens``, is one that only grows until the answers end."""
        whole = getattr(layer, "keys", None) is not None and layer.keys.shape[2] == tokens
        return whole and (not layer.is_sliding or layer.sliding_window >= self.length)

    def _make_layers(self, prefilled: Prefilled) -> None:
        for layer in prefilled.layers:
            room = (part.new_zeros(self.rows, part.shape[1], self.length, part.shape[3]) for part in layer)
            self._layers.append(tuple(room))
        self._own_attention = not (self._network._supports_attention_backend and kernel_fits(self._layers))

    def _recorded(self, rows: int) -> torch.cuda.CUDAGraph | None:
        """Return a step as a CUDA graph, None where there are none. What the rehearsals write, real steps rewrite."""
        if self._device.type != "cuda":
            return None
        running, hidden = self._running.clone(), self.hidden.clone()
        self._running.zero_()
        stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(stream):
                for _ in range(2):
                    self._forward(rows)
            torch.cuda.current_stream().wait_stream(stream)
            pool = next((other.pool() for other in self._graphs.values() if other is not None), None)
            with torch.cuda.graph(graph, pool=pool):
                self._forward(rows)
        except RuntimeError as error:  # what this model does cannot be recorded
            what = f"{self._model.identity.name}: decodes without a CUDA graph ({error})"
            warnings.warn(one_line(what), stacklevel=2)
            graph = None
        self._running.copy_(running)
        self.hidden.copy_(hidden)
        return graph


def kernel_fits(layers: list[tuple[Tensor, Tensor]]) -> bool:
    """Return whether the attention kernel runs on these keys and values of each layer."""
    if not (layers[0][0].is_cuda and triton_compiles()):
        return False
    from autodeco.hugging_face.slot_attention_triton import fits

    return all(fits(*layer) for layer in layers)


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return ``tensor`` on ``device``, without waiting for what a GPU is doing."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
