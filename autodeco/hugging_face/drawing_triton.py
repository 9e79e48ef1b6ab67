"""The statistics and draws of ``drawing`` on a CUDA GPU: one program a row, which reads its logits in passes.

The statistics take three passes: the five largest; the sums; the entropy of the official formula, which needs the
total. Sampling takes one pass for the masses of the lanes, and one for each attempt. That one sums, lane by lane, the
tokens that are likelier than the attempt's. The sum decides whether the token is accepted, and the lanes' sums are what
the next attempt samples from. To find a token within its lane, only that lane is read again.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from autodeco.export import schema
from autodeco.hugging_face import drawing as plain
from autodeco.hugging_face.drawing import Statistics

LANES, COLUMNS = tl.constexpr(plain.LANES), tl.constexpr(plain.COLUMNS)
WARPS = plain.LANES // 32  # a lane is a thread, which loads 16 bytes at a time
UNROLL = tl.constexpr(2)
STATS_EPSILON = tl.constexpr(schema.STATS_EPSILON)
GREEDY_TEMPERATURE = tl.constexpr(schema.GREEDY_TEMPERATURE)
FEATURES = tl.constexpr(plain.FEATURES)


def statistics(logits: Tensor, temperature: Tensor) -> Statistics:
    """As ``drawing.statistics``."""
    n, vocab = logits.shape
    features = torch.empty((n, plain.FEATURES), dtype=torch.float32, device=logits.device)
    top_probability, entropy, largest = (torch.empty(n, dtype=torch.float32, device=logits.device) for _ in range(3))
    if n:
        _statistics[(n,)](
            logits, logits.stride(0), temperature.float().contiguous(), features, top_probability, entropy, largest,
            vocab, num_warps=WARPS,
        )  # fmt: skip
    return Statistics(features, top_probability, entropy, largest)


def draw(logits: Tensor, largest: Tensor, temperature: Tensor, top_p: Tensor, seed: int, counters: Tensor) -> Tensor:
    """As ``drawing.draw``."""
    n, vocab = logits.shape
    tokens = torch.empty(n, dtype=torch.int64, device=logits.device)
    if n:
        _draw[(n,)](
            logits, logits.stride(0), largest.contiguous(), temperature.float().contiguous(),
            top_p.float().contiguous(), counters.contiguous(), tokens, _word(seed), _word(seed >> 32), vocab,
            triton.next_power_of_2(triton.cdiv(vocab, plain.LANES * plain.COLUMNS)), num_warps=WARPS,
        )  # fmt: skip
    return tokens


def _word(value: int) -> int:
    """Return the lowest 32 bits as a signed integer: the kernels' arguments are that."""
    return ((value & plain.WORD) ^ 0x80000000) - 0x80000000


@triton.jit
def _statistics(
    z_ptr, stride, temperature_ptr, features_ptr, top_probability_ptr, entropy_ptr, largest_ptr, vocab: tl.constexpr
):
    """All statistics of one row."""
    row = tl.program_id(0)
    z_row = z_ptr + row.to(tl.int64) * stride
    b = 1.0 / (tl.load(temperature_ptr + row) + STATS_EPSILON)
    largest, top_five = _top_five(z_row, vocab, b)

    total = tl.zeros([LANES], tl.float64)
    squares, plain_total, plain_mean = total, total, total
    for start in tl.range(0, vocab, LANES * COLUMNS, loop_unroll_factor=UNROLL):
        s = _tile(z_row, start, vocab) - largest
        e = tl.exp(s * b)
        total += tl.sum(e, 1).to(tl.float64)
        squares += tl.sum(e * e, 1).to(tl.float64)
        e = tl.exp(s)
        plain_total += tl.sum(e, 1).to(tl.float64)
        plain_mean += tl.sum(tl.where(e > 0.0, e * s, 0.0), 1).to(tl.float64)
    total, squares = tl.sum(total, 0), tl.sum(squares, 0)
    plain_total, plain_mean = tl.sum(plain_total, 0), tl.sum(plain_mean, 0)

    share = (1.0 / total).to(tl.float32)
    entropy = tl.zeros([LANES], tl.float64)
    for start in tl.range(0, vocab, LANES * COLUMNS, loop_unroll_factor=UNROLL):
        q = tl.exp((_tile(z_row, start, vocab) - largest) * b) * share
        entropy -= tl.sum(q * tl.log(q + STATS_EPSILON), 1).to(tl.float64)
    entropy = tl.sum(entropy, 0)

    variance = (squares / (total * total) - 1.0 / vocab) / (vocab - 1)
    features = features_ptr + row * FEATURES
    tl.store(features, (1.0 / total).to(tl.float32))
    tl.store(features + 1, entropy.to(tl.float32))
    tl.store(features + 2, variance.to(tl.float32))
    tl.store(features + 3, (top_five / total).to(tl.float32))
    tl.store(top_probability_ptr + row, (1.0 / plain_total).to(tl.float32))
    tl.store(entropy_ptr + row, (tl.log(plain_total) - plain_mean / plain_total).to(tl.float32))
    tl.store(largest_ptr + row, largest)


