"""Attention of one query a row over that row's own keys: a program for each row and each head of keys and values.

The query heads that share keys are the rows of one matrix product (padded to its least size, 16), so every key and
value is read once and none is repeated. A row costs what its own length costs. Sums and exponentials are float32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

LEAST = 16  # rows and columns of a product of tensor cores
BLOCK = 4096  # numbers of keys at a time: with three blocks of keys and of values under way, 48 KB
LARGEST_HEAD = 256


def fits(keys: Tensor, values: Tensor) -> bool:
    """Return whether the kernel attends to ``keys`` and ``values`` [..., D]."""
    size = keys.shape[-1]
    whole = size == values.shape[-1] and size in (1 << i for i in range(4, LARGEST_HEAD.bit_length()))
    return whole and keys.dtype in (torch.bfloat16, torch.float16)


def attend(query: Tensor, keys: Tensor, values: Tensor, lengths: Tensor, scaling: float) -> Tensor:
    """Return [rows, 1, heads, D] for ``query`` [rows, heads, 1, D] over the first ``lengths`` [rows] of the cached
    ``keys`` and ``values`` [rows, kv_heads, length, D]. Head h reads the keys of head h // (heads / kv_heads)."""
    rows, heads, _, size = query.shape
    group = heads // keys.shape[1]
    out = torch.empty((rows, 1, heads, size), dtype=query.dtype, device=query.device)
    query = query if query.stride(-1) == 1 else query.contiguous()
    _attend[(rows, keys.shape[1])](
        query, keys, values, lengths, out, scaling,
        query.stride(0), query.stride(1), *keys.stride()[:3], *values.stride()[:3],
        group, max(LEAST, triton.next_power_of_2(group)), size, max(LEAST, BLOCK // size), num_warps=4, num_stages=3,
    )  # fmt: skip
    return out


@triton.jit
def _attend(
    query_ptr, keys_ptr, values_ptr, lengths_ptr, out_ptr, scaling,
    query_row, query_head, keys_row, keys_head, keys_token, values_row, values_head, values_token,
    GROUP: tl.constexpr, ROOM: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, kv_head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    length = tl.load(lengths_ptr + row).to(tl.int32)
    head, d, index = tl.arange(0, ROOM), tl.arange(0, SIZE), tl.arange(0, BLOCK)
    real = (head < GROUP)[:, None]
    query_at = query_ptr + row * query_row + (kv_head * GROUP + head)[:, None] * query_head + d[None, :]
    query = tl.load(query_at, mask=real, other=0.0)
    keys_at = keys_ptr + row * keys_row + kv_head * keys_head + d[:, None]
    values_at = values_ptr + row * values_row + kv_head * values_head + d[None, :]

    largest = tl.full([ROOM], float("-inf"), tl.float32)
    total = tl.zeros([ROOM], tl.float32)
    out = tl.zeros([ROOM, SIZE], tl.float32)
    for start in range(0, length, BLOCK):
        at = start + index
        keys = tl.load(keys_at + at[None, :] * keys_token, mask=(at < length)[None, :], other=0.0)
        s = tl.dot(query, keys) * scaling
        s = tl.where((at < length)[None, :], s, float("-inf"))
        higher = tl.maximum(largest, tl.max(s, 1))
        p, less = tl.exp(s - higher[:, None]), tl.exp(largest - higher)
        values = tl.load(values_at + at[:, None] * values_token, mask=(at < length)[:, None], other=0.0)
        total = total * less + tl.sum(p, 1)
        out = out * less[:, None] + tl.dot(p.to(values.dtype), values)
        largest = higher
    out_at = out_ptr + (row * tl.num_programs(1) + kv_head) * GROUP * SIZE + head[:, None] * SIZE + d[None, :]
    tl.store(out_at, out / total[:, None], mask=real)
