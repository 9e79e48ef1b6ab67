"""Compare heads with greedy, default and tuned settings, and with their own mean, on problems with known answers."""

import argparse
import contextlib
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodeco.errors import InputError
from autodeco.evaluation.settings import DIAGNOSTICS, RULES, Settings
from autodeco.servers.settings import ServerSettings
from autodeco.settings.durations import parse_duration
from autodeco.settings.given import add_settings, given_values
from autodeco.settings.machine import Machine, Processes
from autodeco.settings.options import Options, chosen_options, option
from autodeco.terminal import say

if TYPE_CHECKING:
    from autodeco.evaluation.drawing import Source
    from autodeco.evaluation.tasks import TrainedOn


@dataclass(frozen=True)
class Files(Options):
    """What is compared on what, and where all goes."""

    model: Path = option(None, "a model, or a file that brings its heads", positional=True, metavar="MODEL.gguf")
    heads: tuple[str, ...] = option(
        (),
        "heads for the model, several sets to compare them, each by its file's name or the one given; none: static "
        "settings only",
        metavar="[NAME=]HEADS.gguf",
    )
    tasks: tuple[str, ...] = option(
        (),
        "families NAME[:key=value,...] of reasoning-gym, humaneval, instruction_following, families of your own "
        "python:MODULE:NAME, problems FILE.jsonl[:CHECKER] with the checkers of `autodeco rollout` (default: exact), "
        "or lists FILE.yaml",
        metavar="TASK",
    )
    trained_on: tuple[Path, ...] = option((), "leave out the questions in these", metavar="DATA.jsonl")
    training_problems: Path | None = option(
        None,
        "evaluate nothing: write problems that are neither test nor validation, to train on",
        metavar="FILE.jsonl",
    )
    training: int = option(1000, "of them for each task", least=1)
    output: Path = option(Path("evaluations"), "folder of all runs", short="-o")
    context: int = option(2048, "tokens of prompt and answer", least=2)
    time: str | None = option(
        None, "draw no longer, and report the tasks that are whole by then; the same command goes on", metavar="30m"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``autodeco eval``."""
    add_settings(parser, Files, Settings, Machine, Processes, ServerSettings)


def run(args: argparse.Namespace) -> None:
    """Answer what is not answered yet, write the report, print the comparison."""
    from autodeco.commands.eval_tables import show
    from autodeco.evaluation.tasks import Task, parse_specs, read_questions, write_training
    from autodeco.evaluation.verdict import verdicts

    began = time.monotonic()
    values = given_values(args, Files, Settings, Machine, Processes, ServerSettings)
    if isinstance(one := values.get("heads"), str):  # as a file of settings may say it
        values["heads"] = [one]
    elif isinstance(one, list) and len(one) > 1 and "model" not in values:
        # argparse took what follows --heads for heads
        values |= {"heads": one[:-1], "model": one[-1]}
    kinds = (Files, Machine, Processes, ServerSettings)
    files, machine, processes, servers = (chosen_options(kind, values) for kind in kinds)
    settings = chosen_options(Settings, values | {"tasks": tuple(parse_specs(list(files.tasks)))})
    until = None if files.time is None else began + parse_duration("time", files.time)
    heads = _sets(files)
    excluded = read_questions(files.trained_on)
    training = files.training if files.training_problems else 0
    tasks = [Task(s, settings.seed, settings.test, settings.validation, training, excluded) for s in settings.tasks]
    if files.training_problems:
        count = write_training(tasks, files.training_problems)
        say(f"{files.training_problems}: {count} problems")
        return
    if servers.urls:
        if processes != Processes():
            raise InputError("servers draw the answers: leave out --processes and --gpus")
        if len(heads) > 1:
            raise InputError("servers draw with the heads that they were started with: give one set with --heads")
        settings = replace(settings, without=tuple(dict.fromkeys((*settings.without, *RULES))))
        say("servers give no logits: the rules that draw from them, and the diagnostics, are left out")
    figures, written = _evaluate(files, heads, settings, machine, processes, servers, tasks, excluded, until)
    show(figures)
    for line in verdicts(figures):
        print(line)
    for file in written:
        say(file)


def _sets(files: Files) -> dict[str, Path]:
    """The files of the sets of heads, of which the only one may be that of the model."""
    from autodeco.base.opening import check_gguf
    from autodeco.evaluation.head_sets import ALONE, parse_sets
    from autodeco.export.layout import open_layout

    check_gguf(files.model)
    brings_heads = not files.heads and open_layout(files.model).brings_heads
    return {ALONE: files.model} if brings_heads else parse_sets(files.heads)


def _evaluate(
    files: Files,
    heads: dict[str, Path],
    settings: Settings,
    machine: Machine,
    processes: Processes,
    servers: ServerSettings,
    tasks: list,
    excluded: "TrainedOn",
    until: float | None,
) -> tuple[dict, list[Path]]:
    """Return the figures, and the files of the report that were written of them."""
    from autodeco.data.scoring import given_up
    from autodeco.evaluation import report
    from autodeco.evaluation.folders import ANSWERS, claim, describe
    from autodeco.evaluation.given import GivenAnswers
    from autodeco.evaluation.groups import group_figures
    from autodeco.evaluation.head_figures import sets_of
    from autodeco.evaluation.methods import AUTODECO
    from autodeco.evaluation.results import task_figures, together
    from autodeco.evaluation.running import Runner
    from autodeco.evaluation.verdict import verdict
    from autodeco.runs.provenance import provenance

    description = describe(settings, files.model, heads, excluded)
    if servers.urls:
        description["drawn_at"] = "servers"
    with contextlib.ExitStack() as stack:
        source = _source(files, heads, settings, machine.opening, processes, servers, stack)
        runner = Runner(source.llm, settings, files.output / ANSWERS, description, source)
        runner.check(tasks)
        folder = claim(files.output, description)
        passes = runner.run(tasks, until)
    whole = {of_task.task.spec.name for of_task in passes}
    unfinished = [task.spec.name for task in tasks if task.spec.name not in whole]
    if not passes:
        raise InputError(f"no task is whole after {files.time}: nothing to report; the same command goes on")
    if unfinished:
        say(f"not whole after {files.time}, and left out: {', '.join(unfinished)}; the same command goes on")
    if runner.given_up:
        say(given_up(runner.given_up))
    of_tasks = [task_figures(of_task, settings) for of_task in passes]
    if not servers.urls and DIAGNOSTICS not in settings.without:
        for name, file in heads.items():
            with GivenAnswers(files.model, file, settings, files.context, **machine.opening) as given:
                for found, of_task in zip(of_tasks, passes, strict=True):
                    title = name or AUTODECO.name
                    sets_of(found)[title]["diagnostics"] = given.diagnostics(of_task, title)
    figures = {
        **provenance(),
        "settings": description,
        **({"unfinished": unfinished} if unfinished else {}),
        "tasks": of_tasks,
        "together": together(passes, of_tasks, settings),
    }
    figures["verdict"] = verdict(figures)
    figures |= group_figures(passes, of_tasks, settings)
    return figures, report.write(figures, folder)


def _source(
    files: Files,
    sets: dict[str, Path],
    settings: Settings,
    opening: dict[str, Any],
    processes: Processes,
    servers: ServerSettings,
    stack: contextlib.ExitStack,
) -> "Source":
    """What draws the answers, until ``stack`` ends it."""
    from autodeco import native
    from autodeco.base.opening import open_vocabulary
    from autodeco.evaluation.drawing import AtServers, Here, InProcesses, begin
    from autodeco.evaluation.head_sets import ALONE
    from autodeco.llama.opening import open_llama
    from autodeco.runs.workers import Workers

    if servers.urls:
        from autodeco.servers.drawing import Servers

        heads = sets.get(ALONE)
        llm = open_vocabulary(files.model)
        stack.callback(llm.close)
        return AtServers(Servers(servers, llm, heads), llm, native.load_heads(heads) if heads else None)
    if processes == Processes():
        first, *others = sets or [ALONE]
        llm = open_llama(files.model, sets.get(first), n_ctx=files.context, **opening)
        stack.callback(llm.close)
        return Here(llm, settings.slots, first, {name: sets[name] for name in others})
    # half of the machine's cores in all, as one process has
    threads = max(1, (os.cpu_count() or 1) // 2 // processes.processes)
    opening = {name: threads if value is None else value for name, value in opening.items()}
    given = (files.model, sets, settings.slots, {"n_ctx": files.context, **opening})
    workers = stack.enter_context(Workers(processes.processes, processes.gpus, begin, *given))
    source = InProcesses(files.model, sets, files.context, workers)
    stack.callback(source.llm.close)
    return source
