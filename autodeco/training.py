"""Training heads on traces: the base stays as it is, its logits are rebuilt from hidden states a chunk at a time."""

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from autodeco.errors import InputError
from autodeco.exact_losses import predict_and_score
from autodeco.heads import Heads
from autodeco.interrupts import deferred_interrupt
from autodeco.losses import masked_mean
from autodeco.output_matrix import OutputMatrix, read_output_matrix
from autodeco.rebuilt_logits import RebuiltLogits
from autodeco.trace_tokens import TraceTokens, batch_indices
from autodeco.traces import Manifest, model_fingerprint, read_manifest
from autodeco.training_arguments import TrainingArguments
from autodeco.training_state import Evaluation, TrainingResult, TrainingState

# Each array of a chunk is as wide as the vocabulary: 64 tokens x 151,936 float32 are 39 MB.
CHUNK_TOKENS = {"cpu": 64, "cuda": 512}


def train(
    traces_dir: str | os.PathLike,
    output_dir: str | os.PathLike,
    arguments: TrainingArguments | None = None,
    model_path: str | os.PathLike | None = None,
    resume: bool = False,
    progress: bool = True,
) -> TrainingResult:
    """Train heads on the traces in ``traces_dir`` and write the best ones, by held-out loss, into ``output_dir``.

    ``model_path``: the GGUF that was collected from, if it has moved. An interrupt keeps the best heads so far and
    returns; ``resume`` continues such a run to the result that it would have had. Raises InputError for bad input.
    """
    arguments = arguments or TrainingArguments()
    output_dir = Path(output_dir)
    if output_dir.exists() and not output_dir.is_dir():
        raise InputError(f"{output_dir}: is a file; give a folder for the heads")
    if arguments.device != "cpu" and not torch.cuda.is_available():
        raise InputError(f"device {arguments.device}: torch finds no such GPU here; use --device cpu")
    manifest = read_manifest(traces_dir)
    if not manifest.complete:
        raise InputError(f"{traces_dir}: collecting was interrupted; run `autodeco collect` again to finish")
    run = TrainingState(output_dir, manifest, arguments, resume)
    tokens = TraceTokens(traces_dir, manifest)
    training, validation = tokens.split(arguments.validation_share, arguments.seed)
    if len(validation) > arguments.validation_tokens:
        chosen = np.random.default_rng([arguments.seed, 2]).permutation(len(validation))[: arguments.validation_tokens]
        validation = validation[np.sort(chosen)]
    logits = RebuiltLogits(_open_matrix(manifest, model_path), arguments.device)
    output_dir.mkdir(parents=True, exist_ok=True)

    start, interrupted, seconds = run.step, False, 0.0
    bar = tqdm(
        total=arguments.steps * arguments.batch_tokens,
        initial=start * arguments.batch_tokens,
        unit="token",
        unit_scale=True,
        desc="train",
        disable=None if progress else True,
    )
    try:
        with bar:
            if not run.history:
                run.evaluated(evaluate(run.heads, logits, tokens, validation, arguments))
            while run.step < arguments.steps:
                # Between updates the heads, the optimiser and the history agree with the number of steps.
                with deferred_interrupt():
                    began = time.perf_counter()
                    loss = _update(run, logits, tokens, training)
                    seconds += time.perf_counter() - began
                    bar.update(arguments.batch_tokens)
                    best = run.best
                    bar.set_postfix(loss=f"{loss:.4f}", best=f"{best['loss']:.4f}@{best['step']}", refresh=False)
                    if run.step % arguments.evaluate_every == 0 or run.step == arguments.steps:
                        run.evaluated(evaluate(run.heads, logits, tokens, validation, arguments))
    except KeyboardInterrupt:
        interrupted = True
        if not run.history:
            raise
        run.save_resume()
    trained = (run.step - start) * arguments.batch_tokens
    return run.finish(len(training), len(validation), seconds, trained / seconds if seconds else 0.0, interrupted)


