"""Instruction following: texts to write under rules that a program verifies, those of IFEval (arXiv 2311.07911), from
the package if-verifiable.

Problems are drawn as IFEval's were, a request and up to three rules that do not exclude each other. ``score`` also
judges IFEval's own file of prompts. All rules must be kept, in the answer as it is (prompt-level strict accuracy).
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from autodeco.data.json_lines import Line
from autodeco.data.messages import text_of
from autodeco.errors import InputError

CHECKER = "python:autodeco.evaluation.families.instruction_following:score"
MISSING = "instruction_following: needs the package if-verifiable; pip install 'autodeco[instructions]'"

REQUESTS = (
    "Write a short story about {}.",
    "Write a poem about {}.",
    "Write a letter to a friend about {}.",
    "Write a product review of a book about {}.",
    "Explain to a child what matters about {}.",
    "Give advice to somebody who knows nothing about {}.",
    "Describe {} to somebody who has never seen it.",
    "Write a blog post about {}.",
)
SUBJECTS = (
    "a lighthouse", "a market in spring", "a night train", "an old bicycle", "a small orchestra", "the first snow",
    "a bakery", "a lost dog", "a mountain hut", "learning to swim", "a broken clock", "the tides", "a school play",
    "a vegetable garden", "a long bridge", "beekeeping", "a power cut", "chess", "a family reunion", "the desert",
    "a river ferry", "a thunderstorm", "moving to another town", "a library",
)  # fmt: skip
# Those of IFEval that any of these texts can keep, and that are verified without data which NLTK would download.
RULES = (
    "keywords:existence",
    "keywords:frequency",
    "keywords:forbidden_words",
    "keywords:letter_frequency",
    "length_constraints:number_paragraphs",
    "length_constraints:number_words",
    "length_constraints:nth_paragraph_first_word",
    "detectable_content:number_placeholders",
    "detectable_content:postscript",
    "detectable_format:number_bullet_lists",
    "detectable_format:number_highlighted_sections",
    "detectable_format:multiple_sections",
    "detectable_format:json_format",
    "detectable_format:title",
    "combination:two_responses",
    "startend:end_checker",
    "startend:quotation",
    "change_case:english_capital",
    "change_case:english_lowercase",
    "punctuation:no_comma",
)


def problems(config: dict[str, Any]) -> list[dict]:
    """``size`` different problems (1000) with up to ``rules`` rules each (3), the same whenever they are drawn.

    Raises InputError without the package and for other settings.
    """
    given = {"size": 1000, "rules": 3} | config
    if unknown := given.keys() - {"size", "rules"}:
        raise InputError(f"instruction_following: has no setting {', '.join(sorted(unknown))}; it has size and rules")
    for name, most in (("size", 100_000), ("rules", 3)):
        if type(given[name]) is not int or not 1 <= given[name] <= most:
            raise InputError(f"instruction_following: {name}={given[name]} must be a whole number from 1 to {most}")
    made, rng = _registry(), random.Random(0)
    with _seeded(0):
        return [_problem(made, rng, given["rules"]) for _ in range(given["size"])]


def _problem(registry: Any, rng: random.Random, most: int) -> dict:
    rules, excluded = [], set()
    for rule in rng.sample(RULES, len(RULES)):
        if rule not in excluded and len(rules) < most:
            rules.append(rule)
            excluded |= registry.INSTRUCTION_CONFLICTS[rule]
    rules = rules[: rng.randint(1, most)]
    request = rng.choice(REQUESTS).format(rng.choice(SUBJECTS))
    said, arguments = [request], []
    for rule in rules:
        instruction = registry.INSTRUCTION_DICT[rule](rule)
        said.append(instruction.build_description())
        arguments.append(instruction.get_instruction_args() or {})
    prompt = [{"role": "user", "content": " ".join(text.strip() for text in said)}]
    return Line(prompt=prompt, instruction_id_list=rules, kwargs=arguments)


def score(problem: dict, text: str) -> float:
    """1 if ``text`` keeps all rules of ``problem``, else 0; a problem is a line of IFEval's file, or of that form."""
    registry = _registry()
    from if_verifiable.common import evaluate_instructions

    rules, arguments = problem.get("instruction_id_list"), problem.get("kwargs")
    if not isinstance(rules, list) or not rules or not isinstance(arguments, list) or len(arguments) != len(rules):
        raise InputError(
            "a problem has no instruction_id_list and kwargs, lists of the same length as in IFEval's file"
        )
    if unknown := [rule for rule in rules if rule not in registry.INSTRUCTION_DICT]:
        raise InputError(f"a problem has the instruction {unknown[0]!r}, which if-verifiable does not know")
    prompt = problem["prompt"]
    prompt = prompt if isinstance(prompt, str) else text_of(prompt[-1])
    try:
        with _seeded(0):
            _, scores = evaluate_instructions(text, rules, arguments, prompt, registry.INSTRUCTION_DICT)
    except LookupError as error:  # of NLTK
        raise InputError(
            f"the instructions {', '.join(rules)} need data of NLTK: python -m nltk.downloader punkt_tab"
        ) from error
    return float(scores.binary_strict)


score.imports = "if_verifiable.ifeval"  # type: ignore[attr-defined]  # takes seconds, which no answer should pay for


def _registry() -> Any:
    """The rules of IFEval."""
    try:
        from if_verifiable.ifeval import instructions, instructions_registry
    except ImportError:
        raise InputError(MISSING) from None
    instructions.langdetect.DetectorFactory.seed = 0  # which would else guess differently each time
    return instructions_registry


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Let the package, which draws what a rule leaves open from Python's own random numbers, draw the same."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
