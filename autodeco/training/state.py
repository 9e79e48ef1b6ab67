"""The state of a training run: heads, optimiser and history, how to continue it and how it ended."""

import contextlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from autodeco.errors import InputError
from autodeco.export.checkpoint import HEADS_FILE, RESUME_FILE, RUN_FILE
from autodeco.heads import Heads
from autodeco.runs.atomic import replacing
from autodeco.runs.locks import locked_folder
from autodeco.runs.provenance import provenance
from autodeco.runs.trackers import check_tracker, open_tracker
from autodeco.training.arguments import OptimizerArguments
from autodeco.training.device import take_device
from autodeco.training.results import TrainingResult
from autodeco.training.source import FrozenModel

PREDICTIONS_FILE = "predictions.json"  # for held-out tokens: what the report shows of them
REPORT_FILE = "report.html"


def check_folder(folder: str | os.PathLike, resume: bool) -> None:
    """Raise InputError where no heads may be written: in the place of a file, of a run to continue, of other heads or
    of a model, whose files would be taken for those of the heads."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give a folder for the heads")
    if resume:
        return
    if (folder / RESUME_FILE).exists():
        raise InputError(f"{folder}: holds an unfinished run; continue it with --resume or give another folder")
    if any((folder / name).exists() for name in (HEADS_FILE, RUN_FILE, PREDICTIONS_FILE, REPORT_FILE)):
        raise InputError(f"{folder}: holds heads already; give another folder, or remove this one")
    if other := next((path.name for path in sorted(folder.glob("*")) if _is_checkpoint(path)), None):
        raise InputError(f"{folder}: holds {other} of a model or of other heads; give the heads their own folder")


def _is_checkpoint(path: Path) -> bool:
    return path.name == "config.json" or path.name.endswith((".safetensors", ".safetensors.index.json"))


def check_run(output_dir: str | os.PathLike, arguments, resume: bool = False) -> None:
    """Take the device; raise InputError where a run cannot begin: no folder to be had, no such device or tracker."""
    check_tracker(arguments)
    check_folder(output_dir, resume)
    take_device(arguments.device)


def unfinished_arguments(folder: str | os.PathLike) -> dict:
    """Return the settings of the unfinished run in ``folder``; none where there is no such run to be read."""
    try:
        with safe_open(Path(folder) / RESUME_FILE, framework="pt") as file:
            return json.loads(file.metadata()["state"])["made_by"]["arguments"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return {}


class TrainingState:
    """The heads, their optimiser and what is known of them, from the first step to the last or the interruption.

    ``evaluation`` is the dataclass that a measurement gives; the lowest of its ``loss`` is the best. ``made_of``: data
    and settings that a continued run must have in common with the first; ``details``: what else ``training.json`` says
    of them. ``init``: heads to start from. Files are written by the first of several processes.
    """

    def __init__(
        self,
        output_dir: Path,
        model: FrozenModel,
        arguments: OptimizerArguments,
        evaluation: type,
        made_of: dict,
        details: dict,
        init: str | os.PathLike | None = None,
        resume: bool = False,
    ):
        self.directory, self.model, self.arguments = output_dir, model, arguments
        self._evaluation, self._made_of, self._details, self._init_hash = evaluation, made_of, details, None
        torch.manual_seed(arguments.seed)
        self.heads = self._first_heads(init).to(model.device)
        self.heads.base_config = {
            "base_model_name_or_path": model.identity.name,
            "base_model_type": model.identity.architecture,
            "base_model_fingerprint": model.identity.fingerprint,
            "vocab_size": model.identity.vocab_size,
        }
        self.optimizer = torch.optim.AdamW(
            self.heads.parameters(), lr=arguments.learning_rate, weight_decay=arguments.weight_decay
        )
        self.step = 0
        self.history: list[dict] = []
        self.extra: dict = {}  # what else a continued run must know, as JSON can hold it
        self._average = _copied(self.heads) if arguments.ema else None
        self._best_weights: dict[str, Tensor] = {}
        self._kept_step: int | None = None
        self._resume = resume
        check_folder(output_dir, resume)
        if resume:
            self._load_resume()
        if model.rank == 0:
            output_dir.mkdir(parents=True, exist_ok=True)
            if self._best_weights:  # the run may have been killed before it could write them
                with self.locked():
                    self.best_heads().save_pretrained(output_dir)
        self._tracker = open_tracker(arguments, output_dir) if model.rank == 0 else None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Let no other run write the folder while the body runs; raises InputError if one does, or has since."""
        if self.model.rank != 0:
            yield
            return
        with locked_folder(self.directory):
            check_folder(self.directory, self._resume)
            yield

    def start_from(self, heads: Heads) -> None:
        """Begin with the weights of ``heads``, before the first update."""
        self.heads.load_state_dict(heads.state_dict())
        if self._average is not None:
            self._average = _copied(self.heads)

    @property
    def best(self) -> dict:
        if self._kept_step is not None:
            return next(row for row in self.history if row["step"] == self._kept_step)
        return min(self.history, key=lambda row: row["loss"])

    def update(self, learning_rate: float) -> None:
        """Make one step of the optimiser with the gradients as they are; raises InputError if they are not finite."""
        clip = self.arguments.gradient_clip or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.heads.parameters(), clip).item()
        if not math.isfinite(norm):
            raise InputError(
                f"{self.directory}: the gradient of step {self.step} has the norm {norm}; "
                "the best heads so far are kept; try a lower --learning-rate"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.step += 1
        if self._average is not None:
            # The average of few updates should not be mostly the start.
            decay = min(self.arguments.ema, self.step / (self.step + 9))
            for name, tensor in self.heads.state_dict().items():
                self._average[name].lerp_(tensor, 1 - decay)

    def averaged_heads(self) -> Heads:
        """Return the heads that are measured and kept: the exponential average, where there is one."""
        return self.heads if self._average is None else self._with_weights(self._average)

    def best_heads(self) -> Heads:
        """Return the best heads so far."""
        return self._with_weights(self._best_weights)

    def keep(self, step: int, heads: Heads) -> None:
        """Keep ``heads``, those of ``step``, as the best after they were measured again."""
        self._kept_step, self._best_weights = step, _copied(heads)
        if self.model.rank == 0:
            self.best_heads().save_pretrained(self.directory)

    def track(self, values: dict[str, float]) -> None:
        """Send figures of the update just made to the tracker, if there is one."""
        if self._tracker:
            self._tracker.log(values, self.step)

    def evaluated(self, evaluation) -> None:
        """Note ``evaluation`` of the averaged heads as they are; keep those if they are the best so far."""
        self.history.append({"step": self.step, **asdict(evaluation)})
        self.track({f"held_out/{name}": value for name, value in asdict(evaluation).items()})
        if not math.isfinite(evaluation.loss):
            raise InputError(f"{self.directory}: the held-out loss is {evaluation.loss} after {self.step} steps")
        best = self.best["step"] == self.step
        if best:
            self._best_weights = _copied(self.averaged_heads())
        self.save_resume()  # first: heads without it would pass for those of a finished run
        if best and self.model.rank == 0:
            self.best_heads().save_pretrained(self.directory)

    def save_resume(self) -> None:
        """Write everything that is needed to continue from here."""
        if self.model.rank != 0:
            return
        tensors = {f"heads.{name}": tensor for name, tensor in self.heads.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self._best_weights.items()}
        tensors |= {f"average.{name}": tensor for name, tensor in (self._average or {}).items()}
        for name, parameter in self.heads.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"{key}.{name}"] = value
        state = {"step": self.step, "history": self.history, "extra": self.extra, "made_by": self._made_by()}
        with replacing(self.directory / RESUME_FILE) as part:
            part.write_bytes(save({name: t.contiguous() for name, t in tensors.items()}, {"state": json.dumps(state)}))

    def _first_heads(self, init: str | os.PathLike | None) -> Heads:
        arguments, model = self.arguments, self.model.identity
        if init is None:
            return Heads(model.hidden_size, arguments.prob_stats, arguments.temperature, arguments.top_p)
        heads = Heads.from_pretrained(init)
        if heads.control is not None:
            raise InputError(
                f"{init}: has a control head, which would stay behind; begin with heads that have none, and have what "
                "comes out follow commands again with autodeco control"
            )
        for what, found, wanted in (
            ("hidden size", heads.hidden_size, model.hidden_size),
            ("vocabulary", heads.base_config.get("vocab_size", model.vocab_size), model.vocab_size),
        ):
            if found != wanted:
                raise InputError(f"{init}: made for a {what} of {found}, {model.name} has {wanted}; use its own heads")
        for flag, there, wanted in (
            ("temperature", heads.temp_head is not None, arguments.temperature),
            ("top-p", heads.top_p_head is not None, arguments.top_p),
        ):
            if there != wanted:
                has, give = ("a", flag) if there else ("no", f"no-{flag}")
                raise InputError(f"{init}: has {has} {flag} head; give --{give}")
        if heads.top_p_head is not None and heads.prob_stats != arguments.prob_stats:
            has, said = ("a", "true") if heads.prob_stats else ("no", "false")
            raise InputError(
                f"{init}: has {has} top-p head that reads statistics; set prob_stats: {said} with --config"
            )
        self._init_hash = heads.digest
        return heads

    def _with_weights(self, weights: dict[str, Tensor]) -> Heads:
        heads = Heads(
            self.heads.hidden_size,
            self.heads.prob_stats,
            self.heads.temp_head is not None,
            self.heads.top_p_head is not None,
        ).to(self.model.device)
        heads.load_state_dict(weights)
        heads.base_config = self.heads.base_config
        return heads

    def _load_resume(self) -> None:
        path = self.directory / RESUME_FILE
        if not path.exists():
            if (self.directory / RUN_FILE).exists():
                raise InputError(f"{self.directory}: its run has ended, so there is no unfinished run to continue")
            raise InputError(f"{path}: there is no unfinished run to continue; leave out --resume to start one")
        try:
            with safe_open(path, framework="pt") as file:
                state = json.loads(file.metadata()["state"])
                tensors = {name: file.get_tensor(name).to(self.model.device) for name in file.keys()}  # noqa: SIM118
            before, now = (made_by | made_by["arguments"] for made_by in (state["made_by"], self._made_by()))
            if different := [name for name in now if name != "arguments" and before[name] != now[name]]:
                raise InputError(
                    f"{path}: the unfinished run had another {', another '.join(different)}; "
                    "use the same again to continue it"
                )
            self.step, self.history, self.extra = state["step"], state["history"], state["extra"]
            self.heads.load_state_dict(_with_prefix(tensors, "heads."))
            self._best_weights = _with_prefix(tensors, "best.")
            if self._average is not None:
                self._average = {name: tensors[f"average.{name}"].clone() for name in self._average}
            for name, parameter in self.heads.named_parameters():
                keys = ("step", "exp_avg", "exp_avg_sq")
                moments = {key: tensors[f"{key}.{name}"].clone() for key in keys if f"{key}.{name}" in tensors}
                if moments:
                    moments["step"] = moments["step"].cpu()  # where AdamW keeps it
                    self.optimizer.state[parameter] = moments
        except InputError:
            raise
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise InputError(f"{path}: not readable ({error}); delete it and train again") from None

    def _made_by(self) -> dict:
        """Return what must be the same for a run to be continued."""
        arguments = asdict(self.arguments)
        for name in ("device", "tracker"):
            arguments.pop(name)
        made_by = {"arguments": arguments, "model": self.model.identity.fingerprint, "first heads": self._init_hash}
        return made_by | self._made_of

    def finish(self, training, validation, unit, seconds, tokens_per_second, interrupted) -> TrainingResult:
        """Write how the heads were made and return the result; the run can be continued until ``close``."""
        rows = [
            self._evaluation(**{k: v for k, v in row.items() if k != "step"}) for row in (self.history[0], self.best)
        ]
        result = TrainingResult(
            directory=str(self.directory),
            before=rows[0],
            after=rows[1],
            best_step=self.best["step"],
            steps=self.step,
            interrupted=int(interrupted),
            training_size=training,
            validation_size=validation,
            unit=unit,
            seconds=round(seconds, 1),
            tokens_per_second=round(tokens_per_second, 1),
            history=self.history,
        )
        if self._tracker:
            self._tracker.finish()
        if self.model.rank != 0:
            return result
        made = {
            **provenance(),
            "arguments": asdict(self.arguments),
            "model": asdict(self.model.identity),
            "first_heads_sha256": self._init_hash,
            **self._details,
            **self.extra,
            "result": {key: value for key, value in asdict(result).items() if key not in ("directory", "quiet")},
        }
        with replacing(self.directory / RUN_FILE) as part:
            part.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
        return result

    def close(self) -> None:
        """Delete the files that only an unfinished run needs, once everything else is written."""
        (self.directory / RESUME_FILE).unlink(missing_ok=True)


def _copied(heads: Heads) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in heads.state_dict().items()}


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor.clone() for name, tensor in tensors.items() if name.startswith(prefix)}
