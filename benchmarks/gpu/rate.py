"""Tokens of answers a second, and where the time goes: python3 benchmarks/gpu/rate.py MODEL.gguf PROBLEMS.jsonl [...]

Each configuration is HOW:PROCESSESxSLOTSxTHREADS[xCONTEXTS]. HOW is "shared", answers that share their prefixes
(autodeco.batch.shared), or "graph", answers drawn in the graph (autodeco.batch). CONTEXTS take turns in a process. All
processes answer other problems at the same time; tokens of answers that are not complete count. A line of JSON for each
configuration has the rate, the rows that the model computed a second, and the seconds of a process in:

  decode   llama_decode: building the graph, the model, prompts
  hidden   copying the hidden states
  waiting  waiting for draws
  slots    copies and moves of sequences, and prompts that begin, without their decoding
  rest     everything else: Python's own cost of tokens and steps

and, summed over the threads that draw, in

  thread_logits   waiting for the copy of the logits
  thread_waiting  waiting for the thread that does
  thread_draws    draws by settings, heads and rules, and among them
  thread_native   those by settings and heads

With --profile, the lines that cProfile finds most time in are printed for the first process.
"""

import argparse
import cProfile
import io
import json
import multiprocessing
import os
import pstats
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

from autodeco.runs.workers import Workers

CONTEXT = 1024
LONGEST_START = 120  # seconds that the first process waits for the last


