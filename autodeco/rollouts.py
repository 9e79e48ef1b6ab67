"""Rejection sampling: a model's own answers to problems, each scored by a checker."""

import contextlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autodeco import batch, native
from autodeco.base.opening import open_base, open_vocabulary
from autodeco.base.tokenizer import Tokenizer
from autodeco.base.trained_context import check_prompts, trained_context
from autodeco.batch import Answer
from autodeco.data.checkers import check_problems, checker
from autodeco.data.json_lines import place_of
from autodeco.data.problems import read_problems
from autodeco.data.scoring import Scorer
from autodeco.errors import InputError
from autodeco.export.layout import Layout, open_layout
from autodeco.rollout_settings import RolloutSettings
from autodeco.runs.atomic import replacing
from autodeco.runs.jsonl_log import JsonlLog
from autodeco.runs.locks import locked_file
from autodeco.runs.names import beside
from autodeco.runs.provenance import file_hash
from autodeco.settings.machine import Processors
from autodeco.settings.program import bar

if TYPE_CHECKING:
    from autodeco.servers.settings import ServerSettings

LEAST_CONTEXT = 512  # tokens


@dataclass
class RolloutResult:
    """How many problems and answers there were, how many of these were kept, and the mean score.

    ``given_up`` are those whose scoring took too long or too much memory since this run began or went on.
    """

    problems: int
    answers: int
    kept: int
    score: float
    given_up: int


def rollout(
    model_path: str | os.PathLike,
    problems_path: str | os.PathLike,
    output: str | os.PathLike,
    settings: RolloutSettings | None = None,
    heads_path: str | os.PathLike | None = None,
    shard: tuple[int, int] = (1, 1),
    threads: int | None = None,
    progress: bool = True,
    servers: "ServerSettings | None" = None,
    gpu_layers: int = 0,
) -> RolloutResult:
    """Answer every problem ``settings.n`` times and write the answers that score enough to ``output``, as JSON lines.

    The lines are training data (``prompt``, ``completion``, and ``completion_ids``, the tokens that were drawn) with
    ``problem``, ``sample``, ``seed``, ``score``, ``finish`` and ``setting``, and with the ``temperature`` and ``top_p``
    that heads picked for each token. ``shard`` (i, n) takes every n-th problem,
    beginning with the i-th. A problem's answers are one batch of their own, so they do not depend on the shard or on
    interruptions: an interrupted run continues from ``output``.partial. With ``servers`` that are some, they draw the
    answers, with their own heads where ``heads_path`` names the same. Raises InputError for bad input.
    """
    settings, output = settings or RolloutSettings(), Path(output)
    machine = Processors(threads, gpu_layers)
    _refuse_existing(output)
    checker(settings.checker)
    problems = read_problems(problems_path)
    check_problems(settings.checker, problems)
    chosen = list(range(shard[0] - 1, len(problems), shard[1]))
    heads = native.load_heads(heads_path) if heads_path else None
    layout = open_layout(model_path)
    made_by = asdict(settings) | {"model": layout.model_fingerprint, "heads": heads_path and file_hash(heads_path)}
    made_by |= {"problems": file_hash(problems_path), "shard": list(shard)}
    with locked_file(output):
        _refuse_existing(output)  # another process may have written it meanwhile
        log = JsonlLog(beside(output, "", ".partial"), made_by, check=_scores)
        prompts = _prompts(layout, problems, chosen)
        check_prompts(
            [problems[index] for index in chosen], list(prompts.values()), settings.max_tokens, trained_context(layout)
        )
        if servers is not None and servers.urls:
            draw = _draw_at(servers, settings, layout, heads_path, prompts)
        else:
            draw = _drawing(settings, layout, heads, prompts, machine)
        setting = _setting(settings, model_path, heads_path)
        with (
            log,
            Scorer(settings.checker) as scorer,
            bar(len(chosen), len(log.rows), "problem", "rollout", progress) as shown,
            contextlib.ExitStack() as stack,
        ):
            answers = ScoredAnswers(log)
            wanted = [index for index in chosen if index not in answers.of_problem]
            for index, drawn in stack.enter_context(contextlib.closing(draw(wanted))):
                answers.add(index, _rows(problems[index], drawn, scorer, setting))
                shown.update()
                shown.set_postfix(score=f"{answers.mean_score():.3f}", refresh=False)
        rows = [row for index in chosen for row in answers.of_problem[index]]
        kept = [row for row in rows if row["score"] >= settings.least_score]
        with replacing(output) as part:
            part.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        log.path.unlink()
    return RolloutResult(len(chosen), len(rows), len(kept), answers.mean_score(), scorer.exceeded)


def _refuse_existing(output: Path) -> None:
    if output.exists():
        raise InputError(f"{output}: exists; remove it or name another file")


def _prompts(layout: Layout, problems: list[dict], chosen: list[int]) -> dict[int, list[int]]:
    """The token ids of the ``chosen`` problems' prompts, by problem; read before the weights are."""
    with contextlib.closing(open_vocabulary(layout)) as vocabulary:
        tokenizer = Tokenizer(vocabulary)
        return {index: _ids(tokenizer, problems[index]) for index in chosen}


