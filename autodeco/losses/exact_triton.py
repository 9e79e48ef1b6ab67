"""The exact losses on a CUDA GPU: the formulas of ``exact`` in Triton, logits read and never sorted whole.

A token's sums over the vocabulary take passes over its logits, each of which costs about what reading them costs. Only
the soft mask needs an order, and only after the crossing, the token where the running sum c exceeds P:

1. ``_distribution`` sums what depends on T alone, and the mass and number of tokens above each of ``LEVELS``
   probabilities, every one smaller than the last by e^STEP.
2. ``_window`` knows P. It gathers at most ``WINDOW`` tokens, the crossing and as many after it as fit. Where more
   tokens than that lie between two levels, it divides these again, down to one value if need be: of equal tokens those
   before the crossing are counted, not gathered.
3. ``_losses`` has the window sorted. Above it q_i = p_i. Below it a token's share of the sum of q is phi(k p_i) times
   the integral of m(c) = exp(-k relu(c - P)) over its step from c_{i-1} to c_i, with phi(x) = x / (e^x - 1), or
   1 - x / 2 + x^2 / 12. With c_w at the window's end and h(c) the p of the token at c:

    sum of q_i in the tail      relu(P - c_w) + B
    its part beyond P           B = (m(c_w) - m(1)) / k - (k / 2) integral of h m;   k B is the derivative by P

   The last integral needs h between two levels: its mean is their mass over their number, and it falls in a straight
   line. The derivative by b follows from dc/db = g at the window's end and at the levels.

Left out is (k h)^2 / 12, and how h is bent between two levels, some hundredths of k h / 2. Since a full window of
``WINDOW`` tokens lies before it, h is at most 1 / 4096, and mostly far less; the window ends where the tail's
h (1 - c) is below ``SMALL_TAIL``.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from autodeco.export import schema
from autodeco.losses import plain

# A program reads a row of logits in tiles of LANES x COLUMNS: each lane is a thread that loads 16 bytes, adds up in
# float32 what comes of them, and in float64 from tile to tile.
WARPS = 4
UNROLL = tl.constexpr(2)

WINDOW = tl.constexpr(4096)
LEVELS = tl.constexpr(16)
STEP = tl.constexpr(0.5)
HIGHEST = tl.constexpr(-7.6246)  # log(2 / WINDOW), so that the tokens above the first level fit a window
SMALL_TAIL = tl.constexpr(4e-8)
SAME = tl.constexpr(1e-7)  # logits no further apart than this times T count as equal
NUCLEUS_EPSILON = tl.constexpr(plain.NUCLEUS_EPSILON)
STATS_EPSILON = tl.constexpr(schema.STATS_EPSILON)
MINIMUM_TEMPERATURE = tl.constexpr(plain.MINIMUM_TEMPERATURE)

# Columns of ``Distributions.sums``, float64.
LARGEST, TOTAL, MEAN, S_Y, C_Y, G_Y, TEMPERATURE_LOSS, START_C, START_G, SUMS = (tl.constexpr(i) for i in range(10))


@dataclass
class Distributions:
    """The distributions of n tokens as far as the losses need them."""

    z: Tensor  # [n, V]
    sums: Tensor  # [n, SUMS] float64
    cuts: Tensor  # [n, LEVELS], the levels as logits, descending
    mass: Tensor  # [n, LEVELS] float64, probability above each
    count: Tensor  # [n, LEVELS] int32, tokens above each
    stats: Tensor  # [n, 4], as heads.prob_stats
    weight: Tensor  # [n]
    easy: Tensor  # [n]


def prepare(z: Tensor, temperature: Tensor, labels: Tensor) -> Distributions:
    """Return what the losses need of ``z`` [n, V] at ``temperature`` [n] for ``labels`` [n], none of them -100."""
    n, vocab = z.shape
    if z.stride(-1) != 1:
        z = z.contiguous()

    def empty(columns, dtype):
        return torch.empty((n, columns), dtype=dtype, device=z.device)

    sums, cuts = empty(SUMS.value, torch.float64), empty(LEVELS.value, torch.float32)
    mass, count = empty(LEVELS.value, torch.float64), empty(LEVELS.value, torch.int32)
    stats, weight, easy = empty(4, torch.float32), empty(1, torch.float32), empty(1, torch.bool)
    _distribution[(n,)](
        z, z.stride(0), temperature.float().contiguous(), labels.contiguous(), sums, cuts, mass, count, stats, weight,
        easy, vocab, **_tiles(z),
    )  # fmt: skip
    return Distributions(z, sums, cuts, mass, count, stats, weight.squeeze(-1), easy.squeeze(-1))


def losses_and_derivatives(distributions: Distributions, temperature: Tensor, top_p: Tensor, k: float) -> Tensor:
    """Return [5, n]: temperature loss, soft top-p loss, their derivatives by T, and of the second by P, unweighted."""
    z, sums, mass, count = distributions.z, distributions.sums, distributions.mass, distributions.count
    n, vocab = z.shape
    temperature, top_p = temperature.float().contiguous(), top_p.float().contiguous()
    window = torch.full((n, WINDOW.value), -torch.inf, device=z.device)
    spans = torch.empty((n, 2), dtype=torch.int32, device=z.device)
    values = torch.empty((5, n), dtype=torch.float64, device=z.device)
    _window[(n,)](
        z, z.stride(0), temperature, top_p, sums, distributions.cuts, mass, count, window, spans, vocab, **_tiles(z),
    )  # fmt: skip
    window = window.sort(descending=True).values
    _losses[(n,)](
        temperature, top_p, sums, mass, count, window, spans, values, n, vocab, float(k), num_warps=8,
    )  # fmt: skip
    return values


def _tiles(z: Tensor) -> dict[str, int]:
    return {"LANES": 32 * WARPS, "COLUMNS": 16 // z.element_size(), "num_warps": WARPS, "maxnreg": 128}


@triton.jit
def _distribution(
    z_ptr, stride, temperature_ptr, label_ptr, sums_ptr, cuts_ptr, mass_ptr, count_ptr, stats_ptr, weight_ptr, easy_ptr,
    vocab: tl.constexpr, LANES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Everything of one token that does not depend on P."""
    row = tl.program_id(0)
    z_row = z_ptr + row.to(tl.int64) * stride
    temperature, label = tl.load(temperature_ptr + row), tl.load(label_ptr + row)
    b = 1.0 / temperature
    z_y = tl.load(z_row + label).to(tl.float32)
    largest, top_five = _top_five(z_row, vocab, b, LANES, COLUMNS)

    weight_total, total, mean, squares = _sums(z_row, vocab, largest, b, LANES, COLUMNS)
    mean = mean / total
    entropy, c_y, g_y, before = _entropy_and_label(z_row, vocab, largest, b, total, z_y, label, LANES, COLUMNS)
    c_y = c_y / total
    s_y = z_y.to(tl.float64) - largest
    wide_b = 1.0 / temperature.to(tl.float64)
    temperature_loss = tl.log(total) - s_y * wide_b
    if temperature < MINIMUM_TEMPERATURE:
        _, at_minimum, _, _ = _sums(z_row, vocab, largest, 1.0 / MINIMUM_TEMPERATURE, LANES, COLUMNS)
        temperature_loss = tl.log(at_minimum) - s_y / MINIMUM_TEMPERATURE

    levels = tl.arange(0, LEVELS)
    cuts = (largest + temperature * (tl.log(total) + (levels * -STEP + HIGHEST))).to(tl.float32)
    mass, count = _above(z_row, vocab, largest, b, cuts, LANES, COLUMNS)
    tl.store(cuts_ptr + row * LEVELS + levels, cuts)
    tl.store(mass_ptr + row * LEVELS + levels, mass / total)
    tl.store(count_ptr + row * LEVELS + levels, count)

    sums_row = sums_ptr + row * SUMS
    tl.store(sums_row + LARGEST, largest.to(tl.float64))
    tl.store(sums_row + TOTAL, total)
    tl.store(sums_row + MEAN, mean)
    tl.store(sums_row + S_Y, s_y)
    tl.store(sums_row + C_Y, c_y)
    tl.store(sums_row + G_Y, g_y / total - mean * c_y)
    tl.store(sums_row + TEMPERATURE_LOSS, temperature_loss)
    tl.store(stats_ptr + row * 4 + 0, (1.0 / total).to(tl.float32))
    tl.store(stats_ptr + row * 4 + 1, entropy.to(tl.float32))
    variance = (squares / (total * total) - 1.0 / vocab) / (vocab - 1)
    tl.store(stats_ptr + row * 4 + 2, variance.to(tl.float32))
    tl.store(stats_ptr + row * 4 + 3, (top_five / total).to(tl.float32))
    tl.store(weight_ptr + row, (tl.exp(s_y) / weight_total).to(tl.float32))
    tl.store(easy_ptr + row, before == 1)


