"""The verdict of held-out problems on heads: read from the run that trained them, written into their files."""

import math
import os
import typing
from dataclasses import dataclass, fields
from pathlib import Path

from autodeco.errors import InputError
from autodeco.export import gguf_types as types
from autodeco.export.checkpoint import RUN_FILE
from autodeco.export.gguf_encode import key_value
from autodeco.export.gguf_file import GgufFile
from autodeco.export.safetensors_file import parse_json_object
from autodeco.export.schema import EVALUATION_KEYS, EVALUATION_PREFIX

MOST_BYTES = 100_000_000
LONGEST = 500  # characters of a text
LARGEST = 1e6  # of a value, which is 0 to 1 for pass@k and more for weighted sums
MOST_COUNTED = 2**32 - 1
_TYPES = {str: types.STRING, int: types.UINT32, float: types.FLOAT32}


@dataclass(frozen=True)
class Evaluation:
    """Values are means of ``target`` over ``problems``, 1 for all right; differences are those of the heads, with 95%
    intervals. ``samples`` are the answers to each problem, ``model`` is the fingerprint of the file that gave them.

    Raises InputError for impossible values: numbers out of their range, texts that are too long or not printable.
    """

    verdict: str
    target: str
    problems: int
    samples: int
    heads: float
    greedy: float
    static: float
    static_setting: str
    over_greedy: float
    over_greedy_low: float
    over_greedy_high: float
    over_static: float
    over_static_low: float
    over_static_high: float
    model: str

    def __post_init__(self):
        for name, kind in _kinds().items():
            problem = _wrong(kind, getattr(self, name), signed=name.startswith("over_"))
            if problem:
                raise InputError(f"its evaluation's {name} {problem}")
        for over in ("over_greedy", "over_static"):
            if getattr(self, f"{over}_low") > getattr(self, f"{over}_high"):
                raise InputError(f"its evaluation's interval of {over} ends before it begins")


def read_run(folder: str | os.PathLike) -> Evaluation | None:
    """Return the evaluation in ``folder``, None if the run that trained the heads made none.

    Raises InputError, one line with the file, for an impossible evaluation."""
    path = Path(folder) / RUN_FILE
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path}: larger than any run's; remove it, or fetch it again")
        made = parse_json_object(path.read_bytes(), path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error
    if made.get("verdict") is None:
        return None
    try:
        return _of_verdict(made["verdict"], made["model"]["fingerprint"])
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: its verdict is not whole ({error}); remove it, or fetch it again") from None
    except InputError as error:
        raise InputError(f"{path}: {error}; remove it, or fetch it again") from None


def _of_verdict(verdict: dict, model: str) -> Evaluation:
    compared = {}
    for over in ("over_greedy", "over_static"):
        compared |= {over: verdict[over]["difference"]}
        compared |= {f"{over}_{end}": verdict[over][end] for end in ("low", "high")}
    same = ("target", "problems", "samples", "heads", "greedy", "static", "static_setting")
    return Evaluation(verdict["sentence"], **{name: verdict[name] for name in same}, **compared, model=model)


def evaluation_of(gguf: GgufFile) -> Evaluation | None:
    """Return the evaluation in the keys of ``gguf``, None if it has none; raises InputError for an impossible one."""
    if not any(key.startswith(EVALUATION_PREFIX) for key in gguf.keys):
        return None
    values = {}
    for name, kind in _kinds().items():
        key = EVALUATION_KEYS[name]
        read = {str: gguf.string, int: gguf.u32, float: gguf.f32}[kind]
        values[name] = read(key)
        if values[name] is None:
            raise InputError(f"{gguf.path}: the key {key} is missing; export the heads again")
    try:
        return Evaluation(**values)
    except InputError as error:
        raise InputError(f"{gguf.path}: {error}; export the heads again") from None


def encoded(evaluation: Evaluation | None) -> list[bytes]:
    """Return the keys of ``evaluation`` as a GGUF has them."""
    if evaluation is None:
        return []
    return [
        key_value(EVALUATION_KEYS[name], _TYPES[kind], getattr(evaluation, name)) for name, kind in _kinds().items()
    ]


def in_words(evaluation: Evaluation, fingerprint: str) -> list[tuple[str, str]]:
    """Return ``evaluation`` as labels and plain words, for heads exported for the model with ``fingerprint``."""
    found = evaluation

    def against(value: float, over: str) -> str:
        difference, low, high = (100 * getattr(found, over + end) for end in ("", "_low", "_high"))
        return f"{100 * value:.1f}%; the heads are {difference:+.1f} points ({low:+.1f} to {high:+.1f})"

    lines = [
        ("verdict", found.verdict),
        ("measured", f"{found.target} of {found.problems} held-out problems, {found.samples} answers to each"),
        ("these heads", f"{100 * found.heads:.1f}%"),
        ("greedy decoding", against(found.greedy, "over_greedy")),
        ("best static", f"{found.static_setting}: {against(found.static, 'over_static')}"),
    ]
    if found.model != fingerprint:
        lines.append(("measured with", "another file of the model"))
    return lines


def _kinds() -> dict[str, type]:
    kinds = typing.get_type_hints(Evaluation)
    return {field.name: kinds[field.name] for field in fields(Evaluation)}


def _wrong(kind: type, value: object, signed: bool) -> str | None:
    """Say what is wrong with a value of a field; None if nothing is."""
    if kind is str:
        if not isinstance(value, str) or not value.strip() or len(value) > LONGEST:
            return f"is no text of 1 to {LONGEST} characters"
        return None if value.isprintable() else "holds characters that cannot be printed"
    if isinstance(value, bool) or not isinstance(value, int if kind is int else (int, float)):
        return f"is no {'whole number' if kind is int else 'number'}"
    if kind is int:
        return None if 1 <= value <= MOST_COUNTED else f"is {value}, not 1 to {MOST_COUNTED}"
    least = -LARGEST if signed else 0
    return None if math.isfinite(value) and least <= value <= LARGEST else f"is {value}, not {least:g} to {LARGEST:g}"
