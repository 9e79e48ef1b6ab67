"""Both losses and their derivatives in one pass over a chunk of tokens, without a graph over the vocabulary.

The base model is frozen, so the losses of a token reach the heads through two numbers only, its temperature T and its
top-p P. Automatic differentiation instead keeps every intermediate array of tokens x vocabulary: fourteen in float32,
at a vocabulary of 151,936 8.5 MB a token, which for 12,288 tokens is 105 GB. Here a token leaves five numbers,
its two losses and their derivatives, and arrays as wide as the vocabulary live for one chunk of tokens, however many
there are: on a CUDA GPU 640 of them, whose logits are 194 MB in bfloat16 and the only such array; the same logits in
another order are never written. Of the heads nothing is kept either: their forward pass is run again for the backward.

With b = 1/T, z sorted in descending order, s_i = z_i - z_1 <= 0 (the order does not depend on T), y the label's place
in that order and w = softmax(z)_y the weight, which has no gradient:

    p_i = exp(b s_i) / sum_j exp(b s_j)            mean = sum_i p_i s_i              dp_i/db = p_i (s_i - mean)
    c_i = p_1 + .. + p_i                           G_i = p_1 s_1 + .. + p_i s_i      dc_i/db = G_i - mean c_i = g_i
    a_i = 1 where c_i > P, else 0                  m_i = exp(-k relu(c_i - P))       dm_i/db = -k a_i g_i m_i
    q_i = p_i m_i    S = sum_i q_i                 n = q_y / (S + eps)               dm_i/dP = +k a_i m_i

    temperature loss   -w log p_y                  d/db = w (mean - s_y)
    soft top-p loss    -w log(n + eps)             d/db = -w n / (n + eps) * (dlog q_y/db - dS/db / (S + eps))
                                                   dlog q_y/db = s_y - mean - k a_y g_y
                                                   dS/db = sum_i q_i (s_i - mean - k a_i g_i)
                                                   d/dP = -w n / (n + eps) * (k a_y - k sum_i a_i q_i / (S + eps))

and d/dT = -b^2 d/db. The temperature loss uses max(T, 0.01), with no gradient below.
"""

import functools
import importlib.util
from collections.abc import Callable
from importlib import metadata
from types import ModuleType

import torch
from torch import Tensor

from autodeco.heads import Head, Heads
from autodeco.losses import exact_cpu, exact_torch
from autodeco.losses.plain import IGNORED, STEEPNESS

# A CPU works on a token at a time and wants logits that stay in its cache; a GPU wants work. Bytes are those of the
# logits in float32, of which two chunks' can be alive; without Triton five such arrays are (exact_torch).
CHUNK_TOKENS_CPU = 64
CHUNK_BYTES_TRITON = 384 * 2**20
CHUNK_BYTES_OTHER = 64 * 2**20

OLDEST_TRITON = (3, 4)  # what torch 2.8 brings; older ones know no tuples of tensors

SMALLEST_TEMPERATURE = 1e-8  # a sigmoid can round to 0; 1 / T must stay finite