@triton.jit
def _window(
    z_ptr, stride, temperature_ptr, top_p_ptr, sums_ptr, cuts_ptr, mass_ptr, count_ptr, window_ptr, spans_ptr,
    vocab: tl.constexpr, LANES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gather the tokens with lo < z <= hi that hold the crossing; note how many, how many before, and c and g there."""
    row = tl.program_id(0)
    z_row = z_ptr + row.to(tl.int64) * stride
    b, top_p = 1.0 / tl.load(temperature_ptr + row), tl.load(top_p_ptr + row).to(tl.float64)
    sums_row = sums_ptr + row * SUMS
    largest, total, mean = tl.load(sums_row + LARGEST), tl.load(sums_row + TOTAL), tl.load(sums_row + MEAN)
    largest = largest.to(tl.float32)
    levels = row * LEVELS + tl.arange(0, LEVELS)
    cuts, c, n = tl.load(cuts_ptr + levels), tl.load(mass_ptr + levels), tl.load(count_ptr + levels)
    lo, hi, c_hi, n_hi = _bounds(z_row, vocab, largest, b, total, top_p, cuts, c, n, LANES, COLUMNS)

    found, sum_above = row * 0, tl.zeros([LANES], tl.float64)
    for start in range(0, vocab, LANES * COLUMNS):
        _, z = _tile(z_row, start, vocab, LANES, COLUMNS)
        _, es = _exponentials(z, largest, b)
        sum_above += tl.sum(tl.where(z > hi, es, 0.0), 1).to(tl.float64)
        inside = ((z <= hi) & (z > lo)).to(tl.int32)
        in_lane = tl.sum(inside, 1)
        in_tile = tl.sum(in_lane, 0)
        if in_tile > 0:
            index = found + (tl.cumsum(in_lane, 0) - in_lane)[:, None] + tl.cumsum(inside, 1) - inside
            tl.store(window_ptr + row.to(tl.int64) * WINDOW + index, z, mask=(inside == 1) & (index < WINDOW))
            found += in_tile
    g_hi = tl.sum(sum_above, 0) / total
    if found > WINDOW:  # as good as equal
        s = hi.to(tl.float64) - largest
        p = tl.exp(s * b) / total
        skipped = tl.minimum(tl.maximum((top_p - c_hi) / p, 0.0), (found - 1).to(tl.float64)).to(tl.int32)
        c_hi += skipped * p
        g_hi += skipped * p * s
        n_hi += skipped
        found = tl.minimum(found - skipped, WINDOW)
    tl.store(spans_ptr + row * 2, n_hi)
    tl.store(spans_ptr + row * 2 + 1, found)
    tl.store(sums_row + START_C, c_hi)
    tl.store(sums_row + START_G, g_hi - mean * c_hi)


@triton.jit
def _bounds(
    z_row, vocab: tl.constexpr, largest, b, total, top_p, cuts, c, n, LANES: tl.constexpr, COLUMNS: tl.constexpr
):
    """Return (lo, hi, c at hi, tokens above hi) of a window that holds the crossing, from the mass ``c`` and the number
    ``n`` above each of ``cuts``."""
    levels = tl.arange(0, LEVELS)
    hi, c_hi, n_hi = largest, total * 0.0, tl.program_id(0) * 0
    lo, searching = largest, n_hi + 1
    while searching == 1:
        beyond = c > top_p
        hi = tl.minimum(hi, tl.min(tl.where(beyond, float("inf"), cuts), 0))
        c_hi = tl.maximum(c_hi, tl.max(tl.where(beyond, 0.0, c), 0))
        n_hi = tl.maximum(n_hi, tl.max(tl.where(beyond, 0, n), 0))
        fits = beyond & (n - n_hi <= WINDOW)
        small = fits & (tl.exp((cuts - largest) * b) / total * (1.0 - c) < SMALL_TAIL)
        searching = n_hi * 0
        if tl.max(small.to(tl.int32), 0) == 1:
            lo = tl.max(tl.where(small, cuts, float("-inf")), 0)
        elif vocab - n_hi <= WINDOW:
            lo = largest * 0.0 + float("-inf")
        elif tl.max(fits.to(tl.int32), 0) == 1:
            lo = tl.min(tl.where(fits, cuts, float("inf")), 0)
        elif tl.max(beyond.to(tl.int32), 0) == 0:
            lo = hi  # The crossing lies among tokens so small that each of them is its integral.
        else:
            lo = tl.max(tl.where(beyond, cuts, float("-inf")), 0)
            middle = lo + (hi - lo) * 0.5
            if (middle > lo) & (middle < hi) & ((hi - lo) * b > SAME):
                cuts = tl.maximum(hi - (hi - lo) * ((levels + 1).to(tl.float32) / LEVELS), lo)
                cuts = tl.where(levels == LEVELS - 1, lo, cuts)
                c, n = _above(z_row, vocab, largest, b, cuts, LANES, COLUMNS)
                c = c / total
                searching = n_hi * 0 + 1
    return lo, hi, c_hi, n_hi


@triton.jit
def _losses(
    temperature_ptr, top_p_ptr, sums_ptr, mass_ptr, count_ptr, window_ptr, spans_ptr, values_ptr, tokens, vocab, k
):
    """Both losses of one token and their derivatives, from its window, what lies above it and the levels below."""
    row = tl.program_id(0)
    b, top_p = 1.0 / tl.load(temperature_ptr + row).to(tl.float64), tl.load(top_p_ptr + row).to(tl.float64)
    sums_row = sums_ptr + row * SUMS
    total, mean, s_y = tl.load(sums_row + TOTAL), tl.load(sums_row + MEAN), tl.load(sums_row + S_Y)
    c_y, g_y = tl.load(sums_row + C_Y), tl.load(sums_row + G_Y)
    start, found = tl.load(spans_ptr + row * 2), tl.load(spans_ptr + row * 2 + 1)
    values = window_ptr + row.to(tl.int64) * WINDOW
    q_total, q_beyond, q_by_b, c, g, p_least = _window_sums(values, found, sums_row, b, top_p, k)
    if start + found < vocab:
        mass_row, count_row = mass_ptr + row * LEVELS, count_ptr + row * LEVELS
        inner, beyond, by_b = _tail(mass_row, count_row, c, g, start + found, p_least, total, mean, b, top_p, k)
        q_total += inner + beyond
        q_beyond += beyond
        q_by_b += by_b

    over_y = tl.maximum(c_y - top_p, 0.0)
    a_y = (over_y > 0.0).to(tl.float64)
    n = tl.exp(s_y * b - k * over_y) / total / (q_total + NUCLEUS_EPSILON)
    outer = -n / (n + NUCLEUS_EPSILON)
    by_t = -b * b
    temperature_loss_by_b = tl.where(b * MINIMUM_TEMPERATURE > 1.0, 0.0, mean - s_y)
    top_p_loss_by_b = outer * (s_y - mean - k * a_y * g_y - q_by_b / (q_total + NUCLEUS_EPSILON))
    tl.store(values_ptr + row, tl.load(sums_row + TEMPERATURE_LOSS))
    tl.store(values_ptr + tokens + row, -tl.log(n + NUCLEUS_EPSILON))
    tl.store(values_ptr + 2 * tokens + row, temperature_loss_by_b * by_t)
    tl.store(values_ptr + 3 * tokens + row, top_p_loss_by_b * by_t)
    tl.store(values_ptr + 4 * tokens + row, outer * k * (a_y - q_beyond / (q_total + NUCLEUS_EPSILON)))


@triton.jit
def _window_sums(window, found, sums_row, b, top_p, k):
    """Return (sum of q, of those beyond P, its derivative by b, c, g) up to the window's end, and the least p in it."""
    largest, total, mean = tl.load(sums_row + LARGEST), tl.load(sums_row + TOTAL), tl.load(sums_row + MEAN)
    c_start, g_start = tl.load(sums_row + START_C), tl.load(sums_row + START_G)
    index = tl.arange(0, WINDOW)
    s = tl.load(window + index, mask=index < found, other=0.0).to(tl.float64) - largest
    p = tl.where(index < found, tl.exp(s * b) / total, 0.0)
    by_b = p * (s - mean)
    c, g = c_start + tl.cumsum(p, 0), g_start + tl.cumsum(by_b, 0)
    over = tl.maximum(c - top_p, 0.0)
    a = (over > 0.0).to(tl.float64)
    q = p * tl.exp(-k * over)
    q_by_b = g_start + tl.sum(q * (s - mean - k * a * g), 0)
    p_least = tl.min(tl.where(index < found, p, 1.0 / total), 0)
    c_end, g_end = c_start + tl.sum(p, 0), g_start + tl.sum(by_b, 0)
    return c_start + tl.sum(q, 0), tl.sum(a * q, 0), q_by_b, c_end, g_end, p_least


@triton.jit
def _tail(mass_ptr, count_ptr, c, g, before, p_before, total, mean, b, top_p, k):
    """Return (sum of q up to P, beyond P, derivative of both by b) of all tokens but the first ``before``."""
    levels = tl.arange(0, LEVELS)
    c_from = tl.maximum(tl.load(mass_ptr + levels - 1, mask=levels > 0, other=0.0), c)
    c_to = tl.maximum(tl.load(mass_ptr + levels), c)
    n_from = tl.maximum(tl.load(count_ptr + levels - 1, mask=levels > 0, other=0), before)
    number = (tl.maximum(tl.load(count_ptr + levels), before) - n_from).to(tl.float64)
    filled = (number > 0.0) & (c_to > c_from)
    mass = tl.where(filled, c_to - c_from, 0.0)
    # Between two levels p falls from h + d to h - d, in a straight line over c; the mean over numbers is below h.
    h = mass / tl.maximum(number, 1.0)
    p_to = tl.exp(levels.to(tl.float64) * -STEP + HIGHEST)
    d = tl.minimum(tl.minimum(p_to * tl.exp(tl.full([], STEP, tl.float64)), p_before) - h, h - p_to)
    d = tl.where(filled, tl.maximum(d, 0.0), 0.0)
    h += tl.where(filled, d * d / (3.0 * tl.maximum(h, 1e-30)), 0.0)
    s = tl.where(filled, tl.log(tl.where(filled, h * total, 1.0)) / b, 0.0)
    by_b = mass * (s - mean)
    g_to = g + tl.cumsum(by_b, 0)
    m_from, slope_from = _mask_and_slope(c_from, g_to - by_b, top_p, k)
    m_to, slope_to = _mask_and_slope(c_to, g_to, top_p, k)
    straight = (c_from >= top_p) & (k * mass > 1e-3)  # else as good as constant
    skew = tl.where(straight, (m_from + m_to) - (m_from - m_to) * 2.0 / (k * tl.maximum(mass, 1e-9)), 0.0)
    correction = tl.sum(0.5 * (h * (m_from - m_to) + d * skew), 0)
    correction_by_b = tl.sum(h * 0.5 * ((s - mean) * (m_from - m_to) + slope_from - slope_to), 0)
    m_c = tl.exp(-k * tl.maximum(c - top_p, 0.0))
    m_end = tl.exp(-k * tl.maximum(tl.maximum(c, 1.0) - top_p, 0.0))
    inner = tl.maximum(tl.minimum(top_p, 1.0) - c, 0.0)
    return inner, (m_c - m_end) / k - correction, -g * m_c - correction_by_b


@triton.jit
def _mask_and_slope(c, g, top_p, k):
    over = tl.maximum(c - top_p, 0.0)
    m = tl.exp(-k * over)
    return m, tl.where(over > 0.0, -k * g * m, 0.0)


@triton.jit
def _tile(z_row, start, vocab: tl.constexpr, LANES: tl.constexpr, COLUMNS: tl.constexpr):
    ids = start + tl.arange(0, LANES)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    return ids, tl.load(z_row + ids, mask=ids < vocab, other=float("-inf")).to(tl.float32)


@triton.jit
def _exponentials(z, largest, b):
    """Return exp(b s) and s exp(b s), 0 where s is -inf."""
    s = z - largest
    e = tl.exp(s * b)
    return e, tl.where(e > 0.0, e * s, 0.0)


@triton.jit
def _top_five(z_row, vocab: tl.constexpr, b, LANES: tl.constexpr, COLUMNS: tl.constexpr):
    """Return the largest logit and the sum of exp(b s) of the five largest."""
    first = tl.full([LANES, COLUMNS], float("-inf"), tl.float32)
    second, third, fourth, fifth = first, first, first, first
    for start in tl.range(0, vocab, LANES * COLUMNS, loop_unroll_factor=UNROLL):
        _, z = _tile(z_row, start, vocab, LANES, COLUMNS)
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
def _sums(z_row, vocab: tl.constexpr, largest, b, LANES: tl.constexpr, COLUMNS: tl.constexpr):
    """Return the sums of exp(s), exp(b s), s exp(b s) and exp(2 b s)."""
    weight_total = tl.zeros([LANES], tl.float64)
    total, mean, squares = weight_total, weight_total, weight_total
    for start in tl.range(0, vocab, LANES * COLUMNS, loop_unroll_factor=UNROLL):
        _, z = _tile(z_row, start, vocab, LANES, COLUMNS)
        e, es = _exponentials(z, largest, b)
        weight_total += tl.sum(tl.exp(z - largest), 1).to(tl.float64)
        total += tl.sum(e, 1).to(tl.float64)
        mean += tl.sum(es, 1).to(tl.float64)
        squares += tl.sum(e * e, 1).to(tl.float64)
    return tl.sum(weight_total, 0), tl.sum(total, 0), tl.sum(mean, 0), tl.sum(squares, 0)


@triton.jit
def _entropy_and_label(
    z_row, vocab: tl.constexpr, largest, b, total, z_y, label, LANES: tl.constexpr, COLUMNS: tl.constexpr
):
    """Return the entropy, and down to the label in descending order the sums of exp(b s), s exp(b s) and 1."""
    entropy = tl.zeros([LANES], tl.float64)
    c_y, g_y, before = entropy, entropy, tl.zeros([LANES], tl.int32)
    share = (1.0 / total).to(tl.float32)
    for start in tl.range(0, vocab, LANES * COLUMNS, loop_unroll_factor=UNROLL):
        ids, z = _tile(z_row, start, vocab, LANES, COLUMNS)
        e, es = _exponentials(z, largest, b)
        q = e * share
        entropy -= tl.sum(q * tl.log(q + STATS_EPSILON), 1).to(tl.float64)
        # Tokens with the label's own logit keep the order of their ids, as in a stable sort.
        earlier = (z > z_y) | ((z == z_y) & (ids <= label))
        c_y += tl.sum(tl.where(earlier, e, 0.0), 1).to(tl.float64)
        g_y += tl.sum(tl.where(earlier, es, 0.0), 1).to(tl.float64)
        before += tl.sum(earlier.to(tl.int32), 1)
    return tl.sum(entropy, 0), tl.sum(c_y, 0), tl.sum(g_y, 0), tl.sum(before, 0)


@triton.jit
def _above(z_row, vocab: tl.constexpr, largest, b, cuts, LANES: tl.constexpr, COLUMNS: tl.constexpr):
    """Return the sums of exp(b s) and the numbers of tokens above each of ``cuts``."""
    levels = tl.arange(0, LEVELS)
    cut, mass, count = (), (), ()
    for level in tl.static_range(LEVELS):
        cut += (tl.max(tl.where(levels == level, cuts, float("-inf")), 0),)
        mass += (tl.full([LANES], 0, tl.float64),)
        count += (tl.full([LANES], 0, tl.int32),)
    for start in range(0, vocab, LANES * COLUMNS):
        _, z = _tile(z_row, start, vocab, LANES, COLUMNS)
        e = tl.exp((z - largest) * b)
        more_mass, more_count = (), ()
        for level in tl.static_range(LEVELS):
            above = z > cut[level]
            more_mass += (mass[level] + tl.sum(tl.where(above, e, 0.0), 1).to(tl.float64),)
            more_count += (count[level] + tl.sum(above.to(tl.int32), 1),)
        mass, count = more_mass, more_count
    masses, counts = tl.zeros([LEVELS], tl.float64), tl.zeros([LEVELS], tl.int32)
    for level in tl.static_range(LEVELS):
        masses = tl.where(levels == level, tl.sum(mass[level], 0), masses)
        counts = tl.where(levels == level, tl.sum(count[level], 0), counts)
    return masses, counts
