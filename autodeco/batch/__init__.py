"""Many answers at once: continuous batching over one llama.cpp context, with heads, fixed settings or both.

When a sequence ends, the next takes its slot at once. A common prefix of prompts is computed once. Each answer is
sampled with random numbers of its own, which depend only on the seed, the prompt's index and the sample's index. The
logits also depend on the rest of the batch: llama.cpp's kernels round differently for different batch sizes. So another
number of slots can give another answer (benchmarks/batch.py measures how often).
"""

from autodeco.batch.answers import Answer
from autodeco.batch.loop import answer, generate
from autodeco.batch.request import Request, Sampling, requests, seed_of

__all__ = ["Answer", "Request", "Sampling", "answer", "generate", "requests", "seed_of"]
