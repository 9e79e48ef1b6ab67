"""What a model is asked: each prompt without a command and behind several, and documents that only quote one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autodeco.data.control import DEGREES, DIRECTIONS, NEUTRAL, SCALE, Command, commanded, read_commands
from autodeco.data.control_prompts import ControlPrompt, quoting
from autodeco.data.messages import Messages
from autodeco.data.records import Record
from autodeco.runs.seeds import Stream, generator

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
    round_: int,
    neutral: int = 1,
    quoted: int = 1,
) -> list[list[Asked]]:
    """Return, for each prompt, the readings of training round ``round_``; as many of each.

    They are: plain, ``neutral`` sentences, ``wordings`` of each direction, ``degrees`` of the scale in one wording, and
    last ``quoted`` quotations.
    Commands stand in one of the FRAMES, and some are two wordings together.
    """
    commands = by_direction(False)
    return [
        list(
            _in_training(
                group,
                prompt,
                commands,
                {NEUTRAL: neutral} | dict.fromkeys(DIRECTIONS, wordings),
                degrees,
                quoted,
                generator(seed, Stream.WORDINGS, round_, group),
            )
        )
        for group, prompt in enumerate(prompts)
    ]


def _in_training(
    group: int,
    prompt: ControlPrompt,
    commands: dict[str, list[Command]],
    counts: dict[str, int],
    degrees: int,
    quoted: int,
    random: np.random.Generator,
) -> Iterator[Asked]:
    yield Asked(group, PLAIN, 0.0, chat(prompt.text))
    for direction, count in counts.items():
        for _ in range(count):
            command = _perhaps_two(random, commands[direction])
            yield worded(group, prompt, direction, command, str(random.choice(FRAMES)))
    scale, frame = _chosen(random, commands[SCALE]), str(random.choice(FRAMES))
    for degree in random.choice(DEGREES + 1, degrees, replace=False):
        yield graded(group, prompt, scale, int(degree), frame)
    first = int(random.integers(len(DIRECTIONS)))
    for number in range(quoted):
        direction = DIRECTIONS[(first + number) % len(DIRECTIONS)]
        text, _ = quoting(_chosen(random, _spoken(commands[direction])).text, False, random)
        yield Asked(group, QUOTED, 0.0, chat(text))


def asked_in_measuring(prompts: Sequence[ControlPrompt], seed: int) -> list[dict[str, Asked]]:
    """Return, for each prompt, by variant: plain, neutral, low and high, in held-out wordings."""
    commands, asked = by_direction(True), []
    for group, prompt in enumerate(prompts):
        random = generator(seed, Stream.WORDINGS, 0, group)
        mine = {PLAIN: Asked(group, PLAIN, 0.0, chat(prompt.text))}
        for direction in (NEUTRAL, *DIRECTIONS):
            mine[direction] = worded(group, prompt, direction, _chosen(random, commands[direction]))
        asked.append(mine)
    return asked


def graded_in_measuring(prompts: Sequence[ControlPrompt], seed: int) -> list[list[Asked]]:
    """Return, for each prompt, every degree of the scale in one held-out wording."""
    scales, asked = by_direction(True)[SCALE], []
    for group, prompt in enumerate(prompts):
        scale = _chosen(generator(seed, Stream.WORDINGS, 1, group), scales)
        asked.append([graded(group, prompt, scale, degree) for degree in range(DEGREES + 1)])
    return asked


def quoted_in_measuring(count: int, direction: str, seed: int) -> list[tuple[Asked, Asked]]:
    """Return ``count`` held-out documents that quote a held-out wording of ``direction``, each with its neutral
    twin."""
    commands, asked = _spoken(by_direction(True)[direction]), []
    for group in range(count):
        random = generator(seed, Stream.WORDINGS, 2 + DIRECTIONS.index(direction), group)
        texts = quoting(_chosen(random, commands).text, True, random)
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


def by_direction(held_out: bool) -> dict[str, list[Command]]:
    """Return our own commands of one use, by direction."""
    commands = read_commands(wanted=(*DIRECTIONS, SCALE, NEUTRAL))
    return {
        d: [c for c in commands if (c.direction, c.held_out) == (d, held_out)] for d in (*DIRECTIONS, SCALE, NEUTRAL)
    }


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
