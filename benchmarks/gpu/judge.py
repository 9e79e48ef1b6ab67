"""Judge heads by llama.cpp on the quantized file: python3 benchmarks/gpu/judge.py MODEL.gguf PROBLEMS... -o OUT

PROBLEMS are files of problems, as problems.py writes them; each is a group of the result. The --heads NAME=FILE.gguf
stand beside static settings, rules with --rivals, their own mean in T and in 1/T, and their own pairs shuffled over
tokens. Several processes share each of --gpus GPUs. OUT/rewards.npz has the reward of every answer, and what it has is
not drawn again. All ways but those of further heads draw their answers to a problem together: what these have in
common is computed once, and a way's seconds are its share by tokens. OUT/judged.json has the figures: pass@1 and
pass@n in %, their differences with 95% bootstrap intervals over problems, seconds, tokens and tokens a second.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
from last_number import right
from tqdm import tqdm

from autodeco.batch.request import Sampling
from autodeco.data.inverse_temperature import inverse_mean
from autodeco.data.problems import read_problems
from autodeco.data.statistics import interval
from autodeco.runs.workers import Workers

PAIRS = 50_000  # that each part hands back
SEED = 4242


@dataclass(frozen=True)
class Way:
    """How answers are drawn."""

    name: str
    sampling: Sampling
    heads: Path | None = None
    answers: int | None = None  # to each problem, if not as many as the others

    @property
    def is_greedy(self) -> bool:
        return self.heads is None and self.sampling.temperature == 0 and self.sampling.rule is None


@dataclass
class Part:
    """Answers of one way to some problems."""

    rewards: np.ndarray  # [problems, answers]
    tokens: int = 0
    finished: int = 0
    pairs: list = field(default_factory=list)  # (temperature, top-p) of heads
    seconds: float = 0.0


def static(text: str) -> Way:
    """Return the setting in ``text``, TEMPERATURE or TEMPERATURE/TOP-P."""
    temperature, _, top_p = text.partition("/")
    sampling = Sampling(temperature=float(temperature), top_p=float(top_p or 1), heads="none")
    return Way("greedy" if sampling.temperature == 0 else f"T {temperature}, P {top_p or 1}", sampling)


def derived(name: str, pairs: np.ndarray, answers: int | None) -> list[Way]:
    """Return what is made of the ``pairs`` [n, 2] that the heads ``name`` predicted."""
    from autodeco.evaluation.rivals.shuffle import ShuffledPairs

    temperature, top_p = pairs.T.astype(float)
    inverse = 1 / inverse_mean(temperature)
    found = []
    for mean, value in (("mean", temperature.mean()), ("mean of 1/T", inverse)):
        sampling = Sampling(temperature=float(value), top_p=float(top_p.mean()), heads="none")
        found.append(Way(f"{name}, fixed at the {mean}", sampling, answers=answers))
    shuffled = Sampling(heads="none", rule=ShuffledPairs(pairs.astype(float)))
    return [*found, Way(f"{name}, shuffled", shuffled, answers=answers)]


def together(ways: list[Way]) -> list[list[Way]]:
    """Return ``ways`` in groups that one model with one set of heads draws at once: the first heads with all ways that
    need none, and each of the others alone."""
    first = next((way for way in ways if way.heads), None)
    groups = [[way for way in ways if way is first or not way.heads]]
    return [group for group in (*groups, *([way] for way in ways if way.heads and way is not first)) if group]


class Worker:
    """The model in a process of its own."""

    def __init__(self, args: argparse.Namespace):
        from llama_cpp import Llama

        self._args = args
        self._llm = Llama(
            str(args.model), n_ctx=1024, n_gpu_layers=args.gpu_layers, verbose=False, n_threads=args.threads,
            n_threads_batch=args.threads, seed=1,
        )  # fmt: skip

    def __call__(self, number: int, ways: list[Way], problems: list[dict], first: int) -> Iterator[tuple]:
        """Yield the parts of ``ways`` that begin with problem ``first``; where no way is given, the rivals."""
        yield number, first, self.answer(ways, problems, first) if ways else self.rivals()

    def rivals(self) -> list[Way]:
        from autodeco.evaluation.rivals import by_hand

        return [Way(method.name, method.sampling) for method in by_hand(self._llm, ())]

    @staticmethod
    @cache
    def _heads(file: Path | None):
        from autodeco import native

        return native.load_heads(file) if file else None

    def answer(self, ways: list[Way], problems: list[dict], first: int) -> list[Part]:
        """Answer ``problems``, of which the first is number ``first`` of all, in each of ``ways``."""
        from autodeco import batch
        from autodeco.batch import shared

        prompts = [problem["prompt"] for problem in problems]
        wanted, parts, most = [], [], 0
        for way in ways:
            n = 1 if way.is_greedy else way.answers or self._args.answers
            most = max(most, n)
            parts.append(Part(np.zeros((len(problems), n), np.float32)))
            wanted.append(batch.requests(self._llm, prompts, n, way.sampling, self._args.max_tokens, (), SEED + first))
        # an answer tells its sample alone, which tells the way as well
        told = (replace(each, sample=each.sample + i * most) for i, some in enumerate(wanted) for each in some)
        heads = self._heads(next((way.heads for way in ways if way.heads), None))
        by_prompt = sorted(told, key=lambda request: request.index)
        for answer in shared.answer(self._llm, by_prompt, heads, self._args.slots):
            way, sample = divmod(answer.sample, most)
            part = parts[way]
            part.tokens += len(answer.decoding)
            part.finished += answer.finished
            if answer.finished:
                part.rewards[answer.prompt, sample] = right(problems[answer.prompt], answer.text)
            if ways[way].heads:
                part.pairs.append(np.stack([answer.decoding.temperature, answer.decoding.top_p], 1).astype(np.float32))
        for part in parts:
            if part.pairs:
                part.pairs = [np.random.default_rng(first).permutation(np.concatenate(part.pairs))[:PAIRS]]
        return parts


class Judge:
    """Draws answers and keeps their rewards."""

    def __init__(self, args: argparse.Namespace, groups: dict[str, list[dict]], workers: Workers):
        self._args, self._workers, self._groups = args, workers, groups
        self._problems = [problem for group in groups.values() for problem in group]
        self._file = args.output / "rewards.npz"
        kept = dict(np.load(self._file)) if self._file.exists() else {}
        self.rewards = {name: value for name, value in kept.items() if not name.startswith(("cost ", "pairs "))}
        self._kept = {name: value for name, value in kept.items() if name not in self.rewards}
        self._unfinished = args.output / "parts.npz"
        self._parts = self._read_parts()

    def rivals(self) -> list[Way]:
        """Return the rules with which heads are compared, which the model decides."""
        ((_, _, ways),) = self._workers.results([(0, [], [], 0)])
        return ways

    def all(self, ways: list[Way]) -> None:
        """Draw what each of ``ways`` wants. Parts are the same for any number of processes, so answers are too."""
        starts = range(0, len(self._problems), self._args.part)
        jobs: list[tuple] = []
        for some in together([way for way in ways if way.name not in self.rewards]):
            for start in starts:
                if left := [way for way in some if (way.name, start) not in self._parts]:
                    jobs.append((len(jobs), left, self._problems[start : start + self._args.part], start))
        bar, began = tqdm(total=len(jobs), unit="part", disable=None), time.perf_counter()
        for i, start, parts in self._workers.results(jobs):
            seconds, began = time.perf_counter() - began, time.perf_counter()
            tokens = max(1, sum(part.tokens for part in parts))
            for way, part in zip(jobs[i][1], parts, strict=True):
                part.seconds = seconds * part.tokens / tokens
                self._parts[way.name, start] = part
            self._save_parts()
            bar.update()
            for way in jobs[i][1]:
                if all((way.name, each) in self._parts for each in starts):
                    self._keep(way.name, [self._parts.pop((way.name, each)) for each in starts])

    def _keep(self, name: str, parts: list[Part]) -> None:
        self.rewards[name] = np.concatenate([part.rewards for part in parts])
        self._kept[f"cost {name}"] = np.array(
            [sum(getattr(part, each) for part in parts) for each in ("seconds", "tokens", "finished")]
        )
        if pairs := [pairs for part in parts for pairs in part.pairs]:
            self._kept[f"pairs {name}"] = np.concatenate(pairs)
        np.savez_compressed(self._file, **self.rewards, **self._kept)
        self._save_parts()
        print(json.dumps({name: self.figures_of(name)}), flush=True)

    def _read_parts(self) -> dict[tuple[str, int], Part]:
        """Return the parts of ways that are not whole yet, by way and first problem."""
        kept = dict(np.load(self._unfinished)) if self._unfinished.exists() else {}
        found = {}
        for key in (key for key in kept if key.startswith("rewards ")):
            _, size, start, name = key.split(" ", 3)
            if int(size) == self._args.part:
                seconds, tokens, finished = kept[f"cost {size} {start} {name}"].tolist()
                pairs = [kept[f"pairs {size} {start} {name}"]] if f"pairs {size} {start} {name}" in kept else []
                found[name, int(start)] = Part(kept[key], int(tokens), int(finished), pairs, seconds)
        return found

    def _save_parts(self) -> None:
        columns = {}
        for (name, start), part in self._parts.items():
            key = f"{self._args.part} {start} {name}"
            columns |= {f"rewards {key}": part.rewards}
            columns |= {f"cost {key}": np.array([part.seconds, part.tokens, part.finished])}
            columns |= {f"pairs {key}": pairs for pairs in part.pairs}
        np.savez_compressed(self._unfinished, **columns)

    def pairs(self, name: str) -> np.ndarray:
        return self._kept[f"pairs {name}"]

    def figures_of(self, name: str) -> dict:
        """Return the figures of ``name`` by group."""
        seconds, tokens, finished = self._kept[f"cost {name}"].tolist()
        rewards, found, start = self.rewards[name], {}, 0
        for group, problems in self._groups.items():
            here = rewards[start : start + len(problems)]
            families: dict[str, list[np.ndarray]] = {}
            for problem, row in zip(problems, here, strict=True):
                families.setdefault(problem["family"], []).append(row)
            found[group] = self._passes(here) | {
                "families": {family: self._passes(np.array(rows)) for family, rows in families.items()}
            }
            start += len(problems)
        found |= {"seconds": round(seconds, 1), "tokens": int(tokens), "tokens_per_second": round(tokens / seconds)}
        found["finished"] = round(finished / rewards.size, 4)
        if f"pairs {name}" in self._kept:
            pairs = self.pairs(name)
            found |= {"temperature": float(pairs[:, 0].mean()), "top_p": float(pairs[:, 1].mean())}
        return found

    @staticmethod
    def _passes(rewards: np.ndarray) -> dict[str, float]:
        n = rewards.shape[1]
        found = {"pass@1": round(100 * float(rewards.mean()), 2)}
        return found if n == 1 else found | {f"pass@{n}": round(100 * float((rewards.max(1) > 0).mean()), 2)}

    def differences(self, name: str) -> dict:
        """Return the differences of ``name`` to all others by group: pass@1, and pass@n to those of n answers."""
        found: dict[str, dict] = {}
        for other, theirs in self.rewards.items():
            start = 0
            for group, problems in self._groups.items():
                rows = slice(start, start + len(problems))
                start += len(problems)
                ours = self.rewards[name]
                if other == name:
                    continue
                place = found.setdefault(other, {})
                place[group] = {"pass@1": _paired(ours[rows].mean(1), theirs[rows].mean(1))}
                if theirs.shape == ours.shape:
                    place[group][f"pass@{ours.shape[1]}"] = _paired(ours[rows].max(1), theirs[rows].max(1))
        return found


def _paired(ours: np.ndarray, theirs: np.ndarray) -> list[float]:
    """Return the mean difference and its interval, in points."""
    difference = np.asarray(ours, np.float64) - theirs
    return [round(100 * float(value), 2) for value in (difference.mean(), *interval(difference, 0))]


def settings(args: argparse.Namespace) -> dict[str, str]:
    """Return ``args`` as text, of files their names alone: folders are this machine's."""

    def named(value) -> str:
        if isinstance(value, list):
            return " ".join(map(named, value))
        head, sign, file = str(value).rpartition("=")
        return f"{head}{sign}{Path(file).name}" if sign or isinstance(value, Path) else str(value)

    return {key: named(value) for key, value in vars(args).items()}


