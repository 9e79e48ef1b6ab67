"""Training heads on likelihood: one loop for every source of hidden states; the base model stays as it is."""

import math
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from autodeco.errors import InputError
from autodeco.heads import Heads
from autodeco.losses.exact import predict_and_score
from autodeco.runs.interrupts import noted_interrupt
from autodeco.runs.seeds import Stream, generator
from autodeco.settings.program import bar
from autodeco.training.arguments import TrainingArguments
from autodeco.training.control import measure_control, ranking_step
from autodeco.training.device import check_alone
from autodeco.training.report import write_report
from autodeco.training.results import ControlEvaluation, Evaluation, TrainingResult
from autodeco.training.schedule import learning_rate
from autodeco.training.source import Chunk, Source
from autodeco.training.state import TrainingState, check_run


def train(
    traces_dir: str | os.PathLike,
    output_dir: str | os.PathLike,
    arguments: TrainingArguments | None = None,
    model_path: str | os.PathLike | None = None,
    init: str | os.PathLike | None = None,
    resume: bool = False,
    progress: bool = True,
) -> TrainingResult:
    """Train heads on the traces in ``traces_dir`` and write the best ones, by held-out loss, into ``output_dir``.

    ``model_path``: the GGUF that was collected from, if it has moved. The rest is as in ``train_from``.
    """
    from autodeco.training.trace_source import TraceSource  # a Hugging Face model is trained for without llama.cpp

    arguments = arguments or TrainingArguments()
    check_alone("training on traces")
    check_run(output_dir, arguments, resume)
    return train_from(TraceSource(traces_dir, arguments, model_path), output_dir, arguments, init, resume, progress)


def train_from(
    source: Source,
    output_dir: str | os.PathLike,
    arguments: TrainingArguments,
    init: str | os.PathLike | None = None,
    resume: bool = False,
    progress: bool = True,
) -> TrainingResult:
    """Train heads on ``source`` and write the best ones, by held-out loss, with a report into ``output_dir``.

    ``init``: heads to start from. An interrupt keeps the best heads so far and returns; ``resume`` continues such a run
    to the result that it would have had. Raises InputError for bad input, and for a loss that is not finite.
    """
    evaluation = ControlEvaluation if arguments.control else Evaluation
    made_of, details = source.made_of, source.details
    run = TrainingState(Path(output_dir), source, arguments, evaluation, made_of, details, init, resume)
    with run.locked():
        return _run(run, source, progress)


def _run(run: TrainingState, source: Source, progress: bool) -> TrainingResult:
    arguments = run.arguments
    if not run.history:
        run.evaluated(evaluate(run.heads, source, arguments))
    run.extra = {"updates": [], "seconds": 0.0, "tokens": 0} | run.extra
    interrupted = _make_updates(run, source, progress)
    seconds, tokens = run.extra["seconds"], run.extra["tokens"]
    result = run.finish(*source.tokens, "tokens", seconds, tokens / seconds if seconds else 0.0, interrupted)
    if interrupted:
        # Who starts processes ends them all when the first one does: none leaves before everything is written.
        source.all_reduce_sum(torch.zeros((), device=source.device))
        return result
    predictions = _predictions(run.best_heads(), source, arguments)  # where processes share a model, all run it
    if source.rank == 0:
        write_report(run, predictions)
    return result


def _make_updates(run: TrainingState, source: Source, progress: bool) -> int:
    """Update and measure the heads until the last step, or an interrupt after which the run can be continued; return
    the signal of that, 0 for none."""
    arguments, so_far, interrupted, first = run.arguments, run.extra, False, source.rank == 0
    message = "stopping after this step; press again to lose what came after the last measurement" if first else ""
    with (
        bar(arguments.steps, run.step, "step", "train", progress and first) as shown,
        noted_interrupt(message) as interrupts,
    ):
        while run.step < arguments.steps and not interrupted:
            began = time.perf_counter()
            loss, count = _update(run, source)
            so_far["seconds"] += time.perf_counter() - began
            so_far["tokens"] += count
            so_far["updates"].append({"step": run.step, "loss": loss})
            run.track({"loss": loss, "learning_rate": run.optimizer.param_groups[0]["lr"]})
            if run.step % arguments.evaluate_every == 0 or run.step == arguments.steps:
                run.evaluated(evaluate(run.averaged_heads(), source, arguments))
            shown.update()
            shown.set_postfix(_figures(run, loss), refresh=False)
            # Here the heads, the optimiser and the history agree with the number of steps. All processes stop after the
            # same one, whichever of them is interrupted.
            interrupted = source.all_reduce_sum(torch.tensor(float(len(interrupts)), device=source.device)).item() > 0
        if run.step == arguments.steps:
            return 0
        run.save_resume()
    return max(interrupts, default=signal.SIGINT)  # by default: another process was interrupted


def _figures(run: TrainingState, loss: float) -> dict[str, str]:
    """Return what the bar says of the run and of its last measurement."""
    now, rate = run.history[-1], run.extra["tokens"] / run.extra["seconds"]
    figures = {"tokens/s": f"{rate:.0f}", "loss": f"{loss:.4f}", "held out": f"{now['loss']:.4f}"}
    for letter, name in (("T", "temperature"), ("P", "top_p")):
        figures[letter] = f"{now[name]:.2f}±{now[f'{name}_deviation']:.2f}"
    return figures


