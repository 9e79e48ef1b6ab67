"""How fast `autodeco eval` draws answers: from shared prefixes on the host, against a sequence for each in the graph.

    python benchmarks/judging.py MODEL.gguf [HEADS.gguf] [--gpu-layers -1] [--slots 256] [-o RESULT.json]

Every round asks the same problems in turn: each with `batch.answer` (one sequence an answer, drawn in the graph), and
with `batch.shared.answer` from one context and from two that take turns. The settings are AutoDeco and static ones, as
in `autodeco eval`; then its rules as well, which only shared answers have. Without HEADS the heads are random. Also
says how many states the model computed for each token, and how full its batches were.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import llama_cpp
from random_heads import write_random_heads
from tqdm import tqdm

from autodeco import batch, native
from autodeco.base.opening import open_vocabulary
from autodeco.base.tokenizer import Tokenizer
from autodeco.batch import Answer, Request, shared
from autodeco.batch.shared_context import StateContext
from autodeco.commands.bench import machine, versions
from autodeco.evaluation import methods, rivals
from autodeco.evaluation.methods import Method
from autodeco.export import cli as export_cli
from autodeco.llama.opening import open_llama
from autodeco.runs.atomic import replacing

Way = Callable[[list[Request]], Iterator[Answer]]
TEMPERATURES, TOP_PS = (0.2, 0.4, 0.6, 0.8, 1.0), (0.9, 1.0)
QUESTION = "A farmer has {} sheep and buys {} more each week. How many are there after {} weeks? Think step by step."


class Counted(StateContext):
    """Counts what the model computes."""

    steps = computed = 0

    def states(self, slots, tokens):
        Counted.steps += 1
        Counted.computed += len(slots)
        return super().states(slots, tokens)


class Pooled(Counted):
    """One memory for all sequences."""

    @staticmethod
    def can_stream(llm, slots):
        return False


def requests(llm: llama_cpp.Llama, chosen: list[Method], problems: int, samples: int, tokens: int) -> list[Request]:
    """The answers of every method to every problem, those to one problem behind each other."""
    texts = [QUESTION.format(3 + i, 2 + i % 7, 2 + i % 5) for i in range(problems)]
    if "tokenizer.chat_template" in llm.metadata:
        texts = [[{"role": "user", "content": text}] for text in texts]
    ids = [tuple(Tokenizer(llm).prompt_ids(text)) for text in texts]
    wanted = []
    for i, method in enumerate(chosen):
        each = batch.requests(llm, ids, 1 if method.is_greedy else samples, method.sampling, tokens)
        wanted += [replace(one, prompt=ids[one.index], sample=i * samples + one.sample) for one in each]
    return sorted(wanted, key=lambda request: request.index)


def measure(way: Way, wanted: list[Request]) -> dict[str, float]:
    """Seconds, answers and tokens of one way to answer, and what it computed."""
    Counted.steps = Counted.computed = 0
    start = time.perf_counter()
    lengths = [len(answer.decoding) for answer in way(wanted)]
    seconds = time.perf_counter() - start
    found = {"seconds": seconds, "answers": len(lengths), "tokens": sum(lengths)}
    found |= {"answers_per_second": len(lengths) / seconds, "tokens_per_second": sum(lengths) / seconds}
    if Counted.steps:
        found["states_per_token"] = Counted.computed / sum(lengths)
        found["states_per_step"] = Counted.computed / Counted.steps
        found["milliseconds_per_step"] = 1000 * seconds / Counted.steps
    return {name: round(value, 3) for name, value in found.items()}


def compare(ways: dict[str, Way], wanted: list[Request], rounds: int, label: str) -> dict:
    """What each way did in each round, in turn; its medians, and their rates over those of the first way."""
    found: dict[str, list[dict]] = {name: [] for name in ways}
    for _ in tqdm(range(rounds), desc=label, unit="round", disable=None):
        for name, way in ways.items():
            found[name].append(measure(way, wanted))
    median = {
        name: {key: statistics.median(one[key] for one in each) for key in each[0]} for name, each in found.items()
    }
    first = median[next(iter(ways))]["tokens_per_second"]
    ratios = {name: round(one["tokens_per_second"] / first, 2) for name, one in median.items()}
    return {"rounds": found, "median": median, "ratio": ratios}


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("heads", type=Path, nargs="?")
    parser.add_argument("--gpu-layers", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--slots", type=int, default=256)
    parser.add_argument("--problems", type=int, default=16)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--without", nargs="*", default=[], choices=["graph", "static", "rules"], help="what to leave out"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("judging.json"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        heads = args.heads or _random_heads(args.model, Path(folder))
        options = {"n_threads": args.threads, "n_threads_batch": args.threads, "n_gpu_layers": args.gpu_layers}
        llm = open_llama(args.model, heads, n_ctx=2048, **options)
        loaded = native.load_heads(heads)
        ways: dict[str, Way] = {"in the graph": lambda wanted: batch.answer(llm, wanted, loaded, args.slots)}
        if "graph" in args.without:
            ways.clear()

        def answers(wanted: list[Request], contexts: int, kind: type[StateContext]) -> Iterator[Answer]:
            shared.StateContext = kind
            return shared.answer(llm, wanted, loaded, args.slots, contexts=contexts)

        ways["shared, 1 context, pooled memory"] = partial(answers, contexts=1, kind=Pooled)
        ways["shared, 1 context"] = partial(answers, contexts=1, kind=Counted)
        ways["shared, 2 contexts"] = partial(answers, contexts=2, kind=Counted)
        grid = [methods.static(t, p) for t in TEMPERATURES for p in TOP_PS]
        static = list(dict.fromkeys([methods.AUTODECO, methods.GREEDY, *grid]))
        rules = rivals.by_hand(llm, ())
        sizes = (args.problems, args.samples, args.tokens)
        for way in ways.values():  # warm up
            list(way(requests(llm, static, 1, 1, 4)))
        result = {}
        if "static" not in args.without:
            wanted = requests(llm, static, *sizes)
            result["AutoDeco and static settings"] = compare(ways, wanted, args.rounds, "static")
        if "rules" not in args.without:
            wanted = requests(llm, [*static, *rules], *sizes)
            ways.pop("in the graph", None)
            result["rules as well"] = compare(ways, wanted, args.rounds, "rules")
        threads = llm.n_threads_batch
        llm.close()
    result |= {
        "settings": {
            "model": args.model.name,
            "methods": {"static": len(static), "rules": len(rules)},
            "gpu_layers": args.gpu_layers,
            "threads": threads,
            "slots": args.slots,
            "problems": args.problems,
            "samples": args.samples,
            "tokens": args.tokens,
        },
        "machine": machine(),
        "versions": versions(),
    }
    shown = {name: {key: part[key] for key in ("median", "ratio")} for name, part in result.items() if "ratio" in part}
    print(json.dumps(shown, indent=2))
    with replacing(args.output) as part:
        part.write_text(json.dumps(result, indent=2) + "\n")
    print(f"wrote {args.output}")


def _random_heads(model: Path, folder: Path) -> Path:
    vocabulary = open_vocabulary(model)
    weights, heads = folder / "heads.safetensors", folder / "heads.gguf"
    architecture = vocabulary.metadata["general.architecture"]
    write_random_heads(weights, int(vocabulary.metadata[f"{architecture}.embedding_length"]))
    vocabulary.close()
    export_cli.main([str(weights), "--base", str(model), "-o", str(heads)])
    return heads


if __name__ == "__main__":
    main()
