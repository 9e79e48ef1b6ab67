"""Whether commands are followed in answers that the model draws itself, with heads of `autodeco train --control`.

Training measures control on given answers. Here each prompt is answered without a command, behind a training wording
and behind a held-out one of each direction, with the heads at work, and the means of T and P over these answers are
compared. Figures of the training run go into the same file.

python examples/control/prompts.py 100 --new > new.jsonl
python benchmarks/control.py MODEL.gguf HEADS HEADS.gguf new.jsonl
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from autodeco import batch
from autodeco.base.opening import open_base
from autodeco.data.control import Control, read_commands, share_names, share_rows
from autodeco.data.problems import read_problems
from autodeco.data.records import Record
from autodeco.runs.atomic import replacing
from autodeco.training.control import Predicted

RESULT = Path(__file__).parent / "results" / "control.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("trained", type=Path, help="folder of the training run")
    parser.add_argument("heads", type=Path, help="its heads, exported")
    parser.add_argument("prompts", type=Path, help="problems that training has not seen")
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULT)
    args = parser.parse_args()

    prompts = [problem["prompt"] for problem in read_problems(args.prompts)]
    control = Control(read_commands(), list(range(len(prompts))), seed=0)
    asked = [
        (index, command, variant.prompt)
        for index, prompt in enumerate(prompts)
        for command, variant in control.variants(index, Record(index + 1, prompt, ""))
    ]
    llm = open_base(args.model, n_ctx=512, n_threads=args.threads, n_threads_batch=args.threads)
    texts = [prompt for _, _, prompt in asked]
    answers = batch.generate(llm, texts, max_tokens=args.max_tokens, heads=args.heads)
    values, records, commands = [], [], []
    for answer in tqdm(answers, total=len(asked), unit="answer"):
        index, command, _ = asked[answer.prompt]
        decoding = answer.decoding
        values.append(np.stack([decoding.temperature, decoding.top_p]))
        records += [index] * len(decoding.temperature)
        commands += [command] * len(decoding.temperature)
    predicted = Predicted(torch.from_numpy(np.concatenate(values, 1)).double(), np.array(records), np.array(commands))

    drawn = {"prompts": len(prompts), "answers": len(asked), "max_tokens": args.max_tokens}
    for held_out in (False, True):
        means, _ = predicted.means(control.commands, held_out)
        right = (means[:, 1:] > means[:, :-1]).double().mean(2).T.flatten().tolist()
        drawn |= dict(zip(share_names(held_out).values(), right, strict=True))
        name = "held-out wordings" if held_out else "training wordings"
        for value, row in zip(("temperature", "top_p"), means.mean(2).tolist(), strict=True):
            drawn[f"mean {value}, {name}"] = dict(zip(("low", "none", "high"), row, strict=True))
    made = json.loads((args.trained / "training.json").read_text())
    trained = {name: made[name] for name in ("arguments", "result")}
    for row in share_rows(drawn):
        print(*row, sep="  ")
    args.output.parent.mkdir(exist_ok=True)
    with replacing(args.output) as part:
        part.write_text(json.dumps({"training": trained, "drawn": drawn}, indent=2) + "\n")
    print(args.output)


if __name__ == "__main__":
    main()
