"""Decoding speed on SmolLM2-135M: heads in the graph against stock llama-cpp-python, in turn in one process.

    python benchmarks/decode.py

Uses the golden heads of tests/golden, so that the figure does not depend on a training run. Writes
benchmarks/results/decode.json.
"""

import json
import tempfile
from pathlib import Path

from autodeco.atomic import replacing
from autodeco.commands.bench import measure, report
from autodeco.default_model import default_model
from autodeco.export import cli as export_cli

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "decode.json"


def main() -> None:
    model = default_model()
    with tempfile.TemporaryDirectory() as folder:
        heads = Path(folder) / "heads.gguf"
        export_cli.main([str(ROOT / "tests/golden/smollm2.heads.safetensors"), "--base", str(model), "-o", str(heads)])
        result = measure(model, heads, tokens=200, rounds=9, threads=2)
    report(result)
    RESULT.parent.mkdir(exist_ok=True)
    with replacing(RESULT) as part:
        part.write_text(json.dumps(result, indent=2) + "\n")
    print(f"wrote {RESULT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
