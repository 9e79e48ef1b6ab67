"""The tasks of a tuning that names none: those of a built-in mixture that suit the model."""

from importlib import resources
from pathlib import Path

import yaml
from tqdm import tqdm

from autodeco import batch
from autodeco.base.opening import open_vocabulary
from autodeco.batch import Sampling
from autodeco.errors import InputError
from autodeco.evaluation.tasks import Task, parse_specs
from autodeco.llama.opening import open_llama
from autodeco.settings.machine import Processors
from autodeco.tuning.sizes import PROMPT_TOKENS

LOOKED_AT = 6  # problems of each family
FAMILIES = 4  # that are chosen at most
THINKING = "<think>"
TOKENS, THINKING_TOKENS = 256, 1024


def answer_length(model: Path, given: int | None) -> int:
    """Return how many tokens an answer may have: ``given``, or more for a model whose chat template lets it think."""
    if given:
        return given
    return THINKING_TOKENS if THINKING in chat_template(model) else TOKENS


def chat_template(model: Path) -> str:
    """Return the chat template of ``model``; empty: it has none."""
    llm = open_vocabulary(model)
    template = llm.metadata.get("tokenizer.chat_template", "")
    llm.close()
    return template


def write_mixture(model: Path, max_tokens: int, seed: int, machine: Processors, path: Path) -> list[str]:
    """Write to ``path`` the families that ``model`` answers sometimes, as ``autodeco eval --tasks`` reads them.

    Return a line for each family, with how many of a few greedy answers are right. Raises InputError for a model
    without a chat template, and if no family suits.
    """
    source = resources.files(__package__) / "mixture.yaml"
    with resources.as_file(source) as file:
        specs = parse_specs([str(file)])
    llm = open_llama(model, None, n_ctx=max_tokens + PROMPT_TOKENS, **machine.opening)
    if not llm.metadata.get("tokenizer.chat_template"):
        llm.close()
        raise InputError(
            f"{model}: has no chat template, and the built-in tasks are chats; give --tasks whose prompts are texts"
        )
    rates, lines = {}, []
    for spec in tqdm(specs, desc="a look at families", unit="family", leave=False):
        task = Task(spec, seed, LOOKED_AT)
        prompts = [problem["prompt"] for problem in task.test]
        greedy = Sampling(0.0, heads="none")
        answers = batch.generate(llm, prompts, 1, greedy, max_tokens=max_tokens, seed=seed)
        right = sum(task.is_right(task.test[answer.prompt], answer.text, answer.finished) for answer in answers)
        rates[spec.name] = right / LOOKED_AT
        lines.append(f"{spec.name}: {right} of {LOOKED_AT}")
    llm.close()
    suiting = sorted((abs(rate - 0.5), name) for name, rate in rates.items() if 0 < rate < 1)
    if not suiting:
        raise InputError(
            f"{model}: answers all or none of the problems of each built-in family; give others with --tasks"
        )
    chosen = {name for _, name in suiting[:FAMILIES]}
    tables = [
        {"name": spec.name, "source": spec.source, "config": spec.config} for spec in specs if spec.name in chosen
    ]
    path.write_text(yaml.safe_dump(tables, sort_keys=False), encoding="utf-8")
    return [f"{line}{', chosen' if line.split(':')[0] in chosen else ''}" for line in lines]