class Clock:
    """Seconds by what they were spent on; what one named call spends in another belongs to the inner one. Those of
    other threads than the first have names of their own."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self._inner = threading.local()

    def wrap(self, owner: object, name: str, what: str, count: Callable[..., int] | None = None) -> None:
        """Time every call of ``owner.name`` as ``what``; ``count`` adds up what it says of the result."""
        call = getattr(owner, name)

        def timed(*args, **options):
            outer, self._inner.seconds = getattr(self._inner, "seconds", 0.0), 0.0
            start = time.perf_counter()
            try:
                result = call(*args, **options)
            finally:
                spent = time.perf_counter() - start
                is_main = threading.current_thread() is threading.main_thread()
                self.seconds[what if is_main else f"thread_{what}"] += spent - self._inner.seconds
                self._inner.seconds = outer + spent
            if count:
                self.counts[what] += count(result)
            return result

        setattr(owner, name, timed)


def watch(clock: Clock) -> None:
    """Have ``clock`` time what answers are made of."""
    from concurrent.futures import Future

    import llama_cpp

    from autodeco import native
    from autodeco.batch import context, shared, shared_context

    clock.wrap(llama_cpp, "llama_decode", "decode", lambda _: 1)
    clock.wrap(shared_context.StateContext, "logits", "logits")
    clock.wrap(native.HiddenStates, "rows", "hidden")
    clock.wrap(shared_context.StateContext, "states", "rest", len)  # rows
    for name in ("gathered", "branches", "begin", "release"):
        clock.wrap(shared_context.StateContext, name, "slots")
    clock.wrap(Future, "result", "waiting")
    clock.wrap(native, "draw_from_rows", "native")
    clock.wrap(shared, "draw_rows", "draws", len)
    clock.wrap(context.BatchContext, "step", "step", len)


class Answering:
    """One process of a configuration, called with the number of the process."""

    def __init__(self, args: argparse.Namespace, how: str, size: list[int], start: Barrier):
        from llama_cpp import Llama

        from autodeco import native

        self._args, self._how, self._start = args, how, start
        _, self._slots, threads, *rest = size
        self._contexts = rest[0] if rest else None
        self._clock = Clock()
        watch(self._clock)
        self._llm = Llama(
            str(args.model), n_ctx=CONTEXT, n_gpu_layers=args.gpu_layers, verbose=False, n_threads=threads,
            n_threads_batch=threads, seed=1,
        )  # fmt: skip
        self._heads = native.load_heads(args.heads) if args.heads else None

    def _wanted(self, number: int) -> list:
        from autodeco import batch
        from autodeco.data.problems import read_problems

        args = self._args
        prompts = [problem["prompt"] for problem in read_problems(args.problems)]
        prompts = [prompts[(number * args.each + i) % len(prompts)] for i in range(args.each)]
        wanted = []
        for i, text in enumerate(args.ways):
            temperature, _, top_p = text.partition("/")
            static = batch.Sampling(float(temperature), float(top_p or 1), heads="none") if text != "heads" else None
            requests = batch.requests(self._llm, prompts, args.answers, static or batch.Sampling(), args.max_tokens)
            wanted += [replace(request, sample=i * args.answers + request.sample) for request in requests]
        return sorted(wanted, key=lambda request: request.index)

    def __call__(self, number: int) -> Iterator[dict]:
        from autodeco import batch
        from autodeco.batch import shared

        wanted = self._wanted(number)
        model = (self._llm, wanted, self._heads, self._slots)
        answers = batch.answer(*model) if self._how == "graph" else shared.answer(*model, contexts=self._contexts)
        self._start.wait(LONGEST_START)
        self._restart()
        profile = cProfile.Profile() if self._args.profile and number == 0 else None
        if profile:
            profile.enable()
        stopping = threading.Event()
        timers = [threading.Timer(seconds, call) for seconds, call in self._times(stopping)]
        for timer in timers:
            timer.start()
        complete = 0
        for _ in answers:
            complete += 1
            if stopping.is_set():
                break
        spent = time.perf_counter() - self._begun
        for timer in timers:
            timer.cancel()
        if profile:
            profile.disable()
            lines = io.StringIO()
            pstats.Stats(profile, stream=lines).sort_stats("tottime").print_stats(25)
            print(lines.getvalue(), flush=True)
        answers.close()
        yield self._found(spent, complete, complete == len(wanted))

    def _times(self, stopping: threading.Event) -> list[tuple[float, Callable[[], None]]]:
        return [(self._args.warm, self._restart), (self._args.warm + self._args.seconds, stopping.set)]

    def _restart(self) -> None:
        """Measure from here on."""
        self._clock.seconds.clear()
        self._clock.counts.clear()
        self._begun = time.perf_counter()

    def _found(self, spent: float, complete: int, is_over: bool) -> dict:
        counts, seconds = self._clock.counts, dict(self._clock.seconds)
        in_graph = self._how == "graph"
        if "thread_draws" in seconds:
            seconds["thread_draws"] += seconds["thread_native"]
        seconds["rest"] = spent - sum(seconds[name] for name in seconds if not name.startswith(("rest", "thread_")))
        tokens = counts["step" if in_graph else "draws"]
        return {
            "spent": spent,
            "tokens": tokens,
            "rows": tokens if in_graph else counts["rest"],
            "decodes": counts["decode"],
            "answers": complete,
            "ran_out": is_over,
            "seconds": seconds,
        }


def measured(args: argparse.Namespace, text: str) -> dict:
    """Return the figures of one configuration."""
    how, _, sizes = text.partition(":")
    size = [int(each) for each in sizes.split("x")]
    began = time.perf_counter()
    start = multiprocessing.get_context("spawn").Barrier(size[0])
    with Workers(size[0], args.gpus, Answering, args, how, size, start) as workers:
        found = list(workers.results([(i,) for i in range(size[0])]))
    longest = max(one["spent"] for one in found)
    names = sorted({name for one in found for name in one["seconds"]})
    rows, decodes = (sum(one[name] for one in found) for name in ("rows", "decodes"))
    return {
        "configuration": text,
        "gpus": args.gpus,
        "tokens_per_second": round(sum(one["tokens"] / one["spent"] for one in found)),
        "rows_per_second": round(sum(one["rows"] / one["spent"] for one in found)),
        "rows_per_decode": round(rows / max(1, decodes), 1),
        "ms_per_decode": round(1000 * sum(one["spent"] for one in found) / max(1, decodes), 2),
        "seconds": {name: round(sum(one["seconds"].get(name, 0.0) for one in found) / len(found), 2) for name in names},
        "measured_s": round(longest, 1),
        "load_s": round(time.perf_counter() - began - longest, 1),
        "answers": sum(one["answers"] for one in found),
        "ran_out": any(one["ran_out"] for one in found),
        "cpus": os.cpu_count(),
    }


def main() -> None:
    """Print the figures of every configuration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("problems", type=Path)
    parser.add_argument("--heads", type=Path)
    parser.add_argument("--configurations", nargs="+", default=["shared:1x256x8", "shared:2x256x8", "shared:2x512x8"])
    parser.add_argument("--ways", nargs="+", default=["heads"], metavar="heads|T[/P]", help="asked together")
    parser.add_argument("--answers", type=int, default=8, help="to each problem, a way")
    parser.add_argument("--each", type=int, default=400, help="problems of a process, which may come again")
    parser.add_argument("--max-tokens", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--warm", type=float, default=3, help="seconds before those, in which contexts are made")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--gpu-layers", type=int, default=-1)
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    for text in args.configurations:
        try:
            found = measured(args, text)
        except Exception as error:
            found = {"configuration": text, "failed": str(error)}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
