"""How far two greedy answers of autodeco-cli --json agree: python3 benchmarks/gpu/compare_answers.py A.jsonl B.jsonl

Fails if not even the first token is the same: rounding differs between devices, and with it later tokens may.
"""

import json
import sys
from pathlib import Path


def tokens(path: str) -> list[dict]:
    """Return the tokens of an answer, which ends with a line of its own."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()][:-1]


def main() -> int:
    """Print the comparison."""
    a, b = (tokens(path) for path in sys.argv[1:3])
    same = next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x["token"] != y["token"]), len(a))
    pairs = list(zip(a[:same], b[:same], strict=True))
    off = {key: max((abs(x[key] - y[key]) for x, y in pairs), default=0.0) for key in ("temperature", "top_p")}
    print(
        f"{same} of {len(a)} tokens the same; over these temperature is off by {off['temperature']:.1e}, "
        f"top-p by {off['top_p']:.1e}"
    )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