def chunk_tokens(vocab_size: int, device: str | torch.device) -> int:
    """Return how many tokens to score at once."""
    if torch.device(device).type == "cpu":
        return CHUNK_TOKENS_CPU
    if torch.device(device).type == "cuda" and _triton_losses() is not None:
        return max(128, CHUNK_BYTES_TRITON // (4 * vocab_size) // 128 * 128)
    return max(16, CHUNK_BYTES_OTHER // (4 * vocab_size))


def token_losses(
    logits: Tensor,
    temperature: Tensor,
    top_p: Tensor,
    labels: Tensor,
    steepness: float = STEEPNESS,
    weighted: bool = True,
    backend: ModuleType | None = None,
) -> tuple[Tensor, Tensor]:
    """Return each token's (temperature loss [n], soft top-p loss [n]) in nats, before any dropping or mean.

    ``logits`` [n, V] without gradient, ``temperature``, ``top_p`` [n], ``labels`` [n]; 0 where the label is
    -100. ``weighted``: times softmax(z)[label], the dynamic fine-tuning weight. Both results carry gradients to
    ``temperature``, the second also to ``top_p``. Nothing of size V is kept. ``backend``: the module that computes, by
    default the fastest for the device.
    """
    backend, z = _backend(logits, backend)
    distributions = backend.prepare(z, _usable(temperature), labels.clamp(min=0))
    return _attach(backend, distributions, temperature, top_p, labels, steepness, weighted)


def predict_and_score(
    heads: Heads,
    hidden: Tensor,
    logits: Tensor,
    labels: Tensor,
    steepness: float = STEEPNESS,
    weighted: bool = True,
    backend: ModuleType | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return (temperature, top-p, temperature loss, soft top-p loss, easy), each [n], for ``hidden`` [n, H].

    ``easy`` is true where the label is the likeliest token, of equal ones the first. The rest is what
    ``heads(hidden, logits)`` and then ``token_losses`` give, but the distribution is computed once for both.
    """
    temperature = _run(heads.temperature, heads.temp_head, hidden)
    backend, z = _backend(logits, backend)
    distributions = backend.prepare(z, _usable(temperature), labels.clamp(min=0))
    stats = distributions.stats if heads.prob_stats else None
    top_p = _run(heads.top_p, heads.top_p_head, hidden, temperature.detach(), stats)
    losses = _attach(backend, distributions, temperature, top_p, labels, steepness, weighted)
    return temperature, top_p, *losses, distributions.easy


def _backend(logits: Tensor, asked: ModuleType | None):
    """Return the module that computes and the logits as it wants them."""
    z = logits.detach()
    if asked is not None:
        return asked, z
    if z.dtype != torch.float64:
        if z.is_cuda and _triton_losses() is not None:
            return _triton_losses(), z
        if z.device.type == "cpu":
            return exact_cpu, z.float()
    return exact_torch, z


@functools.cache
def _triton_losses():
    """Return the module of Triton kernels, None without CUDA or a Triton that compiles them."""
    if torch.version.cuda is None or importlib.util.find_spec("triton") is None:
        return None
    if tuple(map(int, metadata.version("triton").split(".")[:2])) < OLDEST_TRITON:
        return None
    return importlib.import_module("autodeco.losses.exact_triton")


def _usable(temperature: Tensor) -> Tensor:
    return temperature.detach().clamp(min=SMALLEST_TEMPERATURE)


def _attach(
    backend, distributions, temperature: Tensor, top_p: Tensor, labels: Tensor, steepness: float, weighted: bool
) -> tuple[Tensor, Tensor]:
    values = backend.losses_and_derivatives(distributions, _usable(temperature), top_p.detach(), steepness)
    if weighted:
        values = values * distributions.weight
    return _KnownDerivatives.apply(temperature, top_p, values.masked_fill(labels == IGNORED, 0))


def _run(predict: Callable[..., Tensor], head: Head | None, *inputs: Tensor | None) -> Tensor:
    return _RunAgain.apply(predict, inputs, *(() if head is None else head.parameters()))


class _RunAgain(torch.autograd.Function):
    """A head whose forward pass is run again for the backward; torch.utils.checkpoint would load 90 MB of compiler."""

    @staticmethod
    def forward(ctx, predict, inputs, *parameters):
        ctx.predict, ctx.inputs, ctx.parameters = predict, inputs, parameters
        return predict(*inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        with torch.enable_grad():
            value = ctx.predict(*ctx.inputs)
        return None, None, *torch.autograd.grad(value, ctx.parameters, gradient)


class _KnownDerivatives(torch.autograd.Function):
    """Gives two losses the derivatives that were computed with them."""

    @staticmethod
    def forward(ctx, temperature, top_p, values):
        temperature_loss, top_p_loss, *derivatives = values.to(temperature.dtype)
        ctx.save_for_backward(*derivatives)
        return temperature_loss.clone(), top_p_loss.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_temperature_loss, grad_top_p_loss):
        temperature_loss_by_t, top_p_loss_by_t, top_p_loss_by_p = ctx.saved_tensors
        by_t = grad_temperature_loss * temperature_loss_by_t + grad_top_p_loss * top_p_loss_by_t
        return by_t, grad_top_p_loss * top_p_loss_by_p, None
