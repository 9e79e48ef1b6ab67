"""Traces of a model that has nothing but an output matrix, on which heads train in a second."""

import numpy as np

from autodeco.base.identity import ModelIdentity, model_fingerprint
from autodeco.traces.format import Manifest, Shard, write_manifest, write_shard
from autodeco.training import TrainingArguments
from builders.models import HIDDEN, VOCAB, write_model

SHORT = TrainingArguments(steps=30, batch_tokens=64, warmup_steps=5, evaluate_every=10, learning_rate=1e-2)


def write_traces(folder, tokens=600, tokens_a_record=6, shard_tokens=200):
    """Write a model and traces of it in which the sign of the first number of a state says how sure to be.

    Where it is positive the label is the likeliest token, elsewhere one drawn at temperature 1.5.
    """
    folder.mkdir()
    path, weight = write_model(folder / "model.gguf")
    rng = np.random.default_rng(2)
    hidden = (rng.standard_normal((tokens, HIDDEN)) / 3).astype(np.float16)
    logits = hidden.astype(np.float32) @ weight.T
    noise = rng.gumbel(size=logits.shape) * np.where(hidden[:, :1] > 0, 0.0, 1.5)
    labels = (logits + noise).argmax(-1)
    records = np.arange(tokens) // tokens_a_record
    shards = []
    for number, start in enumerate(range(0, tokens, shard_tokens)):
        rows = slice(start, start + shard_tokens)
        shards.append(
            Shard(f"shard-{number}.safetensors", len(labels[rows]), int(records[start]), int(records[rows][-1]) + 1)
        )
        columns = {"label": labels[rows], "record": records[rows], "position": np.arange(len(labels[rows]))}
        write_shard(folder / shards[-1].file, hidden[rows], **columns)
    model = ModelIdentity(str(path), model_fingerprint(path), "llama", "toy", HIDDEN, VOCAB)
    data = {"file": "data.jsonl", "sha256": "0" * 64}
    manifest = Manifest(model, data, {"seed": 0}, complete=True, next_record=int(records[-1]) + 1, shards=shards)
    write_manifest(folder, manifest)
    return folder
