"""What reading a model's header and fingerprint takes, and all that `autodeco collect` reads before llama.cpp does.

    python benchmarks/opening.py [-o benchmarks/results/opening.json]

Runs on SmolLM2 and on a generated header with a vocabulary of 262,144 tokens (Gemma's size). llama.cpp's own loading is
left out. Seconds are of the processor, the fastest of nine. Rows under "before" in the results are of commit db2fb67,
where every step of an open read the header and the fingerprint for itself; they were measured on the same machine.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from unittest import mock

import llama_cpp
import numpy as np

from autodeco.base.opening import default_model, open_base
from autodeco.base.output_matrix import read_output_matrix
from autodeco.export import gguf_encode as encode
from autodeco.export import gguf_types as types
from autodeco.export import layout
from autodeco.export.gguf_file import TensorInfo, padded, read_gguf

VOCAB, HIDDEN = 262_144, 640
ROUNDS = 9


def write_model(path: Path) -> None:
    """A GGUF of zeros with the vocabulary of a large model and an output matrix."""
    tokens = encode.string("tokenizer.ggml.tokens") + np.array([types.ARRAY, types.STRING], "<u4").tobytes()
    tokens += np.uint64(VOCAB).tobytes() + b"".join(encode.string(f"token{i}") for i in range(VOCAB))
    scores = encode.string("tokenizer.ggml.scores") + np.array([types.ARRAY, types.FLOAT32], "<u4").tobytes()
    scores += np.uint64(VOCAB).tobytes() + bytes(4 * VOCAB)
    keys = [
        encode.key_value("general.architecture", types.STRING, "llama"),
        encode.key_value("llama.embedding_length", types.UINT32, HIDDEN),
        tokens,
        scores,
    ]
    info = TensorInfo("output.weight", (HIDDEN, VOCAB), types.F16, 0, 2 * HIDDEN * VOCAB)
    head = encode.header(1, len(keys)) + b"".join(keys) + encode.tensor_info(info)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(padded(len(head), 32) + info.nbytes)  # sparse: takes no room


def collect(path: Path) -> None:
    """What ``collect`` reads of a model before llama.cpp does."""
    found = layout.open_layout(path)
    read_output_matrix(found)
    found.model_fingerprint  # noqa: B018
    open_base(found)


def fastest(function, *arguments) -> float:
    """Processor seconds of the fastest of ROUNDS calls."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        function(*arguments)
        seconds.append(time.process_time() - start)
    return round(min(seconds), 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help='JSON; what it has under "before" stays')
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(llama_cpp, "Llama"):
        generated = Path(folder) / "model.gguf"
        write_model(generated)
        for name, path in (("SmolLM2", default_model()), (f"vocabulary of {VOCAB}", generated)):
            opened = layout.open_layout(path)
            rows.append(
                {
                    "model": name,
                    "header_seconds": fastest(read_gguf, path),
                    "fingerprint_seconds": fastest(layout.fingerprint, path),
                    "collect_seconds": fastest(collect, path),
                    "vocab": opened.vocab_size,
                }
            )
            print(rows[-1])
    if args.output:
        found = json.loads(args.output.read_text()) if args.output.exists() else {}
        args.output.write_text(json.dumps({"rows": rows, "before": found.get("before", [])}, indent=2) + "\n")


if __name__ == "__main__":
    main()
