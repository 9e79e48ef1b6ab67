"""GPU memory of likelihood training on a running model: python3 benchmarks/gpu/train_memory.py TOKENIZER RESULT.json

The model is that of 1.5B parameters of random_models.py; TOKENIZER is a GGUF file or a folder with any tokenizer of
at most 151,936 tokens. Reported is the peak beside the size of the frozen model.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from random_models import SHAPES, VOCABULARY, write_data, write_model

from autodeco.training import TrainingArguments, train_from
from autodeco.training.arguments import HuggingFaceSettings
from autodeco.training.hugging_face_source import HuggingFaceSource

SHAPE = "1.5b"


def main() -> None:
    """Write the result."""
    tokenizer, result = Path(sys.argv[1]), Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as name:
        folder, data = Path(name) / "model", Path(name) / "data.jsonl"
        write_model(folder, SHAPE, tokenizer, torch.cuda.get_device_properties(0).total_memory)
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        write_data(data, 200)
        report = {
            "device": torch.cuda.get_device_name(),
            "shape": SHAPES[SHAPE] | {"vocab_size": VOCABULARY},
            "model_mib": round(size / 2**20),
            "runs": [],
        }
        for pack_tokens in (1024, 2048):
            torch.cuda.empty_cache()
            arguments = TrainingArguments(steps=6, batch_tokens=4096, device="cuda", evaluate_every=6)
            source = HuggingFaceSource(folder, data, arguments, HuggingFaceSettings(pack_tokens=pack_tokens))
            torch.cuda.reset_peak_memory_stats()
            done = train_from(source, Path(name) / "heads", arguments, progress=False)
            peak = torch.cuda.max_memory_allocated()
            report["runs"].append(
                {
                    "pack_tokens": pack_tokens,
                    "beyond_the_model_mib": round((peak - size) / 2**20),
                    "tokens_per_second": done.tokens_per_second,
                }
            )
            shutil.rmtree(Path(name) / "heads")
            del source
    result.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