def _setting(settings: RolloutSettings, model_path: str | os.PathLike, heads_path: str | os.PathLike | None) -> dict:
    """What a row tells of how it was drawn and scored."""
    names = ("temperature", "top_p", "top_k", "min_p", "max_tokens", "checker")
    return {
        **{name: getattr(settings, name) for name in names},
        "model": Path(model_path).name,
        "heads": None if heads_path is None else os.fspath(heads_path),
    }


Drawing = Callable[[list[int]], Iterator[tuple[int, list[Answer]]]]


def _drawing(
    settings: RolloutSettings,
    layout: Layout,
    heads: native.Heads | None,
    prompts: dict[int, list[int]],
    machine: Processors,
) -> Drawing:
    """What yields problems with all their answers, in order of the samples, as they are complete."""
    longest = max(map(len, prompts.values()), default=0) + settings.max_tokens
    llm = open_base(layout, n_ctx=max(LEAST_CONTEXT, longest), **machine.opening)

    def draw(wanted: list[int]) -> Iterator[tuple[int, list[Answer]]]:
        for index in wanted:
            drawn = batch.answer(llm, _requests(prompts[index], index, settings, heads is not None), heads, settings.n)
            yield index, sorted(drawn, key=lambda answer: answer.sample)

    return draw


def _draw_at(
    settings: "ServerSettings",
    rollout: RolloutSettings,
    layout: Layout,
    heads: str | os.PathLike | None,
    prompts: dict[int, list[int]],
) -> Drawing:
    """The same, drawn at servers."""
    from autodeco.servers.drawing import Servers

    vocabulary = open_vocabulary(layout)
    servers = Servers(settings, vocabulary, heads)

    def draw(wanted: list[int]) -> Iterator[tuple[int, list[Answer]]]:
        with_heads = heads is not None
        requests = [request for index in wanted for request in _requests(prompts[index], index, rollout, with_heads)]
        found: dict[int, list[Answer]] = defaultdict(list)
        with contextlib.closing(vocabulary), contextlib.closing(servers.answer(requests)) as answers:
            for answer in answers:
                found[answer.prompt].append(answer)
                if len(found[answer.prompt]) == rollout.n:
                    yield answer.prompt, sorted(found.pop(answer.prompt), key=lambda answer: answer.sample)

    return draw


def _requests(prompt: list[int], index: int, settings: RolloutSettings, heads: bool) -> list[batch.Request]:
    """The requests for all answers to problem ``index``."""
    kind = "both" if heads else "none"
    sampling = batch.Sampling(settings.temperature, settings.top_p, settings.top_k, settings.min_p, kind)
    seeds = [batch.seed_of(settings.seed, index, sample) for sample in range(settings.n)]
    return [
        batch.Request(tuple(prompt), sampling, settings.max_tokens, seed, index=index, sample=sample)
        for sample, seed in enumerate(seeds)
    ]


class ScoredAnswers:
    """The rows ``of_problem``, and their mean score; kept in ``log``, a line a problem."""

    def __init__(self, log: JsonlLog):
        self.of_problem: dict[int, list[dict]] = {}
        self._log = log
        self._rows, self._score = 0, 0.0
        for row in log.rows:
            self._take(row["problem"], row["answers"])

    def _take(self, problem: int, rows: list[dict]) -> None:
        self.of_problem[problem] = rows
        self._rows += len(rows)
        self._score += sum(row["score"] for row in rows)

    def add(self, problem: int, rows: list[dict]) -> None:
        """Note all answers to a problem."""
        self._log.add({"problem": problem, "answers": rows})
        self._take(problem, rows)

    def mean_score(self) -> float:
        """Return the mean score of all answers so far, 0 if there are none."""
        return self._score / max(1, self._rows)


def _scores(row: dict) -> list[float]:
    """The scores in a line of the log; raises KeyError or TypeError for what is none."""
    return [row["problem"], *(answer["score"] + 0.0 for answer in row["answers"])]


def _rows(problem: dict, answers: list[Answer], scorer: Scorer, setting: dict) -> list[dict]:
    """The rows of ``answers`` to ``problem``; one that was cut at its limit of tokens scores 0."""
    finished = [answer for answer in answers if answer.finished]
    scores = iter(scorer.score([(problem, answer.text) for answer in finished]).tolist())
    return [_row(problem, answer, next(scores) if answer.finished else 0.0, setting) for answer in answers]


def _row(problem: dict, answer: Answer, score: float, setting: dict) -> dict:
    prompt, text = problem["prompt"], answer.text
    return {
        "prompt": prompt,
        **{name: problem[name] for name in ("tools",) if name in problem},
        "completion": text if isinstance(prompt, str) else [{"role": "assistant", "content": text}],
        "completion_ids": answer.decoding.token.tolist(),
        "problem": answer.prompt,
        "sample": answer.sample,
        "seed": answer.seed,
        "score": score,
        "finish": answer.finish,
        "setting": setting,
        **({} if setting["heads"] is None else _picked(answer)),
    }


def _picked(answer: Answer) -> dict:
    """What heads picked for the answer's tokens."""
    values = {"temperature": answer.decoding.temperature, "top_p": answer.decoding.top_p}
    return {name: [round(value, 4) for value in of_tokens.tolist()] for name, of_tokens in values.items()}


def _ids(tokenizer: Tokenizer, problem: dict) -> list[int]:
    try:
        return tokenizer.prompt_ids(problem["prompt"], problem.get("tools"))
    except InputError as error:
        raise InputError(f"{place_of(problem)}{error}") from None
