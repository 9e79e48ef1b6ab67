"""What heads choose over a model's real hidden states, and how far it moves when their weights have fewer bits."""

import tempfile
from pathlib import Path

import numpy as np

from autodeco import native
from autodeco.base.states import StateReader, open_stateful
from autodeco.export.card import Deviation
from autodeco.export.head_tensors import head_tensors
from autodeco.export.head_weights import HeadWeights
from autodeco.export.heads_in_gguf import WEIGHT_TYPES
from autodeco.export.layout import Layout
from autodeco.export.sampling import Sampling
from autodeco.export.writer import write_sidecar

States = tuple[np.ndarray, np.ndarray]
REFERENCE = "f32"
# Prose, arithmetic, code and a dialogue: hidden states of different kinds in a few seconds.
TEXT = """The lighthouse keeper climbed the stairs every evening before the sun went down. From the gallery he could see
the fishing boats come home, and beyond them the long grey line where the sea met the sky. He had counted the steps
once, as a young man: two hundred and seventeen.

Question: A train leaves at 9:40 and travels 150 km at 60 km/h. When does it arrive?
Answer: 150 / 60 = 2.5 hours, so it arrives at 12:10.

def primes(limit):
    sieve = [True] * (limit + 1)
    for n in range(2, int(limit ** 0.5) + 1):
        if sieve[n]:
            sieve[n * n :: n] = [False] * len(sieve[n * n :: n])
    return [n for n in range(2, limit + 1) if sieve[n]]

"Where are you going?" she asked. "To the market," he said, "and then, if there is time, to the river."
"""


def measure_deviations(heads: HeadWeights, base: Layout, states: States) -> list[Deviation]:
    """Compare each type of head weights with float32 over ``states`` of the model of ``base``."""
    predicted = {weight_type: _predicted(heads, weight_type, base, states) for weight_type in WEIGHT_TYPES}
    reference = predicted.pop(REFERENCE)
    return [
        Deviation(
            weight_type,
            len(states[0]),
            *(_distances(values[0], reference[0]) if heads.has_temperature else (None, None)),
            *(_distances(values[1], reference[1]) if heads.has_top_p else (None, None)),
        )
        for weight_type, values in predicted.items()
    ]


def mean_setting(heads: HeadWeights, base: Layout, states: States) -> Sampling:
    """The temperature and top-p, rounded to hundredths, that the heads choose on average over ``states``."""
    means = (float(values.mean()) for values in _predicted(heads, REFERENCE, base, states))
    temperature, top_p = (max(round(mean, 2), 0.01) for mean in means)
    return Sampling(temperature, top_p, f"the mean of the heads over {len(states[0])} hidden states of the model")


def hidden_states(base: Layout) -> States:
    """Hidden states [n, H] and logits [n, V], float32, of the model in ``base`` over the built-in text.

    Raises InputError if the model does not load."""
    llm = open_stateful(base, n_ctx=1024, n_batch=1024, n_gpu_layers=0)
    try:
        tokens = llm.tokenize(TEXT.encode())[:512]
        steps = [(hidden, logits.copy()) for _, hidden, logits in StateReader(llm).read(tokens[:1], tokens[1:])]
    finally:
        llm.close()
    return np.concatenate([step[0] for step in steps]), np.concatenate([step[1] for step in steps])


def _predicted(heads: HeadWeights, weight_type: str, base: Layout, states: States) -> States:
    """Temperature and top-p [n] of ``states``; the heads run as they do when generating, in the compiled code."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "heads.gguf"
        write_sidecar(path, head_tensors(heads, weight_type), base)
        return native.predict(path, *states)


def _distances(values: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    distance = np.abs(values - reference)
    return float(distance.max()), float(distance.mean())
