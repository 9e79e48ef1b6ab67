"""Threads and GPU layers of llama.cpp: settings that decide only the speed."""

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
