"""Likelihood training on all GPUs of a machine.

    python3 benchmarks/gpu/many_gpus.py TOKENIZER FOLDER RESULT.json SHAPE ...

For each SHAPE `autodeco train` runs on one GPU, on all with a copy of the model each, and on all that share one copy
(FSDP2), as far as the model fits. Models have real shapes and random weights, the same in each layer, and are written
to FOLDER; the layers of one that no GPU holds are zeros, which take no disk. TOKENIZER is a folder or a GGUF file.
"""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

SHAPES = {  # bfloat16
    "1.5b": {"hidden_size": 1536, "num_hidden_layers": 28, "intermediate_size": 8960},  # Qwen2.5-1.5B
    "8b": {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336},  # Llama-3.1-8B
    "43b": {
        "hidden_size": 8192,
        "num_hidden_layers": 48,
        "intermediate_size": 28672,
    },  # Llama-3.1-70B's, 48 layers
}
SHAPES["1.5b"] |= {"num_attention_heads": 12, "num_key_value_heads": 2, "tie_word_embeddings": True}
SHAPES["8b"] |= {"num_attention_heads": 32, "num_key_value_heads": 8}
SHAPES["43b"] |= {"num_attention_heads": 64, "num_key_value_heads": 8}
VOCABULARY = 151936
SENTENCE = "The quick brown fox jumps over the lazy dog, and 12 sheep count themselves to sleep. "
PACK, BATCH = 2048, 16384
FSDP = ["--use_fsdp", "--fsdp_version=2", "--fsdp_auto_wrap_policy=TRANSFORMER_BASED_WRAP"]
FSDP += ["--fsdp_reshard_after_forward=true"]


def write_zeros(tensors: dict, path: Path) -> None:
    """Write a safetensors file of zeros of the shapes of ``tensors``, all bfloat16, as one hole."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [end, end + tensor.nbytes]}
        end += tensor.nbytes
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded)
    os.truncate(path, 8 + len(encoded) + end)


def write_model(folder: Path, shape: dict, tokenizer: Path, memory: int) -> None:
    """Write a model, layer by layer: it may be larger than ``memory``, that of a GPU, in bytes."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    config = {"vocab_size": VOCABULARY, "architectures": ["Qwen2ForCausalLM"], "dtype": "bfloat16", **shape}
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = Qwen2ForCausalLM(Qwen2Config(**config | {"num_hidden_layers": 1}))
    torch.set_default_dtype(torch.float32)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if shape.get("tie_word_embeddings"):
        del state["lm_head.weight"]
    del model
    torch.cuda.empty_cache()
    Qwen2Config(**config).save_pretrained(folder)
    layer = {name: tensor for name, tensor in state.items() if ".layers.0." in name}
    parts = [{name: tensor for name, tensor in state.items() if name not in layer}]
    parts += [
        {name.replace(".layers.0.", f".layers.{i}."): tensor for name, tensor in layer.items()}
        for i in range(shape["num_hidden_layers"])
    ]
    size = sum(tensor.nbytes for part in parts for tensor in part.values())
    places = {}
    for i, part in enumerate(parts):
        file = f"model-{i:05}-of-{len(parts):05}.safetensors"
        if i and size > memory:
            write_zeros(part, folder / file)
        else:
            save_file(part, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": size}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    where = {"gguf_file": tokenizer.name} if tokenizer.suffix == ".gguf" else {}
    AutoTokenizer.from_pretrained(tokenizer.parent if where else tokenizer, **where).save_pretrained(folder)


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

    tokenizer, folder, result, shapes = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]
    gpus, memory = torch.cuda.device_count(), torch.cuda.get_device_properties(0).total_memory
    report = {"device": f"{gpus} x {torch.cuda.get_device_name()}", "batch_tokens": BATCH, "pack_tokens": PACK}
    report |= {"torch": torch.__version__, "models_mib": {}, "runs": []}
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "data.jsonl"
    rows = [{"prompt": f"{i}:", "completion": SENTENCE * (10 + i % 7)} for i in range(1000)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for shape in shapes:
        model = folder / shape
        if not (model / "tokenizer.json").exists():
            write_model(model, SHAPES[shape], tokenizer, memory)
            gc.collect()
        size = sum(path.stat().st_size for path in model.glob("*.safetensors"))
        report["models_mib"][shape] = round(size / 2**20)
        ways = [(1, False), (gpus, False)] if size < 0.9 * memory else []
        if not report["runs"] and ways:
            train(
                model, data, folder / "heads" / "first", 1, False, 2
            )  # compiles kernels, which later runs find on disk
        for processes, sharded in [*ways, (gpus, True)]:
            output = folder / "heads" / f"{shape}-{processes}-{sharded}"
            report["runs"].append(train(model, data, output, processes, sharded, 20 if ways else 6))
            print(report["runs"][-1], flush=True)
            result.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        sys.exit(worker(sys.argv[2:]))
    main()