def _update(run: TrainingState, source: Source) -> tuple[float, int]:
    """Make one step of the optimiser; return its loss and how many tokens it saw."""
    arguments = run.arguments
    scored = _score(run.heads, source.training(run.step), arguments)
    # A fresh generator for each step: a resumed run drops the same tokens.
    random = generator(arguments.seed, Stream.EASY_TOKENS, run.step, source.rank)
    dropped = torch.from_numpy(random.random(len(scored.records)) < arguments.easy_token_drop).to(scored.easy.device)
    kept = ~(dropped & scored.easy)
    counts = source.all_reduce_sum(torch.stack([kept.sum(), torch.tensor(len(kept), device=kept.device)])).clamp(min=1)
    loss = scored.top_p_loss.sum() / counts[1] if arguments.top_p else 0.0
    if arguments.temperature:
        loss = loss + torch.where(kept, scored.temperature_loss, 0).sum() / counts[0]
    bad = scored.bad
    if arguments.control:
        ranking, unranked = ranking_step(run.heads, source, arguments, run.step)
        loss, bad = loss + arguments.control_weight * ranking, np.concatenate([bad, unranked])
    total = source.all_reduce_sum(loss.detach()).item()
    if not math.isfinite(total):
        raise InputError(
            f"{run.directory}: the loss of step {run.step} is {total} ({_where(bad)}); "
            "the best heads so far are kept; try a lower --learning-rate"
        )
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    for parameter in run.heads.parameters():
        parameter.grad = source.all_reduce_sum(parameter.grad)
    run.update(learning_rate(run.step, arguments))
    return total, int(counts[1])


@torch.no_grad()
def evaluate(heads: Heads, source: Source, arguments: TrainingArguments) -> Evaluation:
    """Return means over the held-out tokens; easy ones count in ``loss`` as often as they would be kept.

    Raises InputError, with the record, for a loss that is not finite.
    """
    scored = _score(heads, source.validation(), arguments)
    temperature, top_p = scored.temperature.double(), scored.top_p.double()
    temperature_loss, top_p_loss = scored.temperature_loss.double(), scored.top_p_loss.double()
    kept = 1 - arguments.easy_token_drop * scored.easy.double()
    columns = (torch.ones_like(kept), kept, kept * temperature_loss, temperature_loss, top_p_loss)
    columns += (temperature, temperature**2, top_p, top_p**2)
    count, kept, kept_loss, *sums = source.all_reduce_sum(torch.stack([column.sum() for column in columns])).tolist()
    temperature_loss, top_p_loss, temperature, temperature_squares, top_p, top_p_squares = (
        value / count for value in sums
    )
    loss = top_p_loss if arguments.top_p else 0.0
    if arguments.temperature:
        loss += kept_loss / max(kept, 1e-9)
    if not math.isfinite(loss):
        raise InputError(
            f"{source.details['data']['file']}: the held-out loss is {loss} ({_where(scored.bad)}); "
            "the best heads so far are kept; try a lower --learning-rate"
        )
    evaluation = Evaluation(
        loss=loss,
        temperature_loss=temperature_loss,
        top_p_loss=top_p_loss,
        temperature=temperature,
        temperature_deviation=max(0.0, temperature_squares - temperature**2) ** 0.5,
        top_p=top_p,
        top_p_deviation=max(0.0, top_p_squares - top_p**2) ** 0.5,
    )
    if not arguments.control:
        return evaluation
    control = measure_control(heads, source, arguments)
    loss += arguments.control_weight * control["ranking_loss"]
    return ControlEvaluation(**asdict(evaluation) | control | {"loss": loss})


@dataclass
class _Scored:
    """Per token [n]: what the heads predict, its losses, whether the model is already right, and the token's record."""

    temperature: Tensor
    top_p: Tensor
    temperature_loss: Tensor
    top_p_loss: Tensor
    easy: Tensor
    labels: Tensor
    records: np.ndarray

    @property
    def bad(self) -> np.ndarray:
        """Return the records of tokens whose losses are not finite."""
        return self.records[~(self.temperature_loss + self.top_p_loss).isfinite().cpu().numpy()]


def _where(bad: np.ndarray) -> str:
    return f"record {bad[0] + 1} of the data" if len(bad) else "another process's records"


def _score(heads: Heads, chunks: Iterable[Chunk], arguments: TrainingArguments) -> _Scored:
    """Score chunk by chunk; what is kept of a token is what the heads read."""
    parts, labels, records = [], [], []
    for chunk in chunks:
        scored = predict_and_score(
            heads, chunk.hidden, chunk.logits, chunk.labels, weighted=arguments.fine_tuning_weight
        )
        parts.append(scored)
        labels.append(chunk.labels)
        records.append(chunk.records)
        del chunk  # else its logits stay until the next ones are there
    columns = [torch.cat(column) for column in zip(*parts, strict=True)]
    return _Scored(*columns, torch.cat(labels), np.concatenate(records))


@torch.no_grad()
def _predictions(heads: Heads, source: Source, arguments: TrainingArguments) -> dict[str, list]:
    scored = _score(heads, source.validation(), arguments)
    return {
        "token": scored.labels.tolist(),
        "temperature": scored.temperature.tolist(),
        "top_p": scored.top_p.tolist(),
        "record": scored.records.tolist(),
    }
