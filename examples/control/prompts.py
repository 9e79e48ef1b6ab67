"""Prompts whose answers can be more or less certain, as problems for `autodeco rollout`.

python prompts.py > prompts.jsonl              1120 to train with, of twenty kinds
python prompts.py --new > new.jsonl             200 of other templates and subjects, half of them of two other kinds

An answer that ends with a full stop is right: ``--checker 'regex:[.]$'``. Sums have their result under ``sum``.
"""

import argparse
import json

from autodeco.data.control_prompts import HELD_OUT_PROMPTS, TRAINING_PROMPTS, control_prompts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", help=f"default: all {TRAINING_PROMPTS} or {HELD_OUT_PROMPTS}")
    parser.add_argument("--new", action="store_true", help="prompts that no training sees")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    prompts = control_prompts(args.new, seed=args.seed)
    if args.count is not None and not 0 <= args.count <= len(prompts):
        parser.error(f"there are {len(prompts)} such prompts")
    for prompt in prompts[: args.count]:
        record = {"prompt": [{"role": "user", "content": prompt.text}], "answer": ".", "kind": prompt.kind}
        print(json.dumps(record | ({"sum": prompt.answer} if prompt.answer else {})))


if __name__ == "__main__":
    main()
