"""Many answers at once: continuous batching over one llama.cpp context, with heads, fixed settings or both.

A sequence that ends gives its place to the next at once, and what prompts have in common is computed once. Each answer
is drawn with random numbers of its own, which depend on the seed, the prompt's index and the sample's index only. The
logits do depend on what else is in the batch: llama.cpp's kernels round differently for different batch sizes, so an
answer can part from the one that another number of slots gives (benchmarks/batch.py measures how often).
"""

from autodeco.batch.answers import Answer
from autodeco.batch.loop import answer, generate
from autodeco.batch.request import Request, Sampling, requests, seed_of

__all__ = ["Answer", "Request", "Sampling", "answer", "generate", "requests", "seed_of"]
