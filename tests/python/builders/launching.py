"""`autodeco` run by several processes."""

import os
import subprocess
import sys
from pathlib import Path

AUTODECO = Path(sys.executable).parent / "autodeco"


def launch(processes: int, command: list, program: Path = AUTODECO, **environment: str) -> subprocess.CompletedProcess:
    """Run ``command`` of ``program`` as ``processes`` processes on the CPU."""
    # what `accelerate launch` starts on GPUs; on CPUs it wants MPI for more than one process
    run = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
    run += [f"--master_port={29500 + os.getpid() % 500}", str(program), *map(str, command)]
    threads = {"OMP_NUM_THREADS": "1"}
    return subprocess.run(run, capture_output=True, text=True, env=os.environ | threads | environment, timeout=300)
