"""The parameters of heads, checked: every reader returns them and every writer takes them."""

from dataclasses import dataclass, field

import numpy as np

from autodeco.errors import InputError
from autodeco.export.control_ends import ControlEnds
from autodeco.export.schema import (
    CONTROL_HEAD,
    EXTRA_PLAIN,
    EXTRA_PROB_STATS,
    HEAD_WIDTH,
    HEADS,
    MAX_HIDDEN_SIZE,
    PARTS,
    TEMP_HEAD,
    TOP_P_HEAD,
)
from autodeco.export.schema import official_name as official


@dataclass(frozen=True)
class HeadWeights:
    """Checked heads: ``tensors`` maps official names to float32 arrays (first weights [256, H] and [256, H + 1 or 5],
    second weights [1, 256], biases [256] and [1]); ``source`` is the file or folder they came from, ``notes`` are lines
    for the user, ``base_model`` is the base model that the checkpoint names, if it does. ``control`` are the ends of
    the control head, None without one."""

    tensors: dict[str, np.ndarray] = field(repr=False)
    hidden_size: int
    prob_stats: bool
    source: str
    notes: tuple[str, ...] = ()
    base_model: str | None = None
    control: ControlEnds | None = None

    @property
    def has_temperature(self) -> bool:
        """Whether the temperature head is here."""
        return official(TEMP_HEAD, "0.weight") in self.tensors

    @property
    def has_top_p(self) -> bool:
        """Whether the top-p head is here."""
        return official(TOP_P_HEAD, "0.weight") in self.tensors

    @property
    def has_control(self) -> bool:
        """Whether the control head is here."""
        return official(CONTROL_HEAD, "0.weight") in self.tensors

    @property
    def kinds(self) -> list[str]:
        """Which heads are here, as users call them."""
        here = ("temperature", self.has_temperature), ("top-p", self.has_top_p), ("control", self.has_control)
        return [name for name, is_here in here if is_here]


def check_size(name: str, elements: int, source: str) -> None:
    """Raise InputError for a tensor that is larger than any of a head; call it before reading the tensor."""
    if elements > HEAD_WIDTH * MAX_HIDDEN_SIZE:
        raise InputError(f"{source}: {name} has {elements} values, far more than a head; not AutoDeco heads")


def check_heads(
    tensors: dict[str, np.ndarray],
    source: str,
    hidden_size: int | None = None,
    prob_stats: bool | None = None,
    control: ControlEnds | None = None,
) -> HeadWeights:
    """Make HeadWeights of ``tensors`` (official names, float32); ``control`` are the ends that a control head needs.

    ``hidden_size`` and ``prob_stats`` are what the source claims, or None; the widths of the weights decide. Raises
    InputError for a missing or misshapen tensor, a claim that the weights contradict, a control head without its ends
    or one of the other heads, and NaN or infinite values."""
    present = [head for head in HEADS if any(name.startswith(f"{head}.") for name in tensors)]
    if not present:
        raise InputError(f"{source}: holds no temp_head or top_p_head tensors; give an AutoDeco checkpoint")
    for head in present:
        for part in PARTS:
            if official(head, part) not in tensors:
                raise InputError(f"{source}: the tensor {official(head, part)} is missing; the {head} needs all four")
    if CONTROL_HEAD in present and len(present) < len(HEADS):
        raise InputError(f"{source}: a control head steers both other heads, and one is missing; fetch the heads again")
    if CONTROL_HEAD in present and control is None:
        raise InputError(f"{source}: has a control head, but not what it steers to; put config.json beside it")

    width = _hidden_size(tensors, present, source, hidden_size, prob_stats)
    found_stats = False
    if TOP_P_HEAD in present:
        extra = _columns(tensors, TOP_P_HEAD, source) - width
        if extra not in (EXTRA_PLAIN, EXTRA_PROB_STATS):
            raise InputError(
                f"{source}: top_p_head.mlp.0.weight has {width + extra} columns, a hidden size of {width} needs "
                f"{width + EXTRA_PLAIN} or {width + EXTRA_PROB_STATS}; these heads belong to another model"
            )
        found_stats = extra == EXTRA_PROB_STATS
        if prob_stats is not None and prob_stats != found_stats:
            raise InputError(
                f"{source}: use_enhanced_features is {str(prob_stats).lower()} but top_p_head.mlp.0.weight has "
                f"{width + extra} columns ({'with' if found_stats else 'without'} statistics); correct config.json"
            )
    for head in present:
        columns = _columns(tensors, head, source) if head == TOP_P_HEAD else width
        shapes = ((HEAD_WIDTH, columns), (HEAD_WIDTH,), (1, HEAD_WIDTH), (1,))
        for part, shape in zip(PARTS, shapes, strict=True):
            _check(official(head, part), tensors[official(head, part)], shape, source)
    kept = {official(head, part): tensors[official(head, part)] for head in present for part in PARTS}
    ends = control if CONTROL_HEAD in present else None
    return HeadWeights(kept, width, found_stats, source, control=ends)


def _hidden_size(tensors, present, source: str, claimed: int | None, prob_stats: bool | None) -> int:
    if TEMP_HEAD in present:
        width = _columns(tensors, TEMP_HEAD, source)
        if claimed is not None and claimed != width:
            raise InputError(
                f"{source}: temp_head.mlp.0.weight has {width} columns but the hidden size is said to be {claimed}; "
                "these heads belong to another model"
            )
        return width
    if claimed is not None:
        return claimed
    if prob_stats is None:
        raise InputError(
            f"{source}: a top-p head alone does not tell the hidden size; put config.json with hidden_size beside it"
        )
    return _columns(tensors, TOP_P_HEAD, source) - (EXTRA_PROB_STATS if prob_stats else EXTRA_PLAIN)


def _columns(tensors, head: str, source: str) -> int:
    name = official(head, "0.weight")
    weight = tensors[name]
    if weight.ndim != 2 or not weight.shape[1]:
        raise InputError(f"{source}: {name} has shape {list(weight.shape)}, expected [{HEAD_WIDTH}, hidden size]")
    return weight.shape[1]


def _check(name: str, array: np.ndarray, shape: tuple[int, ...], source: str) -> None:
    if array.shape != shape:
        raise InputError(f"{source}: {name} has shape {list(array.shape)}, expected {list(shape)}; not AutoDeco heads")
    bad = int(array.size - np.isfinite(array).sum())
    if bad:
        raise InputError(f"{source}: {name} holds {bad} NaN or infinite values; train or fetch the heads again")
