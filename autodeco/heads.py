"""The heads of AutoDeco: from a hidden state and its logits to a temperature and a top-p, and what a prompt asks of
both."""

import copy
import hashlib
import json
import math
import os
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from autodeco.errors import InputError
from autodeco.export.checkpoint import HEADS_FILE, read_config, read_heads
from autodeco.export.control_ends import ControlEnds
from autodeco.export.schema import EXTRA_PLAIN, EXTRA_PROB_STATS, HEAD_WIDTH, STATS_EPSILON, TEMPERATURE_SCALE
from autodeco.runs.atomic import replacing

# Heads that have learned nothing should decode like a sensible static setting: temperature 1, top-p 0.95.
INITIAL_TOP_P = 0.95


class Head(nn.Module):
    """One number in (0, 1) from an input vector [..., width], in the official layout ``mlp.{0,2}``."""

    def __init__(self, width: int, initial: float):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, HEAD_WIDTH), nn.ReLU(), nn.Linear(HEAD_WIDTH, 1))
        # A last layer of zeros makes the first prediction the same for every token; its bias is that prediction.
        # The layer before it keeps torch's random start, so the units differ as soon as the last layer moves.
        nn.init.zeros_(self.mlp[2].weight)
        nn.init.constant_(self.mlp[2].bias, math.log(initial / (1 - initial)))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` [..., width] to [...]."""
        return torch.sigmoid(self.mlp(x)).squeeze(-1)


def softmax(z: Tensor) -> Tensor:
    """Return softmax over the last dimension, [..., V].

    torch.softmax on a CPU adds the exponentials up one after another: at V 49152 its float32 results are off by up to
    3e-5 relative. torch.sum adds in a tree and is off by 4e-7.
    """
    e = torch.exp(z - z.detach().amax(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True)


def prob_stats(logits: Tensor, temperature: Tensor) -> Tensor:
    """Return max, entropy (nats), unbiased variance and sum of the 5 largest of softmax(logits / T), [..., 4].

    ``logits`` [..., V], ``temperature`` [...]. The order is that of the official implementation.
    """
    q = softmax(logits / (temperature + STATS_EPSILON).unsqueeze(-1))
    top = torch.topk(q, min(5, q.shape[-1]), dim=-1).values
    entropy = -(q * torch.log(q + STATS_EPSILON)).sum(-1)
    return torch.stack([top[..., 0], entropy, q.var(-1), top.sum(-1)], dim=-1)


class Heads(nn.Module):
    """Temperature and top-p heads; ``prob_stats`` adds four statistics of the distribution to the top-p head's input.

    ``hidden`` is the vector that the output matrix multiplies (after the final norm), ``logits`` the raw logits.
    A head that is switched off predicts 1, which changes nothing. With ``control`` there is a control head as well: its
    level at the state of an answer's first token steers both others over the whole answer.
    """

    def __init__(
        self,
        hidden_size: int,
        prob_stats: bool = True,
        temperature: bool = True,
        top_p: bool = True,
        control: ControlEnds | None = None,
    ):
        super().__init__()
        if control is not None and not (temperature and top_p):
            raise InputError("heads: a control head steers both a temperature and a top-p head; one is off")
        if not temperature and not top_p:
            raise InputError("heads: both the temperature and the top-p head are off; keep at least one")
        self.hidden_size = hidden_size
        self.prob_stats = prob_stats
        self.base_config: dict = {}  # what config.json says about the base model
        self.temp_head = Head(hidden_size, 1 / TEMPERATURE_SCALE) if temperature else None
        width = hidden_size + (EXTRA_PROB_STATS if prob_stats else EXTRA_PLAIN)
        self.top_p_head = Head(width, INITIAL_TOP_P) if top_p else None
        self.control = control
        self.control_head = Head(hidden_size, 0.5) if control is not None else None  # level 0 for every state

    def temperature(self, hidden: Tensor) -> Tensor:
        """Return the temperature in (0, 2), [...], for ``hidden`` [..., H]."""
        if self.temp_head is None:
            return torch.ones(hidden.shape[:-1], dtype=torch.float32, device=hidden.device)
        return TEMPERATURE_SCALE * self.temp_head(hidden.to(self.temp_head.mlp[0].weight.dtype))

    def top_p(self, hidden: Tensor, temperature: Tensor, stats: Tensor | None) -> Tensor:
        """Return the top-p in (0, 1), [...], for ``hidden`` [..., H], ``temperature`` [...] and ``stats`` [..., 4].

        Temperature and statistics are inputs only: no gradient flows back through them (as in the official code).
        """
        if self.top_p_head is None:
            return torch.ones(hidden.shape[:-1], dtype=torch.float32, device=hidden.device)
        dtype = self.top_p_head.mlp[0].weight.dtype
        parts = [hidden.to(dtype), temperature.detach().unsqueeze(-1).to(dtype)]
        if self.prob_stats:
            assert stats is not None, "these heads read the statistics"
            parts.append(stats.detach().to(dtype))
        return self.top_p_head(torch.cat(parts, dim=-1))

    def level(self, hidden: Tensor) -> Tensor:
        """Return the level in (-1, 1), [...], that the prompt asks for, at ``hidden`` [..., H] of an answer's first
        token; 0 asks for nothing, and is all that is read without a control head."""
        if self.control_head is None or self.control is None:
            return torch.zeros(hidden.shape[:-1], dtype=torch.float32, device=hidden.device)
        raw = 2 * self.control_head(hidden.to(self.control_head.mlp[0].weight.dtype)) - 1
        beyond = (raw.abs() - self.control.dead_zone).clamp(min=0) / (1 - self.control.dead_zone)
        return torch.sign(raw) * beyond

    def steered(self, temperature: Tensor, top_p: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Return what ``temperature`` and ``top_p`` [...] become at ``level`` [...] of the answer: the same, bit for
        bit, at level 0."""
        if self.control is None:
            return temperature, top_p
        certain, diverse, ends = (-level).clamp(min=0), level.clamp(min=0), self.control
        return (
            temperature * (1 - certain * (1 - ends.low_temperature_factor))
            + diverse * (ends.high_temperature - temperature).clamp(min=0),
            top_p * (1 - certain * (1 - ends.low_top_p_factor)) + diverse * (ends.high_top_p - top_p).clamp(min=0),
        )

    def without_control(self) -> "Heads":
        """Return a copy that has no control head."""
        heads = copy.deepcopy(self)
        heads.control = heads.control_head = None
        return heads

    def forward(self, hidden: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return (temperature [...], top_p [...]), before any steering, for ``hidden`` [..., H] and ``logits``
        [..., V]."""
        temperature = self.temperature(hidden)
        stats = None
        if self.prob_stats and self.top_p_head is not None:
            with torch.no_grad():
                stats = prob_stats(logits.float(), temperature.float())
        return temperature, self.top_p(hidden, temperature, stats)

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of all weights, and of what a control head steers to: it tells heads from others."""
        weights = [tensor.cpu().numpy().tobytes() for tensor in self.state_dict().values()]
        ends = b"" if self.control is None else repr(self.control).encode()
        return hashlib.sha256(b"".join([*weights, ends])).hexdigest()

    def moved(self, temperature: float, top_p: float) -> "Heads":
        """Return a copy that predicts more of both everywhere: ``temperature`` and ``top_p`` are added to the arguments
        of the heads' sigmoids."""
        heads = copy.deepcopy(self)
        with torch.no_grad():
            for head, by in ((heads.temp_head, temperature), (heads.top_p_head, top_p)):
                if head is not None:
                    head.mlp[2].bias += by
        return heads

    def save_pretrained(self, directory: str | os.PathLike) -> None:
        """Write ``model.safetensors`` and ``config.json`` in the official names and keys into ``directory``."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        config = self.base_config | {
            "model_type": "autodeco",
            "enable_temperature_head": self.temp_head is not None,
            "enable_top_p_head": self.top_p_head is not None,
            "use_enhanced_features": self.prob_stats,
            "hidden_size": self.hidden_size,
        }
        if self.control is not None:
            config |= {"enable_control_head": True, "control": asdict(self.control)}
        with replacing(directory / HEADS_FILE) as part:
            part.write_bytes(save({name: tensor.contiguous() for name, tensor in self.state_dict().items()}))
        with replacing(directory / "config.json") as part:
            part.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike) -> "Heads":
        """Read heads, as float32, from whatever ``autodeco-export`` reads: a folder, a safetensors file, a GGUF.

        The widths of the weights decide the sizes; what config.json says must agree. Raises InputError for anything
        that is not a whole and finite set of heads.
        """
        weights = read_heads(path)
        kinds = weights.has_temperature, weights.has_top_p, weights.control
        heads = cls(weights.hidden_size, weights.prob_stats, *kinds)
        heads.load_state_dict({name: torch.from_numpy(array) for name, array in weights.tensors.items()})
        heads.base_config = read_config(path)
        return heads
