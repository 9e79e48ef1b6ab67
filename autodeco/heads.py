"""The two heads of AutoDeco: from a hidden state and its logits to a temperature and a top-p."""

import json
import math
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from autodeco.atomic import replacing
from autodeco.errors import InputError

# arXiv 2510.26697 and its official implementation, which made the released checkpoints.
HEAD_WIDTH = 256
TEMPERATURE_SCALE = 2.0
EPSILON = 1e-8  # added to T before the division and to q inside the logarithm of the statistics
PROB_STATS = 4

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
    q = softmax(logits / (temperature + EPSILON).unsqueeze(-1))
    top = torch.topk(q, min(5, q.shape[-1]), dim=-1).values
    entropy = -(q * torch.log(q + EPSILON)).sum(-1)
    return torch.stack([top[..., 0], entropy, q.var(-1), top.sum(-1)], dim=-1)


class Heads(nn.Module):
    """Temperature and top-p heads; ``prob_stats`` adds four statistics of the distribution to the top-p head's input.

    ``hidden`` is the vector that the output matrix multiplies (after the final norm), ``logits`` the raw logits.
    A head that is switched off predicts 1, which changes nothing.
    """

    def __init__(self, hidden_size: int, prob_stats: bool = True, temperature: bool = True, top_p: bool = True):
        super().__init__()
        if not temperature and not top_p:
            raise InputError("heads: both the temperature and the top-p head are off; keep at least one")
        self.hidden_size = hidden_size
        self.prob_stats = prob_stats
        self.base_config: dict = {}  # what config.json says about the base model
        self.temp_head = Head(hidden_size, 1 / TEMPERATURE_SCALE) if temperature else None
        width = hidden_size + 1 + (PROB_STATS if prob_stats else 0)
        self.top_p_head = Head(width, INITIAL_TOP_P) if top_p else None

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
            parts.append(stats.detach().to(dtype))
        return self.top_p_head(torch.cat(parts, dim=-1))

    def forward(self, hidden: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return (temperature [...], top_p [...]) for ``hidden`` [..., H] and ``logits`` [..., V]."""
        temperature = self.temperature(hidden)
        stats = None
        if self.prob_stats and self.top_p_head is not None:
            with torch.no_grad():
                stats = prob_stats(logits.float(), temperature.float())
        return temperature, self.top_p(hidden, temperature, stats)

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
        with replacing(directory / "model.safetensors") as part:
            part.write_bytes(save({name: tensor.contiguous() for name, tensor in self.state_dict().items()}))
        with replacing(directory / "config.json") as part:
            part.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike) -> "Heads":
        """Read heads from a checkpoint folder (heads only or merged with a base) or from one .safetensors file.

        The widths of the tensors decide the sizes; config.json, where there is one, must agree.
        Raises InputError for a missing or damaged file, wrong names or shapes, NaN or infinite weights.
        """
        path = Path(path)
        if not path.exists():
            raise InputError(f"{path}: no such file or folder; give a checkpoint folder or a .safetensors file")
        config = _read_config(path / "config.json") if path.is_dir() else {}
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        tensors = {}
        for file in files:
            tensors |= _read_head_tensors(file)
        for head, key in (("temp_head", "enable_temperature_head"), ("top_p_head", "enable_top_p_head")):
            if config.get(key) is False:  # switched off there, even if its tensors were saved
                tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(head)}
            elif config.get(key) is True and not any(name.startswith(head) for name in tensors):
                raise InputError(f"{path}: config.json has {key} but there is no {head}.mlp tensor; wrong folder?")
        hidden_size, stats = _sizes(path, tensors, config)
        heads = cls(hidden_size, stats, "temp_head.mlp.0.weight" in tensors, "top_p_head.mlp.0.weight" in tensors)
        expected = heads.state_dict()
        for name, tensor in expected.items():
            if name not in tensors:
                raise InputError(f"{path}: tensor {name} is missing; the checkpoint is incomplete")
            if tensors[name].shape != tensor.shape:
                raise InputError(
                    f"{path}: tensor {name} has shape {list(tensors[name].shape)}, expected {list(tensor.shape)}"
                )
        heads.load_state_dict({name: tensors[name].float() for name in expected})
        heads.base_config = {key: value for key, value in config.items() if key not in _OWN_KEYS}
        return heads


_OWN_KEYS = ("model_type", "enable_temperature_head", "enable_top_p_head", "use_enhanced_features", "hidden_size")


def _read_config(path: Path) -> dict:
    if not path.exists():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); fetch the checkpoint again") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: expected a JSON object; fetch the checkpoint again")
    return config


def _read_head_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(("temp_head.", "top_p_head."))]  # noqa: SIM118
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error}); fetch it again") from None
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise InputError(f"{path}: tensor {name} is {tensor.dtype}, expected a float type")
        if not torch.isfinite(tensor.float()).all():
            raise InputError(f"{path}: tensor {name} holds NaN or infinite values; these heads cannot be used")
    return tensors


def _sizes(path: Path, tensors: dict[str, Tensor], config: dict) -> tuple[int, bool]:
    """Return (hidden size, prob stats) from the first weights' widths, checked against ``config``."""
    if not tensors:
        raise InputError(f"{path}: holds no temp_head.mlp or top_p_head.mlp tensor; this is no AutoDeco checkpoint")
    widths = {}
    for head in ("temp_head", "top_p_head"):
        weight = tensors.get(f"{head}.mlp.0.weight")
        if weight is not None:
            if weight.ndim != 2:
                raise InputError(f"{path}: tensor {head}.mlp.0.weight has {weight.ndim} dimensions, expected 2")
            widths[head] = weight.shape[1]
    if not widths:
        raise InputError(f"{path}: has head tensors but no mlp.0.weight; the checkpoint is incomplete")
    said_hidden, said_stats = config.get("hidden_size"), config.get("use_enhanced_features")
    top_p_width = widths.get("top_p_head")
    if "temp_head" in widths:
        hidden_size = widths["temp_head"]
    elif isinstance(said_hidden, int):
        hidden_size = said_hidden
    else:
        # One width alone cannot tell H+1 from H+5; with statistics is the official default.
        hidden_size = top_p_width - 1 - (0 if said_stats is False else PROB_STATS)
    if hidden_size < 1:
        raise InputError(f"{path}: the heads' first weights are too narrow for any hidden state")
    if said_hidden is not None and said_hidden != hidden_size:
        raise InputError(f"{path}: config.json says hidden_size {said_hidden}, the tensors say {hidden_size}")
    if top_p_width is None:
        return hidden_size, bool(said_stats)
    if top_p_width not in (hidden_size + 1, hidden_size + 1 + PROB_STATS):
        raise InputError(
            f"{path}: top_p_head.mlp.0.weight is {top_p_width} wide, expected {hidden_size + 1} or {hidden_size + 5}"
        )
    stats = top_p_width != hidden_size + 1
    if said_stats is not None and bool(said_stats) != stats:
        raise InputError(
            f"{path}: config.json says use_enhanced_features {said_stats}, the width of the top-p head says {stats}"
        )
    return hidden_size, stats
