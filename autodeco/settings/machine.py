"""Threads, processes and GPU layers of llama.cpp: settings that decide only the speed."""

from dataclasses import dataclass

from autodeco.settings.limits import MOST_THREADS
from autodeco.settings.options import Options, option


@dataclass(frozen=True)
class Processors(Options):
    """For work that keeps all processors busy."""

    threads: int | None = option(None, "CPU threads (default: all)", least=1, most=MOST_THREADS)


@dataclass(frozen=True)
class Machine(Options):
    """For answers."""

    threads: int | None = option(None, "CPU threads (default: half of the machine's)", least=1, most=MOST_THREADS)
    gpu_layers: int = option(0, "layers on the GPU, -1: all", least=-1)


@dataclass(frozen=True)
class Processes(Options):
    """For answers that several processes draw at the same time."""

    processes: int = option(1, "processes that draw answers, each with the model and --slots of its own", least=1)
    gpus: int = option(0, "GPUs that the processes are spread over; each sees one (0: all see all)", least=0)
