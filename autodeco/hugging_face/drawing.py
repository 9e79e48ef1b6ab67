"""Tokens sampled from the hard top-p of rows of logits without sorting them, and the statistics that the heads read.

An attempt samples a token x from softmax(z / T) over a set S, at first the whole vocabulary. It sums the probabilities
of the tokens that are likelier than x. If their mass is below P, x is in the nucleus and is accepted. Otherwise the
nucleus is among them, and they are the next S. Every S contains the nucleus, and x is sampled in proportion to its mass
in S. So whichever attempt accepts, the token has the distribution of the nucleus. At P 0.95 there are 1.05 attempts on
average; at a small P about as many as the logarithm of one over P.

Of equal logits lower ids come first. The token at which the running sum reaches P is in the nucleus, so the nucleus has
at least one token. Random numbers come from a counter, never from a state, so a row's numbers do not depend on the
other rows.

On a GPU the kernels of ``drawing_triton`` do the same.
"""

import functools
import importlib
import importlib.util
from dataclasses import dataclass
from importlib import metadata

import torch
from torch import Tensor

from autodeco.export.schema import GREEDY_TEMPERATURE
from autodeco.heads import prob_stats, softmax

OLDEST_TRITON = (3, 4)
FEATURES = 4  # statistics that the top-p head reads

# The running sum over the vocabulary goes through LANES lanes one after another, each of which holds COLUMNS
# neighbours of every LANES x COLUMNS: the order in which a kernel's threads have read them.
LANES, COLUMNS = 256, 4

# Philox4x32-10 (Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3).
ROUNDS = 10
ROUND_A, ROUND_B, KEY_A, KEY_B = 0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85
WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class Statistics:
    """Statistics of n rows of logits, all float32."""

    features: Tensor  # [n, 4], as heads.prob_stats at the temperature given
    top_probability: Tensor  # [n], of the likeliest token at T = 1
    entropy: Tensor  # [n], nats, at T = 1
    largest: Tensor  # [n], the largest logit


@torch.no_grad()
def statistics(logits: Tensor, temperature: Tensor) -> Statistics:
    """Return the statistics of ``logits`` [n, V] float32 at ``temperature`` [n]."""
    if (kernels := _kernels(logits)) is not None:
        return kernels.statistics(logits, temperature)
    p = softmax(logits)
    return Statistics(prob_stats(logits, temperature), p.amax(-1), -torch.special.xlogy(p, p).sum(-1), logits.amax(-1))


@torch.no_grad()
def draw(logits: Tensor, largest: Tensor, temperature: Tensor, top_p: Tensor, seed: int, counters: Tensor) -> Tensor:
    """Return token ids [n] int64 for ``logits`` [n, V] float32, ``largest`` of each row, temperature and top-p [n].

    ``counters`` [n, 3] int32 in [0, 2^31) tell rows of one ``seed`` in [0, 2^64) apart. Even with a NaN, the result is
    a token of the vocabulary.
    """
    if (kernels := _kernels(logits)) is not None:
        return kernels.draw(logits, largest, temperature, top_p, seed, counters)
    tokens = logits.argmax(-1)
    rows = (temperature >= GREEDY_TEMPERATURE).nonzero().squeeze(-1)
    ids = _order(logits.shape[-1], logits.device)
    z, top_p, counters = logits[rows][:, ids], top_p[rows].double(), counters[rows]
    p = torch.exp((z - largest[rows].unsqueeze(-1)) * (1 / temperature[rows]).unsqueeze(-1)).double()
    running = p.cumsum(-1)
    total = running[:, -1]
    attempt = 0
    while len(rows):
        index = _at(running, uniforms(seed, torch.nn.functional.pad(counters, (1, 0), value=attempt)))
        x, z_x = ids[index], z.gather(-1, index.unsqueeze(-1))
        running = (p * ((z > z_x) | ((z == z_x) & (ids < x.unsqueeze(-1))))).cumsum(-1)
        mass = running[:, -1]
        searching = (mass >= top_p * total) & (mass > 0)  # false for NaN
        tokens[rows[~searching]] = x[~searching]
        rows, z, p, running, total, top_p, counters = (
            part[searching] for part in (rows, z, p, running, total, top_p, counters)
        )
        attempt += 1
    return tokens


def uniforms(seed: int, counters: Tensor) -> Tensor:
    """Return [n] float64 numbers in (0, 1), multiples of 2^-32 plus half of that, for ``counters`` [n, 4] int32."""
    c0, c1, c2, c3 = (counters.long() & WORD).unbind(-1)
    k0, k1 = seed & WORD, seed >> 32 & WORD
    for _ in range(ROUNDS):
        a, b = c0 * ROUND_A, c2 * ROUND_B  # 64 bits, of which the sign bit is one like the others
        c0, c1, c2, c3 = (b >> 32 & WORD) ^ c1 ^ k0, b & WORD, (a >> 32 & WORD) ^ c3 ^ k1, a & WORD
        k0, k1 = k0 + KEY_A & WORD, k1 + KEY_B & WORD
    return (c0.double() + 0.5) * 2.0**-32


@functools.cache
def _order(vocab: int, device: torch.device) -> Tensor:
    """Return the ids [V] in the order in which they are summed."""
    ids = torch.arange(-(-vocab // (LANES * COLUMNS)) * LANES * COLUMNS, device=device)
    ids = ids.reshape(-1, LANES, COLUMNS).transpose(0, 1).reshape(-1)
    return ids[ids < vocab]


def _at(running: Tensor, u: Tensor) -> Tensor:
    """Return the first index [n] at which the running sums [n, V] exceed the share ``u`` [n] of their last."""
    last = running[:, -1:]
    wanted = torch.minimum(u.unsqueeze(-1) * last, torch.nextafter(last, torch.zeros_like(last)))
    return torch.searchsorted(running, wanted, right=True).squeeze(-1).clamp_(max=running.shape[-1] - 1)


def _kernels(logits: Tensor):
    """Return the module of Triton kernels for where ``logits`` are, None if they are not for those."""
    if not (logits.is_cuda and triton_compiles()):
        return None
    return importlib.import_module("autodeco.hugging_face.drawing_triton")


@functools.cache
def triton_compiles() -> bool:
    """Return whether there is CUDA, and a Triton that is new enough for the kernels of this package."""
    if torch.version.cuda is None or importlib.util.find_spec("triton") is None:
        return False
    return tuple(map(int, metadata.version("triton").split(".")[:2])) >= OLDEST_TRITON
