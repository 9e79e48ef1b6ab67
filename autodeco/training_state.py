"""Where a training run stands: heads, optimiser and history, how to continue it and how it ended."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import safetensors
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from autodeco.atomic import replacing
from autodeco.errors import InputError
from autodeco.heads import Heads
from autodeco.traces import Manifest
from autodeco.training_arguments import TrainingArguments

RUN_FILE = "training.json"  # how the heads were made
RESUME_FILE = "resume.safetensors"  # there while a run is unfinished


@dataclass(frozen=True)
class Evaluation:
    """Means over held-out tokens: losses in nats, and the values the heads predict."""

    loss: float  # what training minimises: the next two, easy tokens at the weight that dropping leaves them
    temperature_loss: float  # of all tokens, none dropped
    top_p_loss: float
    temperature: float
    temperature_deviation: float
    top_p: float
    top_p_deviation: float


@dataclass
class TrainingResult:
    """What a run did. ``steps`` is how far it got; the heads in ``directory`` are those of ``best_step``."""

    directory: str
    before: Evaluation
    after: Evaluation  # of the heads kept
    best_step: int
    steps: int
    interrupted: bool
    training_tokens: int
    validation_tokens: int
    seconds: float
    tokens_per_second: float
    history: list[dict] = field(default_factory=list)


class TrainingState:
    """The heads, their optimiser and what is known of them, from the first step to the last or the interruption."""

    def __init__(self, output_dir: Path, manifest: Manifest, arguments: TrainingArguments, resume: bool):
        self.directory, self.manifest, self.arguments = output_dir, manifest, arguments
        torch.manual_seed(arguments.seed)
        self.heads = Heads(manifest.model.hidden_size, arguments.prob_stats, arguments.temperature, arguments.top_p).to(
            arguments.device
        )
        self.heads.base_config = {
            "base_model_name_or_path": manifest.model.name,
            "base_model_type": manifest.model.architecture,
            "base_model_fingerprint": manifest.model.fingerprint,
            "vocab_size": manifest.model.vocab_size,
        }
        self.optimizer = torch.optim.AdamW(
            self.heads.parameters(), lr=arguments.learning_rate, weight_decay=arguments.weight_decay
        )
        self.step = 0
        self.history: list[dict] = []
        self._best_weights: dict[str, Tensor] = {}
        if resume:
            self._load_resume()
        elif (output_dir / RESUME_FILE).exists():
            raise InputError(f"{output_dir}: holds an unfinished run; continue it with --resume or give another folder")

    @property
    def best(self) -> dict:
        return min(self.history, key=lambda row: row["loss"])

    def evaluated(self, evaluation: Evaluation) -> None:
        """Note ``evaluation`` of the heads as they are; keep the heads if they are the best so far."""
        self.history.append({"step": self.step, **asdict(evaluation)})
        if not math.isfinite(evaluation.loss):
            raise InputError(f"{self.directory}: the held-out loss is {evaluation.loss} after {self.step} steps")
        if self.best["step"] == self.step:
            self._best_weights = {name: tensor.detach().clone() for name, tensor in self.heads.state_dict().items()}
            self.heads.save_pretrained(self.directory)
        self.save_resume()

    def save_resume(self) -> None:
        """Write everything that is needed to continue from here."""
        tensors = {f"heads.{name}": tensor for name, tensor in self.heads.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self._best_weights.items()}
        for name, parameter in self.heads.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"{key}.{name}"] = value
        state = {"step": self.step, "history": self.history, "made_by": self._made_by()}
        with replacing(self.directory / RESUME_FILE) as part:
            part.write_bytes(save({name: t.contiguous() for name, t in tensors.items()}, {"state": json.dumps(state)}))

    def _load_resume(self) -> None:
        path = self.directory / RESUME_FILE
        if not path.exists():
            raise InputError(f"{path}: there is no unfinished run to continue; leave out --resume to start one")
        try:
            with safe_open(path, framework="pt") as file:
                state = json.loads(file.metadata()["state"])
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            for key, value in self._made_by().items():
                if state["made_by"][key] != value:
                    raise InputError(f"{path}: the unfinished run had another {key}; use the same again to continue it")
            self.step, self.history = state["step"], state["history"]
            self.heads.load_state_dict(_with_prefix(tensors, "heads."))
            self._best_weights = _with_prefix(tensors, "best.")
            for name, parameter in self.heads.named_parameters():
                keys = ("step", "exp_avg", "exp_avg_sq")
                moments = {key: tensors[f"{key}.{name}"] for key in keys if f"{key}.{name}" in tensors}
                if moments:
                    self.optimizer.state[parameter] = {
                        key: value if key == "step" else value.to(self.arguments.device)
                        for key, value in moments.items()
                    }
        except InputError:
            raise
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise InputError(f"{path}: not readable ({error}); delete it and train again") from None

    def _made_by(self) -> dict:
        """Return what must be the same for a run to be continued."""
        arguments = asdict(self.arguments)
        arguments.pop("device")
        return {
            "arguments": arguments,
            "model": self.manifest.model.fingerprint,
            "data": self.manifest.data["sha256"],
            "collect settings": self.manifest.settings,
        }

    def finish(self, training, validation, seconds, tokens_per_second, interrupted) -> TrainingResult:
        """Write how the heads were made, drop what only an unfinished run needs, and return the result."""
        rows = [Evaluation(**{k: v for k, v in row.items() if k != "step"}) for row in (self.history[0], self.best)]
        result = TrainingResult(
            directory=str(self.directory),
            before=rows[0],
            after=rows[1],
            best_step=self.best["step"],
            steps=self.step,
            interrupted=interrupted,
            training_tokens=training,
            validation_tokens=validation,
            seconds=round(seconds, 1),
            tokens_per_second=round(tokens_per_second, 1),
            history=self.history,
        )
        made = {
            "arguments": asdict(self.arguments),
            "model": asdict(self.manifest.model),
            "data": self.manifest.data,
            "collect_settings": self.manifest.settings,
            "logits_error": self.manifest.logits_error,
            "versions": {"torch": torch.__version__, "numpy": np.__version__, "safetensors": safetensors.__version__},
            "result": {key: value for key, value in asdict(result).items() if key != "directory"},
        }
        with replacing(self.directory / RUN_FILE) as part:
            part.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
        if not interrupted:
            (self.directory / RESUME_FILE).unlink(missing_ok=True)
        return result


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