def main() -> None:
    """Judge all ways and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("problems", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--heads", nargs="*", default=[], metavar="NAME=FILE")
    parser.add_argument("--settings", nargs="*", default=["0", "0.1", "0.2/0.95", "0.6/0.95"], metavar="T[/P]")
    parser.add_argument("--rivals", action="store_true", help="rules with which heads are compared, too")
    parser.add_argument("--derived", nargs="*", metavar="NAME", help="heads whose means and shuffle too (default: all)")
    parser.add_argument("--answers", type=int, default=8)
    parser.add_argument(
        "--derived-answers", type=int, help="to a problem, from means and shuffles (default: --answers)"
    )
    parser.add_argument("--each", type=int, help="problems of each file (default: all)")
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--gpu-layers", type=int, default=-1)
    parser.add_argument("--slots", type=int, default=256)
    parser.add_argument("--processes", type=int, help="default: 2 a GPU")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--gpus", type=int, default=1, help="GPUs; each process uses one")
    parser.add_argument("--part", type=int, default=100, help="problems that a process answers in one go")
    args = parser.parse_args()
    args.processes = args.processes or 2 * max(1, args.gpus)
    args.output.mkdir(parents=True, exist_ok=True)
    groups = {file.stem: read_problems(file)[: args.each] for file in args.problems}
    heads = [Way(name, Sampling(), Path(file)) for name, _, file in (text.partition("=") for text in args.heads)]
    began = time.perf_counter()
    with Workers(args.processes, args.gpus, Worker, args) as workers:
        judge = Judge(args, groups, workers)
        ways = [*heads, *map(static, args.settings), *(judge.rivals() if args.rivals else [])]
        judge.all(ways)
        names = [each.name for each in heads] if args.derived is None else args.derived
        judge.all([way for name in names for way in derived(name, judge.pairs(name), args.derived_answers)])
    figures = {name: judge.figures_of(name) for name in judge.rewards}
    report = {
        "seconds": round(sum(each["seconds"] for each in figures.values()), 1),  # of runs before this one, too
        "settings": settings(args),
        "figures": figures,
        "differences": {each.name: judge.differences(each.name) for each in heads},
    }
    (args.output / "judged.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"judged in {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
