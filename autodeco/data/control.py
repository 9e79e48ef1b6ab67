"""Commands that ask for more or less certain answers, and prompts with and without them.

The command set is a JSON file: ``{"low": {"training": [texts], "held_out": [texts]}, "high": {...}}``. In the place of
a list of texts there may be a list for each register: ``{"plain": [...], "polite": [...], "terse": [...], "system":
[...]}``. Held-out wordings are given to held-out prompts only, and measure whether control carries over to words never
trained on.

Two more directions may be there: ``scale``, whose texts ask for ``{n}`` of 10, and ``neutral``, whose texts ask for
nothing of the kind. Training on given answers uses neither.
"""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from autodeco.data.messages import text_of
from autodeco.data.records import Record
from autodeco.errors import InputError
from autodeco.runs.seeds import Stream, generator

COMMANDS_FILE = Path(__file__).with_suffix(".json")
DIRECTIONS = ("low", "high")
SCALE, NEUTRAL = "scale", "neutral"
REGISTERS = ("plain", "polite", "terse", "system")
DEGREES = 10  # a scale goes from 0 to it
VALUES = ("temperature", "top_p")
# arXiv 2510.26697: in how many of 100 prompts a command moved the mean the right way
PAPER_SHARES = {("low", "temperature"): 0.99, ("low", "top_p"): 0.97}
PAPER_SHARES |= {("high", "temperature"): 0.96, ("high", "top_p"): 0.85}
NO_COMMAND = 0  # in arrays that name a token's command; others are 1 + the command's place in the set


@dataclass(frozen=True)
class Command:
    """One wording: ``low`` asks for certainty, ``high`` for diversity; the register ``system`` stands in the system
    message."""

    direction: str
    text: str
    held_out: bool
    register: str = "plain"


@dataclass(frozen=True)
class Control:
    """The commands that prompts are given, and the records that are given held-out wordings, to measure with."""

    commands: list[Command]
    held_out: list[int]
    seed: int  # of which record gets which wording

    @classmethod
    def from_json(cls, fields: dict) -> "Control":
        """Return what ``dataclasses.asdict`` made ``fields`` of; raises TypeError or ValueError for anything else."""
        control = cls(**fields | {"commands": [Command(**command) for command in fields["commands"]]})
        if any(command.direction not in DIRECTIONS for command in control.commands):
            raise ValueError("a command has an unknown direction")
        return control

    def variants(self, index: int, record: Record) -> list[tuple[int, Record]]:
        """Return record number ``index`` without a command, then after one wording of each direction, or two if it is
        held out.

        Each with NO_COMMAND or 1 + the command's place. Raises InputError for a record without a prompt.
        """
        random = generator(self.seed, Stream.WORDINGS, index)
        chosen = []
        for held_out in (False, True) if index in self.held_out else (False,):
            for direction in DIRECTIONS:
                indices = [i for i, c in enumerate(self.commands) if (c.direction, c.held_out) == (direction, held_out)]
                chosen.append(int(random.choice(indices)))
        return [(NO_COMMAND, record), *((1 + i, commanded(record, self.commands[i])) for i in chosen)]


def read_commands(path: str | os.PathLike | None = None, wanted: tuple[str, ...] = DIRECTIONS) -> list[Command]:
    """Return the commands of the ``wanted`` directions in the JSON file at ``path``, or of our own set.

    Raises InputError for a missing or damaged file, an unknown direction or register, a direction without wordings of
    either use, and a wording that is there twice.
    """
    path = Path(path or COMMANDS_FILE)
    try:
        directions = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a JSON file of commands") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); write it like {COMMANDS_FILE.name} of autodeco") from None
    if isinstance(directions, dict):
        beside = {SCALE, NEUTRAL} - set(wanted)
        directions = {name: value for name, value in directions.items() if name not in beside}
    _check_keys(path, "the file", directions, wanted)
    commands = []
    for direction in wanted:
        _check_keys(path, direction, directions[direction], ("training", "held_out"))
        for use, wordings in directions[direction].items():
            commands += _wordings(path, direction, use, wordings)
    texts = [command.text for command in commands]
    if repeated := [text for text in texts if texts.count(text) > 1]:
        raise InputError(f"{path}: {repeated[0]!r} is there twice; a wording belongs to one direction and one use")
    return commands


