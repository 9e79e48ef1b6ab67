"""Whether a run on the second GPU gives what it gives on a CPU: the exact losses, training and decoding.

    python3 benchmarks/gpu/second_gpu.py

Needs two GPUs and transformers. Each part runs in a process of its own, which must leave the first GPU's memory alone.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

WORDS = 400
PARTS = ("losses", "training", "decoding")


def write_model(folder: Path) -> None:
    """Write a tiny random Llama with a vocabulary of words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"<end>": 0} | {f"w{i}": i for i in range(1, WORDS)}, unk_token="<end>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=WORDS, num_key_value_heads=4, initializer_range=0.2, eos_token_id=0, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)


def losses(device: str, folder: Path) -> list[float]:
    """Return the sums of both losses and of their derivatives for random tokens."""
    import torch

    from autodeco.losses import token_losses

    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(64, 30_000, generator=generator) * torch.linspace(0.3, 8, 64).unsqueeze(-1)).to(device)
    values = torch.rand(2, 64, generator=generator) * 0.9 + 0.05
    temperature, top_p = (value.to(device).requires_grad_() for value in values)
    both = token_losses(logits, temperature, top_p, torch.arange(64, device=device) * 7, weighted=False)
    sum(part.sum() for part in both).backward()
    return [part.detach().sum().item() for part in (*both, temperature.grad, top_p.grad)]


def training(device: str, folder: Path) -> list[float]:
    """Return the held-out losses of a short run."""
    from autodeco.training import TrainingArguments, train_from
    from autodeco.training.arguments import HuggingFaceSettings
    from autodeco.training.hugging_face_source import HuggingFaceSource

    data = folder / "data.jsonl"
    texts = [" ".join(f"w{1 + (i * 7 + j * j) % (WORDS - 1)}" for j in range(12)) for i in range(200)]
    data.write_text("".join(json.dumps({"prompt": "w1 w2", "completion": text}) + "\n" for text in texts))
    arguments = TrainingArguments(steps=20, batch_tokens=256, evaluate_every=10, device=device)
    settings = HuggingFaceSettings(pack_tokens=128, dtype="float32")
    source = HuggingFaceSource(folder, data, arguments, settings)
    result = train_from(source, folder / f"heads-{device[:4]}", arguments, progress=False)
    return [row["loss"] for row in result.history]


def decoding(device: str, folder: Path) -> list[float]:
    """Return sums of the hidden states behind fixed tokens."""
    import torch

    from autodeco.hugging_face.decoder import Decoder
    from autodeco.hugging_face.model import HuggingFaceModel

    model = HuggingFaceModel(folder, "float32")
    model.network.to(device)
    decoder = Decoder(model, 3, 32)
    rows, owners = torch.arange(3, device=device), torch.tensor([0, 1, 1], device=device)
    decoder.admit(rows, decoder.prefill([[1, 2, 3], [4, 5]]), owners)
    states = [decoder.hidden.clone()]
    for token in (7, 8, 9):
        decoder.step(torch.full((3,), token, device=device), rows >= 0)
        states.append(decoder.hidden.clone())
    if device != "cpu" and decoder._graphs[3] is None:
        raise SystemExit("no CUDA graph was recorded")
    return [float(state.double().abs().sum()) for state in states]


def part(name: str, device: str, folder: Path) -> None:
    """Print what part ``name`` gives on ``device``."""
    import torch

    from autodeco.training.device import take_device

    take_device(device)
    values = globals()[name](device, folder)
    first = torch.cuda.memory_reserved(0) if device != "cpu" else 0
    print(json.dumps({"values": values, "bytes_on_the_first": first}))


def main() -> int:
    """Compare; return 1 where anything differs by more than float32 rounds."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        for name in PARTS:
            found = []
            for device in ("cpu", "cuda:1"):
                done = subprocess.run(
                    [sys.executable, __file__, name, device, folder], capture_output=True, text=True, check=False
                )
                if done.returncode:
                    raise SystemExit(f"{name} on {device}: {done.stderr}")
                found.append(json.loads(done.stdout.splitlines()[-1]))
            pairs = zip(found[0]["values"], found[1]["values"], strict=True)
            worst = max(abs(a - b) / abs(a) for a, b in pairs)
            good = worst < 1e-3 and not found[1]["bytes_on_the_first"]
            failed += not good
            print(f"{name}: {'same' if good else 'NOT the same'}, {worst:.1e} apart", found)
    return int(failed > 0)


if __name__ == "__main__":
    if sys.argv[1:]:
        part(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    else:
        sys.exit(main())
