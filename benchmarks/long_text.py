"""What a token of a completion takes, at the beginning of a text and behind 8,000 tokens, against llama-cpp-python.

    python benchmarks/long_text.py [-o benchmarks/results/long_text.json]

The model is a random one of one layer with SmolLM2's vocabulary, so that most of the time is that of the text.
Texts are of ASCII. Milliseconds are of the processor, one thread, the mean of a thousand tokens.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import llama_cpp
import numpy as np
from one_layer_model import HIDDEN, write_model
from random_heads import write_random_heads

import autodeco
from autodeco.export.checkpoint import read_heads
from autodeco.export.head_tensors import head_tensors
from autodeco.export.layout import open_layout
from autodeco.export.writer import write_sidecar

TOKENS, WINDOW = 8_000, 1_000
CONTEXT = TOKENS + 512
PROMPT = "Once upon a time"
SAMPLING = {"temperature": 0.8, "top_p": 0.95, "top_k": 40, "min_p": 0.05}
MODES = {
    "none, tokens alone": None,
    "whole": {},
    "stream": {"stream": True},
    "stream, two stop strings": {"stream": True, "stop": ["\n\n\n#", "END."]},
}


def seconds_of(llm: llama_cpp.Llama, settings: dict | None) -> np.ndarray:
    """Processor time when each of the tokens was there; None: without a text."""
    times = []
    noted = llama_cpp.StoppingCriteriaList([lambda tokens, logits: times.append(time.process_time())])
    if settings is None:
        sampling = {name.replace("temperature", "temp"): value for name, value in SAMPLING.items()}
        made = llm.generate(llm.tokenize(PROMPT.encode()), stopping_criteria=noted, **sampling)
        for _ in range(TOKENS):
            next(made)
        made.close()
    else:
        made = llm.create_completion(PROMPT, max_tokens=TOKENS, seed=1, stopping_criteria=noted, **SAMPLING, **settings)
        for _ in made if settings.get("stream") else ():
            pass
    assert len(times) >= TOKENS, "the text ended too early"
    return np.array(times[:TOKENS])


def measured(folder: Path, modes: list[str]) -> Iterator[dict]:
    """Yield a row for each way to open the model, in each of ``modes``."""
    path, weights, heads = (folder / name for name in ("model.gguf", "heads.safetensors", "heads.gguf"))
    write_model(path, CONTEXT)
    write_random_heads(weights, HIDDEN)
    write_sidecar(heads, head_tensors(read_heads(weights, HIDDEN), "f16"), open_layout(path))
    options = {"n_ctx": CONTEXT, "n_threads": 1, "n_threads_batch": 1, "verbose": False}
    opened = {
        "llama-cpp-python": lambda: llama_cpp.Llama(str(path), **options),
        "autodeco.Llama without heads": lambda: autodeco.Llama(str(path), **options),
        "autodeco.Llama": lambda: autodeco.Llama(str(path), heads, **options),
    }
    for mode in modes:
        stock = None
        for name, opening in opened.items():
            llm = opening()
            times = seconds_of(llm, MODES[mode])
            llm.close()
            spans = [1000 * (part[-1] - part[0]) / (WINDOW - 1) for part in (times[:WINDOW], times[-WINDOW:])]
            first, last = (round(float(span), 3) for span in spans)
            stock = stock or last
            yield {
                "completion": mode,
                "of": name,
                "first_ms": first,
                "last_ms": last,
                "stock_over_it_at_the_end": round(stock / last, 2),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="JSON; what it has of other completions stays")
    parser.add_argument("--completion", action="append", choices=MODES, help="measure these only")
    args = parser.parse_args()
    modes = args.completion or list(MODES)
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for row in measured(Path(folder), modes):
            rows.append(row)
            print(row, flush=True)
    if args.output:
        before = json.loads(args.output.read_text())["rows"] if args.output.exists() else []
        rows = [*(row for row in before if row["completion"] not in modes), *rows]
        args.output.write_text(json.dumps({"tokens": TOKENS, "window": WINDOW, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