@triton.jit(do_not_specialize=["seed_low", "seed_high"])
def _draw(
    z_ptr, stride, largest_ptr, temperature_ptr, top_p_ptr, counters_ptr, tokens_ptr, seed_low, seed_high,
    vocab: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """One row's token."""
    row = tl.program_id(0)
    z_row = z_ptr + row.to(tl.int64) * stride
    largest, temperature = tl.load(largest_ptr + row), tl.load(temperature_ptr + row)
    if temperature < GREEDY_TEMPERATURE:
        tl.store(tokens_ptr + row, _first_of(z_row, vocab, largest).to(tl.int64))
    else:
        b, top_p = 1.0 / temperature, tl.load(top_p_ptr + row).to(tl.float64)
        k0, k1 = seed_low.to(tl.uint32, bitcast=True), seed_high.to(tl.uint32, bitcast=True)
        c1 = tl.load(counters_ptr + row * 3).to(tl.uint32, bitcast=True)
        c2 = tl.load(counters_ptr + row * 3 + 1).to(tl.uint32, bitcast=True)
        c3 = tl.load(counters_ptr + row * 3 + 2).to(tl.uint32, bitcast=True)

        # What is likelier than token x with logit z_x: everything but -inf, at first.
        x, z_x = row * 0, largest * 0.0 + float("-inf")
        masses = _masses_above(z_row, vocab, largest, b, z_x, x)
        total = tl.sum(masses, 0)
        attempt, searching = row * 0, row * 0 + 1
        while searching == 1:
            c0 = attempt.to(tl.uint32, bitcast=True)
            word, _, _, _ = tl.philox_impl(c0, c1, c2, c3, k0, k1)
            u = (word.to(tl.float64) + 0.5) * 2.3283064365386963e-10  # 2^-32
            x, z_x = _at(z_row, vocab, largest, b, masses, u, z_x, x, TILES)
            masses = _masses_above(z_row, vocab, largest, b, z_x, x)
            mass = tl.sum(masses, 0)
            searching = ((mass >= top_p * total) & (mass > 0.0)).to(tl.int32)  # 0 for NaN
            attempt += 1
        tl.store(tokens_ptr + row, x.to(tl.int64))


@triton.jit
def _tile(z_row, start, vocab: tl.constexpr):
    ids = start + tl.arange(0, LANES)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    return tl.load(z_row + ids, mask=ids < vocab, other=float("-inf"))


@triton.jit
def _top_five(z_row, vocab: tl.constexpr, b):
    """Return the largest logit and the sum of exp(b s) of the five largest."""
    first = tl.full([LANES, COLUMNS], float("-inf"), tl.float32)
    second, third, fourth, fifth = first, first, first, first
    for start in tl.range(0, vocab, LANES * COLUMNS, loop_unroll_factor=UNROLL):
        z = _tile(z_row, start, vocab)
        first, z = tl.maximum(first, z), tl.minimum(first, z)
        second, z = tl.maximum(second, z), tl.minimum(second, z)
        third, z = tl.maximum(third, z), tl.minimum(third, z)
        fourth, z = tl.maximum(fourth, z), tl.minimum(fourth, z)
        fifth = tl.maximum(fifth, z)
    largest = tl.max(first)
    indices = tl.arange(0, LANES)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    top_five = largest * 0.0
    for _ in tl.static_range(5):
        best = tl.max(first)
        top_five += tl.exp((best - largest) * b)
        at = indices == tl.min(tl.where(first == best, indices, LANES * COLUMNS))
        first = tl.where(at, second, first)
        second = tl.where(at, third, second)
        third = tl.where(at, fourth, third)
        fourth = tl.where(at, fifth, fourth)
        fifth = tl.where(at, float("-inf"), fifth)
    return largest, top_five


@triton.jit
def _first_of(z_row, vocab: tl.constexpr, value):
    """Return the lowest id whose logit is ``value``, one of the vocabulary if there is none."""
    first = tl.full([LANES, COLUMNS], vocab - 1, tl.int32)
    for start in range(0, vocab, LANES * COLUMNS):
        ids = start + tl.arange(0, LANES)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
        z = tl.load(z_row + ids, mask=ids < vocab, other=float("-inf"))
        first = tl.minimum(first, tl.where((z == value) & (ids < vocab), ids, vocab - 1))
    return tl.min(first)


@triton.jit
def _masses_above(z_row, vocab: tl.constexpr, largest, b, z_x, x):
    """Return the sum of exp(b s) of each lane [LANES] over the tokens likelier than token ``x`` with logit ``z_x``."""
    masses = tl.zeros([LANES], tl.float64)
    for start in tl.range(0, vocab, LANES * COLUMNS, loop_unroll_factor=UNROLL):
        ids = start + tl.arange(0, LANES)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
        z = tl.load(z_row + ids, mask=ids < vocab, other=float("-inf"))
        likelier = (z > z_x) | ((z == z_x) & (ids < x))
        masses += tl.sum(tl.where(likelier, tl.exp((z - largest) * b), 0.0), 1).to(tl.float64)
    return masses


@triton.jit
def _at(z_row, vocab: tl.constexpr, largest, b, masses, u, z_x, x, TILES: tl.constexpr):
    """Return (id, logit) of the token that holds the share ``u`` of ``masses``, which are of those likelier than x."""
    lanes = tl.arange(0, LANES)
    running = tl.cumsum(masses, 0)
    wanted = u * tl.sum(masses, 0)
    last = tl.max(tl.where(masses > 0.0, lanes, 0), 0)
    lane = tl.minimum(tl.sum((running <= wanted).to(tl.int32), 0), last)
    wanted -= tl.sum(tl.where(lanes < lane, masses, 0.0), 0)

    indices = tl.arange(0, TILES * COLUMNS)
    ids = indices // COLUMNS * (LANES * COLUMNS) + lane * COLUMNS + indices % COLUMNS
    z = tl.load(z_row + ids, mask=ids < vocab, other=float("-inf"))
    likelier = (z > z_x) | ((z == z_x) & (ids < x))
    e = tl.where(likelier, tl.exp((z - largest) * b), 0.0)
    running = tl.cumsum(e.to(tl.float64), 0)
    # By rounding, the lane's sum may end just before what is wanted of it.
    index = tl.min(tl.where((running > wanted) & (e > 0.0), indices, TILES * COLUMNS), 0)
    index = tl.minimum(index, tl.max(tl.where(e > 0.0, indices, 0), 0))
    id = tl.minimum(index // COLUMNS * (LANES * COLUMNS) + lane * COLUMNS + index % COLUMNS, vocab - 1)
    return id, tl.load(z_row + id)
