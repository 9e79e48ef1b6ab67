"""Prompts whose answers can be more or less certain, as problems for `autodeco rollout`: a task and a subject each.

python prompts.py 320 > prompts.jsonl           to train with
python prompts.py 100 --new > new.jsonl         other tasks and other subjects

An answer that ends with a full stop is right: ``--checker 'regex:[.]$'``.
"""

import argparse
import itertools
import json
import random

TASKS = [
    "Write one sentence about {}.",
    "Explain {} in one sentence.",
    "Give one fact about {}.",
    "In one sentence, why do people like {}?",
    "Begin a story about {} with one sentence.",
    "Give one piece of advice about {}, in one sentence.",
    "Describe {} to a child in one sentence.",
    "What will {} be like in a hundred years? One sentence.",
]
# fmt: off
SUBJECTS = [
    "the ocean", "a bicycle", "bread", "rain", "chess", "a library", "gravity", "the moon", "a violin", "winter",
    "coffee", "a volcano", "honey", "trains", "sleep", "a garden", "money", "maps", "whales", "a bridge",
    "photography", "the desert", "glass", "dancing", "a lighthouse", "rice", "clouds", "football", "a clock",
    "forests", "paper", "robots", "the heart", "markets", "a castle", "silk", "spiders", "friendship", "a kite",
    "earthquakes", "cheese", "languages",
]
# fmt: on
NEW_TASKS = [
    "Say something short about {}.",
    "How would you sum up {} briefly?",
    "Finish with one sentence: when I think of {}, I",
    "Name one thing that {} can teach us, and say why.",
]
# fmt: off
NEW_SUBJECTS = [
    "a mountain", "tea", "the piano", "summer", "a ship", "mirrors", "ants", "electricity", "salt", "a theatre",
    "snow", "cats", "poetry", "a telescope", "wool", "the market square", "rivers", "a hospital", "stamps",
    "lightning", "apples", "a map of Europe", "swimming", "candles", "owls",
]
# fmt: on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int)
    parser.add_argument("--new", action="store_true", help="tasks and subjects that are in none of the others")
    args = parser.parse_args()
    pairs = itertools.product(*((NEW_TASKS, NEW_SUBJECTS) if args.new else (TASKS, SUBJECTS)))
    prompts = [task.format(subject) for task, subject in pairs]
    if args.count > len(prompts):
        parser.error(f"there are {len(prompts)} such prompts")
    for prompt in random.Random(0).sample(prompts, args.count):
        print(json.dumps({"prompt": [{"role": "user", "content": prompt}], "answer": "."}))


if __name__ == "__main__":
    main()
