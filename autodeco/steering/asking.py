"""What a model is asked: each prompt without a command and behind several, and documents that only quote one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autodeco.data.control import DEGREES, DIRECTIONS, NEUTRAL, SCALE, Command, commanded
from autodeco.data.control_prompts import ControlPrompt
from autodeco.data.messages import Messages
from autodeco.data.records import Record
from autodeco.runs.seeds import Stream, generator
from autodeco.steering.parts import HELD_OUT, TRAINING, Part

LEVELS = {"low": -1.0, "high": 1.0}  # others are 0
# Where a command stands in a training prompt; measured prompts end with it, as the first one here.
FRAMES = (
    "{prompt} {command}",
    "{command} {prompt}",
    "{prompt}\n\n{command}",
    "{command}\n{prompt}",
    "{prompt} ({command})",
)
TWO = 0.3  # of training prompts have two wordings of a direction, one after the other
PLAIN, QUOTED, TWIN = "plain", "quoted", "quoted neutral"


@dataclass(frozen=True)
class Asked:
    """One reading of prompt number ``group``.

    ``level`` is what it asks for, from -1, certain, to 1, diverse. ``variant`` says how: plain, neutral, low, high, a
    degree, quoted.
    """

    group: int
    variant: str
    level: float
    prompt: Messages
    register: str = ""


def asked_in_training(
    prompts: Sequence[ControlPrompt],
    wordings: int,
    degrees: int,
    seed: int,
    neutral: int = 1,
    quoted: int = 1,
    part: Part = TRAINING,
) -> list[list[Asked]]:
    """Return, for each prompt, the readings that are learned from; as many of each.

    They are: plain, ``neutral`` sentences, ``wordings`` of each direction, ``degrees`` of the scale in one wording, and
    last ``quoted`` quotations. Commands are those of ``part``, stand in one of the FRAMES, and some are two wordings
    together.
    """
    commands, asked = part.commands(), []
    for group, prompt in enumerate(prompts):
        random = generator(seed, Stream.WORDINGS, 0, group)
        counts = {NEUTRAL: neutral} | dict.fromkeys(DIRECTIONS, wordings)
        mine = [
            Asked(group, PLAIN, 0.0, chat(prompt.text)),
            *_worded_in_training(group, prompt, commands, counts, random),
            *_graded_in_training(group, prompt, commands[SCALE], degrees, random),
            *_quoted_in_training(group, part, commands, quoted, random),
        ]
        asked.append(mine)
    return asked


def _worded_in_training(
    group: int, prompt: ControlPrompt, commands: dict, counts: dict[str, int], random: np.random.Generator
) -> Iterator[Asked]:
    for direction, count in counts.items():
        for _ in range(count):
            command = _perhaps_two(random, commands[direction])
            yield worded(group, prompt, direction, command, str(random.choice(FRAMES)))


def _graded_in_training(
    group: int, prompt: ControlPrompt, scales: Sequence[Command], degrees: int, random: np.random.Generator
) -> Iterator[Asked]:
    scale, frame = _chosen(random, scales), str(random.choice(FRAMES))
    for degree in random.choice(DEGREES + 1, degrees, replace=False):
        yield graded(group, prompt, scale, int(degree), frame)


def _quoted_in_training(
    group: int, part: Part, commands: dict, count: int, random: np.random.Generator
) -> Iterator[Asked]:
    first = int(random.integers(len(DIRECTIONS)))
    for number in range(count):
        direction = DIRECTIONS[(first + number) % len(DIRECTIONS)]
        text, _ = part.quoting(_chosen(random, _spoken(commands[direction])).text, random)
        yield Asked(group, QUOTED, 0.0, chat(text))


def asked_in_measuring(prompts: Sequence[ControlPrompt], seed: int, part: Part = HELD_OUT) -> list[dict[str, Asked]]:
    """Return, for each prompt, by variant: plain, neutral, low and high, in wordings of ``part``."""
    commands, asked = part.commands(), []
    for group, prompt in enumerate(prompts):
        random = generator(seed, Stream.WORDINGS, 0, group)
        mine = {PLAIN: Asked(group, PLAIN, 0.0, chat(prompt.text))}
        for direction in (NEUTRAL, *DIRECTIONS):
            mine[direction] = worded(group, prompt, direction, _chosen(random, commands[direction]))
        asked.append(mine)
    return asked


def graded_in_measuring(prompts: Sequence[ControlPrompt], seed: int, part: Part = HELD_OUT) -> list[list[Asked]]:
    """Return, for each prompt, every degree of the scale in one wording of ``part``."""
    scales, asked = part.commands()[SCALE], []
    for group, prompt in enumerate(prompts):
        scale = _chosen(generator(seed, Stream.WORDINGS, 1, group), scales)
        asked.append([graded(group, prompt, scale, degree) for degree in range(DEGREES + 1)])
    return asked


def quoted_in_measuring(count: int, direction: str, seed: int, part: Part = HELD_OUT) -> list[tuple[Asked, Asked]]:
    """Return ``count`` documents of ``part`` that quote a wording of ``direction``, each with its neutral twin."""
    commands, asked = _spoken(part.commands()[direction]), []
    for group in range(count):
        random = generator(seed, Stream.WORDINGS, 2 + DIRECTIONS.index(direction), group)
        texts = part.quoting(_chosen(random, commands).text, random)
        asked.append(tuple(Asked(group, name, 0.0, chat(t)) for name, t in zip((QUOTED, TWIN), texts, strict=True)))
    return asked


def worded(group: int, prompt: ControlPrompt, variant: str, command: Command, frame: str = FRAMES[0]) -> Asked:
    """Return ``prompt`` with ``command``, in the user's message in one of the FRAMES."""
    if command.register == "system":
        given = commanded(Record(1, chat(prompt.text), ""), command).prompt
    else:
        given = chat(frame.format(prompt=prompt.text, command=command.text))
    return Asked(group, variant, LEVELS.get(variant, 0.0), given, command.register)


def graded(group: int, prompt: ControlPrompt, scale: Command, degree: int, frame: str = FRAMES[0]) -> Asked:
    """Return ``prompt`` with the wording ``scale`` of the degree; 0 asks for what low asks, 10 for what high does."""
    asked = worded(group, prompt, f"{degree} of {DEGREES}", replace(scale, text=scale.text.format(n=degree)), frame)
    return replace(asked, level=2 * degree / DEGREES - 1)


def chat(text: str) -> Messages:
    """Return the chat that begins with a user's ``text``."""
    return [{"role": "user", "content": text}]


def _spoken(commands: Sequence[Command]) -> list[Command]:
    """Return the commands that somebody may say to somebody."""
    return [command for command in commands if command.register != "system"]


def _perhaps_two(random: np.random.Generator, commands: Sequence[Command]) -> Command:
    """Return one of ``commands``, or two of a register as one."""
    first = _chosen(random, commands)
    others = [c for c in commands if c.register == first.register and c != first]
    if random.random() >= TWO or not others:
        return first
    return replace(first, text=f"{first.text} {_chosen(random, others).text}")


def _chosen(random: np.random.Generator, commands: Sequence[Command]) -> Command:
    return commands[int(random.integers(len(commands)))]