def _update(run: TrainingState, logits: RebuiltLogits, tokens: TraceTokens, training: np.ndarray) -> float:
    """Make one step of the optimiser and return its loss."""
    arguments = run.arguments
    indices = batch_indices(training, run.step, arguments.batch_tokens, arguments.seed)
    # A fresh generator for each step: a resumed run drops the same tokens.
    drawn = np.random.default_rng([arguments.seed, 3, run.step]).random(len(indices)) < arguments.easy_token_drop
    drawn = torch.from_numpy(drawn).to(arguments.device)
    tokens_scored = _score(run.heads, logits, tokens, indices, arguments.device)
    loss = tokens_scored.second.mean() if arguments.top_p else 0.0
    if arguments.temperature:
        loss = loss + masked_mean(tokens_scored.first, ~(drawn & tokens_scored.easy))
    if not math.isfinite(loss.item()):
        records = sorted({tokens.record(index) for index in indices})
        raise InputError(
            f"{run.directory}: the loss of step {run.step} is {loss.item()} (records {records[0]} to {records[-1]}); "
            "the best heads so far are kept; try a lower --learning-rate"
        )
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if arguments.gradient_clip:
        torch.nn.utils.clip_grad_norm_(run.heads.parameters(), arguments.gradient_clip)
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(run.step, arguments)
    run.optimizer.step()
    run.step += 1
    return loss.item()


def learning_rate(step: int, arguments: TrainingArguments) -> float:
    """Return the learning rate of update ``step``, 0-based: a straight line up, then half a cosine down to 0."""
    if step < arguments.warmup_steps:
        return arguments.learning_rate * (step + 1) / arguments.warmup_steps
    done = (step - arguments.warmup_steps) / max(1, arguments.steps - arguments.warmup_steps)
    return arguments.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


@torch.no_grad()
def evaluate(
    heads: Heads, logits: RebuiltLogits, tokens: TraceTokens, indices: np.ndarray, arguments: TrainingArguments
) -> Evaluation:
    """Return the means over the tokens at ``indices``; easy ones count in ``loss`` as often as they would be kept."""
    scored = _score(heads, logits, tokens, indices, arguments.device)
    first, second, easy, temperature, top_p = (
        value.double() for value in (scored.first, scored.second, scored.easy, scored.temperature, scored.top_p)
    )
    kept = 1 - arguments.easy_token_drop * easy
    loss = second.mean().item() if arguments.top_p else 0.0
    if arguments.temperature:
        loss += ((kept * first).sum() / kept.sum().clamp(min=1e-9)).item()
    return Evaluation(
        loss=loss,
        temperature_loss=first.mean().item(),
        top_p_loss=second.mean().item(),
        temperature=temperature.mean().item(),
        temperature_deviation=temperature.std(correction=0).item(),
        top_p=top_p.mean().item(),
        top_p_deviation=top_p.std(correction=0).item(),
    )


@dataclass
class _Scored:
    """Per token [n]: what the heads predict, the losses of that, and whether the model is already right."""

    temperature: Tensor
    top_p: Tensor
    first: Tensor
    second: Tensor
    easy: Tensor


def _score(heads: Heads, logits: RebuiltLogits, tokens: TraceTokens, indices: np.ndarray, device: str) -> _Scored:
    """Score the tokens at ``indices`` a chunk at a time; the graph that stays behind is that of the heads alone."""
    size = CHUNK_TOKENS["cpu" if device == "cpu" else "cuda"]
    parts = []
    for start in range(0, len(indices), size):
        hidden, labels = (part.to(device) for part in tokens.batch(indices[start : start + size]))
        parts.append(predict_and_score(heads, hidden, logits(hidden), labels))
    return _Scored(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _open_matrix(manifest: Manifest, model_path: str | os.PathLike | None) -> OutputMatrix:
    path = model_path or manifest.model.path
    if not Path(path).is_file():
        raise InputError(f"{path}: the model that the traces were collected from is not there; say where with --model")
    if model_fingerprint(path) != manifest.model.fingerprint:
        raise InputError(f"{path}: not the model that the traces were collected from; say where that is with --model")
    matrix = read_output_matrix(path)
    if (matrix.hidden_size, matrix.vocab_size) != (manifest.model.hidden_size, manifest.model.vocab_size):
        raise InputError(f"{path}: its output matrix has another size than traces.json says; collect again")
    return matrix
