"""Decoding many sequences of a Hugging Face model at once, a token of each at a time, from prompts of any lengths.

Prompts are padded on the left; a prompt that several sequences begin with is computed once and its keys and values are
copied. The cache has its final size from the start, so that on a GPU one decoding step is a CUDA graph: small models
otherwise wait for Python to launch their kernels.
"""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from autodeco.errors import InputError
from autodeco.hugging_face.model import HuggingFaceModel

PREFILL_TOKENS = 16384  # computed at a time
GRANULE = 32  # cache sizes are multiples of this: batches of about the same lengths share one graph


class Decoder:
    """Room for ``rows`` sequences of up to ``prompt_tokens`` and then ``new_tokens`` tokens."""

    def __init__(self, model: HuggingFaceModel, rows: int, prompt_tokens: int, new_tokens: int):
        from transformers.cache_utils import Cache, StaticLayer

        self.rows, self.prompt_tokens = rows, _rounded(prompt_tokens)
        self.length = _rounded(self.prompt_tokens + new_tokens)
        self._model, self._network = model, model.language_model
        self._device, dtype = self._network.device, self._network.dtype
        layers = self._network.config.get_text_config().num_hidden_layers
        self._cache = Cache(layers=[StaticLayer(max_cache_len=self.length) for _ in range(layers)])
        self._tokens, self._positions = (torch.zeros(rows, 1, dtype=torch.long, device=self._device) for _ in range(2))
        # added to the attention's logits
        self._mask = torch.empty(rows, 1, 1, self.length, dtype=dtype, device=self._device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._captured = self._device.type != "cuda"
        self._used = 0

    @torch.no_grad()
    def start(self, prompts: Sequence[Sequence[int]], owners: Tensor) -> Tensor:
        """Begin row i with prompt ``owners[i]``; return the hidden states [rows, H] at the ends of the prompts."""
        tokens = torch.zeros(len(prompts), self.prompt_tokens, dtype=torch.long)
        seen = torch.zeros_like(tokens)
        for row, prompt in enumerate(prompts):
            tokens[row, -len(prompt) :] = torch.tensor(prompt)
            seen[row, -len(prompt) :] = 1
        tokens, seen, owners = (part.to(self._device) for part in (tokens, seen, owners))
        states = []
        keys = [[[], []] for _ in self._cache.layers]
        for part in torch.arange(len(prompts)).split(max(1, PREFILL_TOKENS // self.prompt_tokens)):
            states.append(self._prefill(tokens[part], seen[part], keys))
        for layer, parts in zip(self._cache.layers, keys, strict=True):
            filled = [torch.cat(part).index_select(0, owners) for part in parts]
            if not layer.is_initialized:
                layer.lazy_initialization(*filled)
            for room, values in zip((layer.keys, layer.values), filled, strict=True):
                room[:, :, : self.prompt_tokens] = values
        self._mask.fill_(torch.finfo(self._mask.dtype).min)
        self._mask[..., : self.prompt_tokens].masked_fill_(seen[owners][:, None, None].bool(), 0)
        self._positions.copy_(seen.sum(-1, keepdim=True)[owners] - 1)
        self._rewind()
        if not self._captured:
            self._capture()
        return torch.cat(states).index_select(0, owners)

    @torch.no_grad()
    def step(self, tokens: Tensor) -> Tensor:
        """Append ``tokens`` [rows]; return the hidden states [rows, H], good until the next step."""
        self._tokens.copy_(tokens.unsqueeze(-1))
        self._positions += 1
        self._mask[..., self._used] = 0
        self._used += 1
        if self._graph is None:
            return self._forward()
        self._graph.replay()
        return self._out

    def _prefill(self, tokens: Tensor, seen: Tensor, keys: list) -> Tensor:
        """Compute padded prompts [n, prompt_tokens] and append their keys and values, by layer, to ``keys``."""
        positions = (seen.cumsum(-1) - 1).clamp(min=0)
        out = self._network(
            input_ids=tokens, attention_mask=seen, position_ids=positions, use_cache=True, logits_to_keep=1
        )
        layers = out.past_key_values.layers
        if len(layers) != len(keys) or not all(self._keeps_all(layer) for layer in layers):
            raise InputError(
                f"{self._model.model.name}: not every layer keeps the keys and values of {self.length} tokens, "
                "which drawing with transformers needs; draw with llama.cpp"
            )
        for layer, (all_keys, all_values) in zip(layers, keys, strict=True):
            all_keys.append(layer.keys)
            all_values.append(layer.values)
        return self._model.hidden[:, -1]

    def _keeps_all(self, layer) -> bool:
        """Whether a layer's cache, after a prefill, is one that only grows until the answers end."""
        whole = getattr(layer, "keys", None) is not None and layer.keys.shape[2] == self.prompt_tokens
        return whole and (not layer.is_sliding or layer.sliding_window >= self.length)

    def _forward(self) -> Tensor:
        self._network(
            input_ids=self._tokens,
            attention_mask=self._mask,
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return self._model.hidden[:, -1]

    def _capture(self) -> None:
        """Record a decoding step as a CUDA graph; what it writes is written again by the real steps."""
        self._captured = True
        stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(stream):
                for _ in range(2):
                    self._forward()
                    self._rewind()
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(graph):
                self._out = self._forward()
            self._graph = graph
        except RuntimeError as error:  # what this model does cannot be recorded
            warnings.warn(f"{self._model.model.name}: decodes without a CUDA graph ({error})", stacklevel=2)
        self._rewind()

    def _rewind(self) -> None:
        """Set the cache back to the end of the prompts."""
        self._used = self.prompt_tokens
        for layer in self._cache.layers:
            layer.cumulative_length.fill_(self.prompt_tokens)


def _rounded(tokens: int) -> int:
    return -(-tokens // GRANULE) * GRANULE