def _wordings(path: Path, direction: str, use: str, wordings) -> list[Command]:
    """Return the commands of one use: a list of texts, or a list for each register."""
    by_register = wordings if isinstance(wordings, dict) else {REGISTERS[0]: wordings}
    if unknown := [register for register in by_register if register not in REGISTERS]:
        raise InputError(f"{path}: {use} of {direction} holds {unknown[0]!r}; registers are {', '.join(REGISTERS)}")
    commands = []
    for register, texts in by_register.items():
        if not isinstance(texts, list) or not texts or not all(isinstance(t, str) and t.strip() for t in texts):
            raise InputError(f"{path}: {use} of {direction} must be a list with at least one wording, none empty")
        if direction == SCALE and (plain := [text for text in texts if "{n}" not in text]):
            raise InputError(f"{path}: {plain[0]!r} of {direction} lacks {{n}}, where the degree is to stand")
        commands += [Command(direction, text, use == "held_out", register) for text in texts]
    if not commands:
        raise InputError(f"{path}: {use} of {direction} must be a list with at least one wording, none empty")
    return commands


def _check_keys(path: Path, what: str, value, expected: tuple[str, ...]) -> None:
    if not isinstance(value, dict) or set(value) != set(expected):
        found = ", ".join(map(str, value)) if isinstance(value, dict) and value else "nothing of that"
        raise InputError(f"{path}: {what} must hold {' and '.join(expected)}, and holds {found}")


def commanded(record: Record, command: Command) -> Record:
    """Return ``record`` with ``command`` at the end of the last message of its prompt, or in front of a plain prompt.

    (The end of a plain prompt is where the completion goes on.) One of the register ``system`` ends the system message,
    or is one. Raises InputError for a record without a prompt.
    """
    if not record.prompt:
        raise InputError("a text without a prompt cannot be given a command; give prompt and completion, or messages")
    if isinstance(record.prompt, str):
        return replace(record, prompt=f"{command.text}\n{record.prompt}")
    if command.register == "system":
        return replace(record, prompt=_instructed(record.prompt, command.text))
    *before, last = record.prompt
    content = last.get("content")
    if not content:
        raise InputError("the last message of the prompt must be text to be given a command")
    if isinstance(content, str):
        content = f"{content} {command.text}"
    else:
        content = [*content[:-1], content[-1] | {"text": f"{content[-1]['text']} {command.text}"}]
    return replace(record, prompt=[*before, last | {"content": content}])


def _instructed(messages: list[dict], text: str) -> list[dict]:
    """Return ``messages`` with ``text`` at the end of their system message, or as one."""
    first, *others = messages
    if first["role"] != "system":
        return [{"role": "system", "content": text}, *messages]
    return [first | {"content": f"{text_of(first)} {text}"}, *others]


def share_names(held_out: bool) -> dict[tuple[str, str], str]:
    """Return the field of a ControlEvaluation that holds the share of each (direction, value)."""
    wording = "_new_wording" if held_out else ""
    return {(d, v): f"{d}_{v}{wording}_share" for d in DIRECTIONS for v in VALUES}


def share_rows(evaluation: dict) -> list[tuple[str, str, str, str]]:
    """Return (direction and value, after training wordings, after held-out ones, in the paper) of a ControlEvaluation,
    as text."""
    known, new = share_names(False), share_names(True)
    return [
        (
            f"{direction}: {value.replace('_', '-')} {'falls' if direction == 'low' else 'rises'}",
            *(f"{share:.0%}" for share in (evaluation[known[key]], evaluation[new[key]], PAPER_SHARES[key])),
        )
        for key in known
        for direction, value in [key]
    ]
