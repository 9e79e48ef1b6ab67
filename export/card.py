"""A model card for an exported file: README.md with the front matter that model hubs read."""

import json
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from autodeco.errors import InputError
from autodeco.export.evaluation import Evaluation, in_words
from autodeco.export.head_weights import HeadWeights
from autodeco.export.layout import EMBEDDED, SIDECAR, Layout
from autodeco.export.sampling import LETTERS, PRESET, PRESET_FOLDER, Sampling, stock_file
from autodeco.export.schema import KEY_AUTHOR, KEY_LICENSE, KEY_NAME, KEY_URL
from autodeco.runs.atomic import replacing
from autodeco.terminal import one_line

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&$#@])")
_ADDRESS = re.compile(r"(:|www)(//|\.)", re.IGNORECASE)  # what GitHub makes a link of without being asked
LONGEST = 300  # letters of a text from a file


@dataclass(frozen=True)
class Deviation:
    """Distance from float32 heads over ``tokens`` hidden states, for one type of weights; None for a head that is not
    there."""

    weight_type: str
    tokens: int
    temperature_max: float | None
    temperature_mean: float | None
    top_p_max: float | None
    top_p_mean: float | None


class Markdown(str):
    """Text that is Markdown already. Every other value of the template is escaped: names come from files."""


def model_card(
    file: str | os.PathLike,
    layout: str,
    weight_type: str,
    heads: HeadWeights,
    base: Layout,
    description: dict[str, str],
    deviations: Sequence[Deviation] = (),
    evaluation: Evaluation | None = None,
    sampling: Sampling | None = None,
) -> str:
    """Text of the card for ``file``; ``description`` maps `general.*` keys to the user's texts, ``evaluation`` is the
    verdict of held-out problems, ``sampling`` the setting for programs without AutoDeco."""
    merged = layout != SIDECAR
    values = {
        "front": _front_matter(heads, base, merged, description.get(KEY_LICENSE)),
        "title": description.get(KEY_NAME) or f"{base.base_name} with AutoDeco heads",
        "author": description.get(KEY_AUTHOR),
        "url": description.get(KEY_URL),
        "file": Path(file).name,
        "model": Path(base.path).name if base.has_base else "MODEL.gguf",
        "merged": merged,
        "opens_everywhere": layout == EMBEDDED,
        "stock": stock_file(layout, Path(file), base),
        "sampling": sampling,
        "letters": LETTERS,
        "preset": f"{PRESET_FOLDER}/{PRESET}",
        "chats": base.model is not None and "tokenizer.chat_template" in base.model.keys,
        "kinds": heads.kinds,
        "weight_type": weight_type,
        "heads": heads,
        "base": base,
        "evaluation": in_words(evaluation, base.base_fingerprint) if evaluation else None,
        "deviations": Markdown("\n".join(deviation_table(deviations))) if deviations else None,
    }
    return _template().render(values)


def _front_matter(heads: HeadWeights, base: Layout, merged: bool, license_: str | None) -> Markdown:
    """What model hubs read of a card: YAML, of which JSON is a part, so that any value is quoted right."""
    front = {"tags": ["autodeco", "gguf", "llama.cpp"], "pipeline_tag": "text-generation"}
    if merged and not license_ and isinstance(base.gguf.get(KEY_LICENSE), str):
        license_ = base.gguf.get(KEY_LICENSE)  # the model is in the file, and so is its own word on this
    if license_:
        front["license"] = license_.lower()
    if heads.base_model and _HUB_ID.fullmatch(heads.base_model):
        front["base_model"] = heads.base_model
        front["base_model_relation"] = "quantized" if merged else "adapter"
    return Markdown("\n".join(f"{key}: {json.dumps(value)}" for key, value in front.items()))


def _template() -> jinja2.Template:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.finalize = _escaped
    environment.filters |= {"python": _python, "shell": _shell, "code": _code, "link": _link}
    return environment.from_string(Path(__file__).with_name("card.md.j2").read_text(encoding="utf-8"))


def _escaped(value: object) -> str:
    """One line in which Markdown sees no mark, and no address that it would make a link of."""
    if isinstance(value, Markdown):
        return value
    return _ADDRESS.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", _line(str(value))))


def _line(text: str) -> str:
    """``one_line`` of bounded length, without two blanks together."""
    line = " ".join(one_line(text).split())
    return line if len(line) <= LONGEST else line[:LONGEST] + "..."


def _code(text: str) -> Markdown:
    """A code span, between more backticks than stand together in the text; of a text that would end the cell of a table
    plain text."""
    line = _line(text)
    if "|" in line:
        return Markdown(_escaped(line))
    ticks = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    return Markdown(f"{ticks} {line} {ticks}" if "`" in line else f"`{line}`")


def _python(text: str) -> Markdown:
    """A literal of Python."""
    return Markdown(json.dumps(text))


def _shell(text: str) -> Markdown:
    """An argument of a shell command, of one line so that it cannot end the block it stands in."""
    return Markdown(shlex.quote(_line(text)))


def _link(text: str) -> str:
    """A link, if the text is an address."""
    return Markdown(f"<{text}>") if re.fullmatch(r"https?://[^\s<>]+", text) and text.isprintable() else text


def write_card(path: Path, text: str) -> None:
    """Write a card; raises InputError if the file cannot be written."""
    try:
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); check the free space") from error


def deviation_table(deviations: Sequence[Deviation]) -> list[str]:
    """Lines of a Markdown table: deviation of temperature and top-p from float32 heads."""
    rows = [
        "| type | temperature max | mean | top-p max | mean |",
        "|---|---|---|---|---|",
    ]
    for found in deviations:
        numbers = (found.temperature_max, found.temperature_mean, found.top_p_max, found.top_p_mean)
        cells = ["-" if number is None else f"{number:.1e}" for number in numbers]
        rows.append(f"| {found.weight_type} | {' | '.join(cells)} |")
    return [f"Deviation from f32 over {deviations[0].tokens} hidden states of the model:", "", *rows]
