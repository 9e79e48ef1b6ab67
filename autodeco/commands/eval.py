"""Compare heads with greedy, default and tuned settings, and with their own mean, on problems with known answers."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``autodeco eval``."""
    parser.add_argument(
        "model", type=Path, metavar="MODEL.gguf", help="a model, or a merged file that brings its heads"
    )
    parser.add_argument(
        "--heads", type=Path, metavar="HEADS.gguf", help="heads for the model; none: static settings only"
    )
    parser.add_argument(
        "--tasks",
        nargs="+",
        required=True,
        metavar="TASK",
        help="reasoning-gym families NAME[:key=value,...], problems FILE.jsonl[:CHECKER] with the checkers of "
        "`autodeco rollout` (default: exact), or lists of both FILE.yaml",
    )
    parser.add_argument(
        "--trained-on", nargs="+", type=Path, default=[], metavar="DATA.jsonl", help="leave out the questions in these"
    )
    parser.add_argument(
        "--training-problems",
        type=Path,
        metavar="FILE.jsonl",
        help="evaluate nothing: write problems that are neither test nor validation, to train on",
    )
    parser.add_argument("--training", type=int, default=1000, help="of them for each task (default: %(default)s)")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("evaluations"), help="folder of all runs (default: %(default)s)"
    )
    for name, default, what in (
        ("validation", 100, "problems a task that choose settings"),
        ("test", 300, "problems a task that are measured"),
        ("samples", 16, "answers to each problem, a method"),
        ("max-tokens", 256, "tokens of an answer"),
        ("seed", 0, "of problems, answers and resampling"),
        ("slots", 16, "answers generated at a time"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{what} (default: %(default)s)")
    for name, kind, default, what in (
        ("temperatures", float, [0.2, 0.4, 0.6, 0.8, 1.0], "of the grid of static settings"),
        ("top-ps", float, [0.8, 0.9, 0.95, 1.0], "of the grid of static settings"),
        ("ks", int, [1, 4, 16], "of pass@k"),
    ):
        words = " ".join(str(value) for value in default)
        parser.add_argument(f"--{name}", type=kind, nargs="+", default=default, help=f"{what} (default: {words})")
    parser.add_argument(
        "--without",
        nargs="+",
        default=[],
        metavar="METHOD",
        help="leave out for a first look: default, vendor, temperature-head, top-p-head",
    )
    parser.add_argument("--stop", nargs="+", default=[], metavar="TEXT", help="texts that end an answer")
    parser.add_argument("--context", type=int, default=2048, help="tokens of prompt and answer (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="(default: half of the machine's)")
    parser.add_argument("--gpu-layers", type=int, default=0, help="layers on the GPU, -1: all (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Answer what is not answered yet, write the report, print the comparison."""
    from autodeco.base.opening import check_gguf
    from autodeco.errors import InputError
    from autodeco.evaluation import report
    from autodeco.evaluation.results import task_figures, together
    from autodeco.evaluation.running import Runner
    from autodeco.evaluation.settings import ANSWERS, Settings, claim, describe
    from autodeco.evaluation.tasks import Task, parse_specs, read_questions, write_training
    from autodeco.export.layout import open_layout
    from autodeco.llama.opening import open_llama
    from autodeco.runs.provenance import provenance

    settings = Settings(
        tasks=tuple(parse_specs(args.tasks)),
        temperatures=tuple(dict.fromkeys(args.temperatures)),
        top_ps=tuple(dict.fromkeys(args.top_ps)),
        ks=tuple(dict.fromkeys(args.ks)),
        stop=tuple(args.stop),
        without=tuple(dict.fromkeys(args.without)),
        **{name: getattr(args, name) for name in ("validation", "test", "samples", "max_tokens", "seed", "slots")},
    )
    heads = args.heads
    check_gguf(args.model)
    if heads is None and open_layout(args.model).kind == "merged":
        heads = args.model
    excluded = read_questions(args.trained_on)
    training = args.training if args.training_problems else 0
    for name, least in (("training", 1), ("context", 2), ("threads", 1)):
        if (value := getattr(args, name)) is not None and value < least:
            raise InputError(f"{name} {value}: must be at least {least}")
    tasks = [Task(s, settings.seed, settings.test, settings.validation, training, excluded) for s in settings.tasks]
    if args.training_problems:
        count = write_training(tasks, args.training_problems)
        print(f"{args.training_problems}: {count} problems")
        return
    description = describe(settings, args.model, heads, excluded)
    llm = open_llama(
        args.model,
        heads,
        n_ctx=args.context,
        n_threads=args.threads,
        n_threads_batch=args.threads,
        n_gpu_layers=args.gpu_layers,
    )
    runner = Runner(llm, settings, args.output / ANSWERS, description)
    runner.check(tasks)
    folder = claim(args.output, description)
    passes = runner.run(tasks)
    llm.close()
    of_tasks = [task_figures(of_task, settings) for of_task in passes]
    figures = {
        **provenance(),
        "settings": description,
        "tasks": of_tasks,
        "together": together(passes, of_tasks, settings),
    }
    files = report.write(figures, folder)
    _print(figures)
    for file in files:
        print(file)


def _print(figures: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    for task in figures["tasks"]:
        table = Table(title=f"{task['task']}, pass@1 in %", title_justify="left")
        for column, justify in (("method", "left"), ("pass@1", "right"), ("95%", "right"), ("AutoDeco is", "right")):
            table.add_column(column, justify=justify)
        against = {rival["method"]: rival for rival in task.get("against", {}).values()}
        for name, method in task["methods"].items():
            at = method["pass_at"]["1"]
            difference = f"{100 * against[name]['difference']:+.1f}" if name in against else ""
            interval = f"{100 * at['low']:.1f} to {100 * at['high']:.1f}"
            table.add_row(name, f"{100 * at['value']:.1f}", interval, difference)
        console.print(table)
    if figures["together"]:
        whole = figures["together"]
        at = whole["pass_at_1"]
        range_ = f"{100 * at['low']:.1f} to {100 * at['high']:.1f}"
        title = f"all tasks together: AutoDeco {100 * at['value']:.1f} ({range_}), in points"
        table = Table(title=title, title_justify="left")
        for column, justify in (("against", "left"), ("AutoDeco is", "right"), ("95%", "right"), ("p", "right")):
            table.add_column(column, justify=justify)
        for rival, d in whole["against"].items():
            range_ = f"{100 * d['low']:+.1f} to {100 * d['high']:+.1f}"
            table.add_row(rival, f"{100 * d['difference']:+.1f}", range_, f"{d['p']:.4f}")
        console.print(table)
