"""The last stage of ``autodeco demo``: answers with heads beside those with settings that a user could fix."""

import numpy as np
from rich.table import Table
from rich.text import Text

from autodeco import batch
from autodeco.base.token_bytes import TokenBytes
from autodeco.commands.demo import MAX_TOKENS, Demo
from autodeco.evaluation.methods import AUTODECO, DEFAULT, GREEDY, Method, mean_shift
from autodeco.evaluation.tasks import Task, question_of
from autodeco.llama.opening import open_llama
from autodeco.reports.colors import SCALES, colored
from autodeco.reports.token_texts import texts_of
from autodeco.settings.program import bar

SHOWN = 3  # questions whose answers are printed


def compare(console, demo: Demo) -> None:
    """Answer the held-out questions with each method and print the shares, the means and coloured answers."""
    threads = {"n_threads": demo.threads, "n_threads_batch": demo.threads}
    llm = open_llama(demo.model, demo.sidecar, n_ctx=512, **threads)
    answers = {AUTODECO.name: _ask(llm, demo, AUTODECO)}
    guided = answers[AUTODECO.name]
    mean = mean_shift(
        float(np.concatenate([answer.decoding.temperature for answer in guided]).mean()),
        float(np.concatenate([answer.decoding.top_p for answer in guided]).mean()),
    )
    answers |= {method.name: _ask(llm, demo, method) for method in (DEFAULT, mean, GREEDY)}
    for index in range(min(SHOWN, len(demo.task.test))):
        first = [next(answer for answer in answers[m.name] if answer.prompt == index) for m in (DEFAULT, AUTODECO)]
        marked = ((answer, _is_right(demo.task, answer)) for answer in first)
        show_pair(console, question_of(demo.task.test[index]), *marked, llm)
    console.print(_shares(demo.task, answers, mean))
    console.print(_positions(guided))


def _ask(llm, demo: Demo, method: Method) -> list[batch.Answer]:
    samples = 1 if method.is_greedy else demo.settings.compared_samples
    questions = [problem["prompt"] for problem in demo.task.test]
    seed, answers = demo.settings.seed, []
    with bar(samples * len(questions), 0, "answer", f"{method.name:<22}") as shown:
        for answer in batch.generate(llm, questions, samples, method.sampling, max_tokens=MAX_TOKENS, seed=seed):
            answers.append(answer)
            shown.update()
    return sorted(answers, key=lambda answer: (answer.prompt, answer.sample))


def _is_right(task: Task, answer: batch.Answer) -> bool:
    return task.is_right(task.test[answer.prompt], answer.text, answer.finished)


def _shares(task: Task, answers: dict[str, list[batch.Answer]], mean: Method) -> Table:
    table = Table(title="share of right answers", title_justify="left")
    for column, justify in (("method", "left"), ("setting", "left"), ("answers", "right"), ("right", "right")):
        table.add_column(column, justify=justify)
    settings = {
        AUTODECO.name: "picked for each token",
        DEFAULT.name: "T 1, P 1",
        mean.name: f"T {mean.sampling.temperature:.2f}, P {mean.sampling.top_p:.2f}",
        GREEDY.name: "T 0",
    }
    names = {DEFAULT.name: "default sampling", mean.name: "fixed at heads' mean"}
    for name, setting in settings.items():
        share = sum(_is_right(task, answer) for answer in answers[name]) / len(answers[name])
        error = (share * (1 - share) / len(answers[name])) ** 0.5
        table.add_row(names.get(name, name), setting, str(len(answers[name])), f"{share:.0%} +-{error:.0%}")
    return table


def show_pair(console, question: str, default: tuple, guided: tuple, llm) -> None:
    """Print one question with the answers (and whether each is right) of default sampling and of the heads, the latter
    coloured by temperature."""
    marks = {True: "right", False: "wrong"}
    console.print(Text(question, style="bold"))
    console.print(Text(f"  default   {marks[default[1]]}  {' '.join(default[0].text.split())}"))
    line = Text(f"  AutoDeco  {marks[guided[1]]}  ")
    values = Text("  temperature      ", style="dim")
    decoding = guided[0].decoding
    pieces, tokens = TokenBytes(llm.model, special=False), decoding.token.tolist()
    texts = texts_of(pieces[token] for token in tokens)
    for token, text, temperature in zip(tokens, texts, decoding.temperature.tolist(), strict=True):
        line.append_text(colored(text, temperature, SCALES["temperature"]))
        name = "end" if pieces.is_end(token) else text.strip() or repr(text)
        values.append(f" {name} ", style="dim")
        values.append_text(colored(f"{temperature:.2f}", temperature, SCALES["temperature"]))
    console.print(line)
    console.print(values)


def _positions(answers) -> str:
    """Mean temperature of the heads at each position of their answers."""
    longest = max(len(answer.decoding) for answer in answers)
    means = []
    for position in range(min(longest, 16)):
        here = [a.decoding.temperature[position] for a in answers if len(a.decoding) > position]
        means.append(f"{np.mean(here):.2f}")
    return "mean temperature at token 1, 2, ...: " + " ".join(means)
