"""What heads in a model's metadata cost a program that does not know them, by the size of the heads.

    python benchmarks/embedded.py [--rounds 15] [-o benchmarks/results/embedded.json]

Embeds heads of 0.6, 4 and 16 MB (f16, hidden sizes of 576, 4096 and 16,384) in SmolLM2 and opens each file by stock
llama.cpp and by gguf-py, in turn with the plain model. Also the 0.6 MB as an array of bytes instead of u64, and opening
model and heads by autodeco.Llama in every layout. Each figure is that of the fastest round, of the processor and of the
clock; ratios are to the plain model in the same run. A context takes the same with heads and without.
"""

import argparse
import json
import os
import platform
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import llama_cpp
from gguf import GGUFReader
from random_heads import write_random_heads
from tqdm import tqdm

import autodeco
from autodeco.base.opening import default_model
from autodeco.export import gguf_encode as encode
from autodeco.export import gguf_types as types
from autodeco.export.checkpoint import read_heads
from autodeco.export.head_tensors import head_tensors
from autodeco.export.layout import Layout, open_layout
from autodeco.export.schema import KEY_HEADS
from autodeco.export.writer import write_embedded, write_merged, write_sidecar

SLOW_ROUNDS = 3  # of gguf-py, which makes an object of every number
HIDDEN = {"0.6 MB": 576, "4 MB": 4096, "16 MB": 16384}


def load(path: Path) -> None:
    """Open a model by stock llama.cpp, mapped, and close it."""
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    assert model, path
    llama_cpp.llama_model_free(model)


def open_with_heads(*paths: Path) -> None:
    """Open a model and its heads by ``autodeco.Llama`` and close both."""
    autodeco.Llama(*map(str, paths), n_ctx=64, n_threads=1, verbose=False).close()


def as_bytes(embedded: Path, output: Path) -> int:
    """Write ``embedded`` with its heads as an array of bytes; returns how many."""
    gguf = open_layout(embedded).gguf
    held, data = gguf.keys[KEY_HEADS], embedded.read_bytes()
    heads = data[held.items : held.end]
    key = encode.string(KEY_HEADS) + struct.pack("<IIQ", types.ARRAY, types.UINT8, len(heads)) + heads
    output.write_bytes(data[: held.start] + key + data[held.end :])
    return len(heads)


def fastest(cases: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """Processor and wall-clock seconds of the fastest of ``rounds`` of each case, all in turn."""
    least = {name: {"processor_seconds": float("inf"), "seconds": float("inf")} for name in cases}
    for _ in tqdm(range(rounds), disable=None):
        for name, run in cases.items():
            wall, processor = time.perf_counter(), time.process_time()
            run()
            for key, found in (
                ("processor_seconds", time.process_time() - processor),
                ("seconds", time.perf_counter() - wall),
            ):
                least[name][key] = min(least[name][key], found)
    return least


def ratios(least: dict[str, dict[str, float]], base: str) -> dict[str, dict[str, float]]:
    """The same with the ratio of each to ``base``, rounded."""
    return {
        name: {
            "processor_ratio": round(found["processor_seconds"] / least[base]["processor_seconds"], 3),
            "ratio": round(found["seconds"] / least[base]["seconds"], 3),
        }
        | {key: round(seconds, 4) for key, seconds in found.items()}
        for name, found in least.items()
    }


def write_files(folder: Path, base: Layout) -> tuple[dict[str, Path], dict[str, int]]:
    """SmolLM2 with heads of each size embedded, and the bytes of each."""
    files, sizes = {}, {}
    for name, hidden in HIDDEN.items():
        write_random_heads(folder / "heads.safetensors", hidden)
        tensors = head_tensors(read_heads(folder / "heads.safetensors"), "f16")
        files[name] = folder / f"{hidden}.gguf"
        # Heads of another width than the model's: programs that do not know them do not look.
        write_embedded(files[name], tensors, base)
        sizes[name] = sum(len(tensor.data) for tensor in tensors)
        if hidden == base.embedding_length:
            write_merged(folder / "merged.gguf", tensors, base)
            write_sidecar(folder / "sidecar.gguf", tensors, base)
            sizes["0.6 MB as bytes"] = as_bytes(files[name], folder / "bytes.gguf")
            files["0.6 MB as bytes"] = folder / "bytes.gguf"
    return files, sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    llama_cpp._logger.set_verbose(False)
    model = default_model()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files, sizes = write_files(folder, open_layout(model))
        stock = {"plain": model, **files}
        ours = {
            "model alone": [model],
            "sidecar": [model, folder / "sidecar.gguf"],
            "merged": [folder / "merged.gguf"],
            "embedded": [files["0.6 MB"]],
        }
        results = {
            "heads_bytes": sizes,
            "llama.cpp": ratios(fastest({k: lambda p=p: load(p) for k, p in stock.items()}, args.rounds), "plain"),
            "gguf-py": ratios(fastest({k: lambda p=p: GGUFReader(p) for k, p in stock.items()}, SLOW_ROUNDS), "plain"),
            "autodeco.Llama, 0.6 MB": ratios(
                fastest({k: lambda p=p: open_with_heads(*p) for k, p in ours.items()}, args.rounds), "model alone"
            ),
        }
    results |= {
        "model": "SmolLM2-135M-Instruct Q4_1, 98 MB, vocabulary of 49,152",
        "rounds": {"gguf-py": SLOW_ROUNDS, "others": args.rounds},
        "llama_cpp_python": llama_cpp.__version__,
        "system": f"{platform.system()} {platform.release()}",
        "cpus": os.cpu_count(),
    }
    text = json.dumps(results, indent=2)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
