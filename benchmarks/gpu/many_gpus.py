"""Likelihood training on all GPUs of a machine.

    python3 benchmarks/gpu/many_gpus.py TOKENIZER FOLDER RESULT.json SHAPE ...

For each SHAPE `autodeco train` runs on one GPU, on all with a copy of the model each, and on all that share one copy
(FSDP2), as far as the model fits. Models are those of random_models.py, written to FOLDER. TOKENIZER is a folder or a
GGUF file.
"""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

PACK, BATCH = 2048, 16384
FSDP = ["--use_fsdp", "--fsdp_version=2", "--fsdp_auto_wrap_policy=TRANSFORMER_BASED_WRAP"]
FSDP += ["--fsdp_reshard_after_forward=true"]


def train(model: Path, data: Path, output: Path, processes: int, sharded: bool, steps: int) -> dict:
    """Run ``autodeco train`` and return its rate, its losses and the peak memory of each GPU."""
    command = [sys.executable, "-m", "accelerate.commands.launch", f"--num_processes={processes}", "--num_machines=1"]
    command += [
        "--mixed_precision=no",
        "--dynamo_backend=no",
        *(["--multi_gpu"] if processes > 1 and not sharded else []),
    ]
    command += FSDP if sharded else []
    command += [__file__, "worker", f"--model={model}", f"--data={data}", "-o", str(output), "--device=cuda"]
    command += [f"--steps={steps}", f"--batch-tokens={BATCH}", f"--pack-tokens={PACK}", f"--evaluate-every={steps}"]
    command += [f"--validation-tokens={BATCH}"]
    output.mkdir(parents=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    run = {"model": model.name, "gpus": processes, "sharded": sharded, "steps": steps}
    if done.returncode:
        (output / "stderr.txt").write_text(done.stderr)
        errors = [line for line in done.stderr.splitlines() if "Error" in line and "rror(" not in line]
        return run | {
            "failed": next((line for line in errors if "ProcessError" not in line), f"see {output}/stderr.txt")
        }
    result = json.loads((output / "training.json").read_text())["result"]
    run["peak_mib"] = [round(int(path.read_text()) / 2**20) for path in sorted(output.glob("peak-*"))]
    run |= {key: result[key] for key in ("tokens_per_second", "seconds")}
    return run | {"loss": [row["loss"] for row in result["history"]]}


def worker(arguments: list[str]) -> int:
    """Be ``autodeco``, and leave the peak memory of this process's GPU beside the heads."""
    import torch

    from autodeco import cli

    code = cli.main(["train", *arguments])
    output = Path(arguments[arguments.index("-o") + 1])
    (output / f"peak-{os.environ.get('RANK', 0)}").write_text(str(torch.cuda.max_memory_allocated()))
    return code


def main() -> None:
    """Write the result, after every run."""
    import torch
    from random_models import write_data, write_model

    tokenizer, folder, result, shapes = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]
    gpus, memory = torch.cuda.device_count(), torch.cuda.get_device_properties(0).total_memory
    report = {"device": f"{gpus} x {torch.cuda.get_device_name()}", "batch_tokens": BATCH, "pack_tokens": PACK}
    report |= {"torch": torch.__version__, "models_mib": {}, "runs": []}
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "data.jsonl"
    write_data(data, 1000)
    for shape in shapes:
        model = folder / shape
        if not (model / "tokenizer.json").exists():
            write_model(model, shape, tokenizer, memory)
            gc.collect()
        size = sum(path.stat().st_size for path in model.glob("*.safetensors"))
        report["models_mib"][shape] = round(size / 2**20)
        ways = list(dict.fromkeys([(1, False), (gpus, False)])) if size < 0.9 * memory else []
        if not report["runs"] and ways:
            train(
                model, data, folder / "heads" / "first", 1, False, 2
            )  # compiles kernels, which later runs find on disk
        for processes, sharded in [*ways, (gpus, True)]:
            output = folder / "heads" / f"{shape}-{processes}-{sharded}"
            report["runs"].append(train(model, data, output, processes, sharded, 20 if ways else 6))
            print(report["runs"][-1], flush=True)
            result.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        sys.exit(worker(sys.argv[2:]))
    main()
