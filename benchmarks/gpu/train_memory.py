"""GPU memory of likelihood training on a running model: python3 benchmarks/gpu/train_memory.py TOKENIZER RESULT.json

The model has the shape of Qwen2.5-1.5B and random weights; TOKENIZER is a GGUF or a folder with any tokenizer of at
most 151,936 tokens. Reported is the peak beside the size of the frozen model.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from autodeco.hugging_face import HuggingFaceSource
from autodeco.hugging_face_settings import HuggingFaceSettings
from autodeco.training import train_from
from autodeco.training_arguments import TrainingArguments

SHAPE = {"hidden_size": 1536, "num_hidden_layers": 28, "intermediate_size": 8960, "vocab_size": 151936}
SHAPE |= {"num_attention_heads": 12, "num_key_value_heads": 2, "tie_word_embeddings": True}
SENTENCE = "The quick brown fox jumps over the lazy dog, and 12 sheep count themselves to sleep. "


def main() -> None:
    """Write the result."""
    tokenizer, result = Path(sys.argv[1]), Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as name:
        folder, data = Path(name) / "model", Path(name) / "data.jsonl"
        torch.set_default_dtype(torch.bfloat16)
        with torch.device("cuda"):
            model = Qwen2ForCausalLM(Qwen2Config(**SHAPE))
        torch.set_default_dtype(torch.float32)
        size = sum(parameter.nbytes for parameter in model.parameters())
        model.save_pretrained(folder)
        del model
        where = {"gguf_file": tokenizer.name} if tokenizer.suffix == ".gguf" else {}
        AutoTokenizer.from_pretrained(tokenizer.parent if where else tokenizer, **where).save_pretrained(folder)
        rows = [{"prompt": f"{i}:", "completion": SENTENCE * (10 + i % 7)} for i in range(200)]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        report = {"device": torch.cuda.get_device_name(), "shape": SHAPE, "model_mib": round(size / 2**20), "runs": []}
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
    result.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
