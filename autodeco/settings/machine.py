"""Threads, processes and GPU layers of llama.cpp: settings that decide only the speed."""

import os
from dataclasses import dataclass

from autodeco.settings.limits import MOST_THREADS
from autodeco.settings.options import Options, option


@dataclass(frozen=True)
class Machine(Options):
    """For answers."""

    threads: int | None = option(
        None, "CPU threads (default: half of the machine's, all for prompts)", least=1, most=MOST_THREADS
    )
    gpu_layers: int = option(0, "layers on the GPU, -1: all", least=-1)

    @property
    def opening(self) -> dict[str, int | None]:
        """The arguments of ``llama_cpp.Llama`` that say so."""
        return {"n_threads": self.threads, "n_threads_batch": self.threads, "n_gpu_layers": self.gpu_layers}

    @property
    def flags(self) -> list:
        """The flags that ask another command for the same."""
        return ([] if self.threads is None else ["--threads", self.threads]) + (
            ["--gpu-layers", self.gpu_layers] if self.gpu_layers else []
        )


@dataclass(frozen=True)
class Processors(Machine):
    """For work that keeps all processors busy."""

    threads: int | None = option(None, "CPU threads (default: all)", least=1, most=MOST_THREADS)

    @property
    def opening(self) -> dict[str, int | None]:
        threads = self.threads or os.cpu_count()
        return {**super().opening, "n_threads": threads, "n_threads_batch": threads}


@dataclass(frozen=True)
class Processes(Options):
    """For answers that several processes draw at the same time."""

    processes: int = option(1, "processes that draw answers, each with the model and --slots of its own", least=1)
    gpus: int = option(0, "GPUs that the processes are spread over; each sees one (0: all see all)", least=0)
