"""Rejection sampling: a model's own answers to problems, each scored by a checker."""

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from autodeco import batch, native
from autodeco.base.opening import open_base, open_vocabulary
from autodeco.base.tokenizer import Tokenizer
from autodeco.batch import Answer
from autodeco.data.checkers import Checker, check, check_problems, checker
from autodeco.data.problems import read_problems
from autodeco.errors import InputError
from autodeco.export.layout import open_layout
from autodeco.rollout_settings import RolloutSettings
from autodeco.runs.atomic import naming, replacing
from autodeco.runs.provenance import file_hash

LEAST_CONTEXT = 512  # tokens


@dataclass
class RolloutResult:
    """How many problems and answers there were, how many of these were kept, and the mean score."""

    problems: int
    answers: int
    kept: int
    score: float


def rollout(
    model_path: str | os.PathLike,
    problems_path: str | os.PathLike,
    output: str | os.PathLike,
    settings: RolloutSettings | None = None,
    heads_path: str | os.PathLike | None = None,
    shard: tuple[int, int] = (1, 1),
    threads: int | None = None,
    progress: bool = True,
) -> RolloutResult:
    """Answer every problem ``settings.n`` times and write the answers that score enough to ``output``, as JSON lines.

    The lines are training data (``prompt``, ``completion``) with ``problem``, ``sample``, ``seed``, ``score`` and
    ``setting``. ``shard`` (i, n) takes every n-th problem, beginning with the i-th. A problem's answers are one batch
    of their own, so they do not depend on the shard or on interruptions: an interrupted run continues from
    ``output``.partial. Raises InputError for bad input.
    """
    settings, output = settings or RolloutSettings(), Path(output)
    if threads is not None and threads < 1:
        raise InputError(f"threads {threads}: must be at least 1")
    if output.exists():
        raise InputError(f"{output}: exists; remove it or name another file")
    score = checker(settings.checker)
    problems = read_problems(problems_path)
    check_problems(settings.checker, problems, os.fspath(problems_path))
    chosen = list(range(shard[0] - 1, len(problems), shard[1]))
    heads = native.load_heads(heads_path) if heads_path else None
    layout = open_layout(model_path)
    made_by = asdict(settings) | {"model": layout.model_fingerprint, "heads": heads_path and file_hash(heads_path)}
    made_by |= {"problems": file_hash(problems_path), "shard": list(shard)}
    output.parent.mkdir(parents=True, exist_ok=True)
    log = Log(output.with_name(output.name + ".partial"), made_by, settings.n)

    with contextlib.closing(open_vocabulary(layout)) as vocabulary:
        tokenizer = Tokenizer(vocabulary)
        prompts = {index: _ids(tokenizer, problems_path, index, problems[index]["prompt"]) for index in chosen}
    longest = max((len(ids) for ids in prompts.values()), default=0) + settings.max_tokens
    threads = threads or os.cpu_count()
    llm = open_base(layout, n_ctx=max(LEAST_CONTEXT, longest), n_threads=threads, n_threads_batch=threads)
    kind = "both" if heads else "none"
    sampling = batch.Sampling(settings.temperature, settings.top_p, settings.top_k, settings.min_p, kind)
    setting = {name: getattr(settings, name) for name in ("temperature", "top_p", "top_k", "min_p", "max_tokens")}
    setting |= {"model": Path(model_path).name, "checker": settings.checker}
    setting["heads"] = None if heads_path is None else os.fspath(heads_path)
    left = [index for index in chosen if index not in log.done]
    bar = tqdm(
        total=len(chosen),
        initial=len(chosen) - len(left),
        unit="problem",
        desc="rollout",
        disable=None if progress else True,
    )
    with bar, log:
        for index in left:
            requests = [
                batch.Request(
                    tuple(prompts[index]),
                    sampling,
                    settings.max_tokens,
                    batch.seed_of(settings.seed, index, sample),
                    index=index,
                    sample=sample,
                )
                for sample in range(settings.n)
            ]
            answers = sorted(batch.answer(llm, requests, heads, slots=settings.n), key=lambda answer: answer.sample)
            log.add([_row(problems[index], answer, score, setting) for answer in answers])
            bar.update()
            bar.set_postfix(score=f"{log.mean_score():.3f}", refresh=False)
    rows = [row for index in chosen for row in log.done[index]]
    kept = [row for row in rows if row["score"] >= settings.least_score]
    with replacing(output) as part:
        part.write_text(_json_lines(kept), encoding="utf-8")
    log.path.unlink()
    return RolloutResult(len(chosen), len(rows), len(kept), log.mean_score())


def scored(problem: dict, answer: Answer, score: Checker) -> float:
    """Return the score of ``answer``; one that was cut at its limit of tokens has none."""
    return check(score, problem, answer.text) if answer.finished else 0.0


class Log:
    """The answers of a run so far, a line each, all of a problem at once; a file that outlives an interruption."""

    def __init__(self, path: Path, made_by: dict, n: int):
        self.path = path
        self.done: dict[int, list[dict]] = {}
        self._answers, self._score = 0, 0.0  # of all answers so far: their number, and the sum of their scores
        if path.exists():
            self._read(made_by, n)
        text = "".join(
            json.dumps(row) + "\n" for row in [made_by, *(row for rows in self.done.values() for row in rows)]
        )
        with replacing(path) as part:  # without what an interruption cut short
            part.write_text(text, encoding="utf-8")

    def _read(self, made_by: dict, n: int) -> None:
        lines = self.path.read_text(encoding="utf-8").split("\n")[:-1]  # what follows the last was cut short
        try:
            found = json.loads(lines[0])
            rows = [json.loads(line) for line in lines[1:]]
            for row in rows:
                self.done.setdefault(row["problem"], []).append(row)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise InputError(f"{self.path}: not readable ({error}); delete it to start again") from None
        different = sorted(key for key in made_by if found.get(key) != made_by[key])
        if different:
            raise InputError(
                f"{self.path}: the unfinished run had another {', another '.join(different)}; use the same again to "
                "continue it, or delete the file"
            )
        self.done = {index: rows for index, rows in self.done.items() if len(rows) == n}
        for rows in self.done.values():
            self._count(rows)

    def __enter__(self):
        self._file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *error):
        with naming(self.path):
            self._file.close()

    def add(self, rows: list[dict]) -> None:
        """Note all answers to one problem."""
        with naming(self.path):
            self._file.write(_json_lines(rows))
            self._file.flush()
        self.done[rows[0]["problem"]] = rows
        self._count(rows)

    def _count(self, rows: list[dict]) -> None:
        self._answers += len(rows)
        self._score += sum(row["score"] for row in rows)

    def mean_score(self) -> float:
        """Return the mean score of all answers so far, 0 if there are none."""
        return self._score / max(1, self._answers)


def _json_lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _row(problem: dict, answer: Answer, score: Checker, setting: dict) -> dict:
    prompt, text = problem["prompt"], answer.text
    return {
        "prompt": prompt,
        "completion": text if isinstance(prompt, str) else [{"role": "assistant", "content": text}],
        "problem": answer.prompt,
        "sample": answer.sample,
        "seed": answer.seed,
        "score": scored(problem, answer, score),
        "finish": answer.finish,
        "setting": setting,
    }


def _ids(tokenizer: Tokenizer, path: str | os.PathLike, index: int, prompt) -> list[int]:
    try:
        return tokenizer.prompt_ids(prompt)
    except InputError as error:
        raise InputError(f"{path}, problem {index + 1}: {error}") from None
