"""The static setting for programs that do not know heads: the keys `general.sampling.*`, and a preset of llama.cpp."""

import re
from dataclasses import dataclass
from pathlib import Path

from autodeco.export import gguf_types as types
from autodeco.export.evaluation import Evaluation
from autodeco.export.gguf_encode import key_value
from autodeco.export.layout import EMBEDDED, MERGED, Layout

# llama.cpp's own order with temperature before what cuts by probability, as heads and static settings have it here: its
# names for the key, and its letters for a preset, in which a semicolon begins a comment.
ORDER = ("penalties", "dry", "top_n_sigma", "temperature", "top_k", "typ_p", "top_p", "min_p", "xtc")
LETTERS = "edstkypmx"
PRESET = "preset.ini"
# Not in the folder of the files: of a repository with preset.ini in its root, llama.cpp downloads nothing else.
PRESET_FOLDER = "llama.cpp"
HOTTEST = 10.0
_SETTING = re.compile(r"T ([0-9.e+-]+), P ([0-9.e+-]+)")
_IN_A_VALUE = re.compile(r"[^;#\r\n]+")


@dataclass(frozen=True)
class Sampling:
    """``temperature`` (0: greedy) and ``top_p`` for every token; ``found`` says how they were found."""

    temperature: float
    top_p: float
    found: str

    def keys(self) -> dict[str, bytes]:
        """The keys `general.sampling.*`, encoded; what llama.cpp would cut by itself is off."""
        values = {
            "sequence": (types.STRING, ";".join(ORDER)),
            "temp": (types.FLOAT32, self.temperature),
            "top_p": (types.FLOAT32, self.top_p),
            "top_k": (types.INT32, 0),
            "min_p": (types.FLOAT32, 0.0),
        }
        names = {name: f"general.sampling.{name}" for name in values}
        return {names[name]: key_value(names[name], kind, value) for name, (kind, value) in values.items()}

    def preset(self, model: str) -> str | None:
        """The text of a preset for the file ``model``; None if llama.cpp cannot read that name in one."""
        if not _IN_A_VALUE.fullmatch(model) or model != model.strip():
            return None
        section = re.sub(r"[^\w.-]", "_", Path(model).stem, flags=re.ASCII)
        lines = (
            f"; {self.found}, for llama.cpp without AutoDeco",
            f"; llama-server --models-preset {PRESET_FOLDER}/{PRESET}",
            "version = 1",
            "",
            f"[{section}]",
            f"model = {model}",
            f"temp = {self.temperature:g}",
            f"top-p = {self.top_p:g}",
            "top-k = 0",
            "min-p = 0",
            f"sampler-seq = {LETTERS}",
        )
        return "\n".join(lines) + "\n"


def of_evaluation(evaluation: Evaluation | None) -> Sampling | None:
    """The best setting without heads that held-out problems found; None if there were none, or it is no setting."""
    if evaluation is None:
        return None
    found = f"the best static setting of {evaluation.problems} held-out problems"
    if evaluation.greedy > evaluation.static or evaluation.static_setting == "greedy":
        return Sampling(0.0, 1.0, found)
    match = _SETTING.fullmatch(evaluation.static_setting)
    try:
        return checked(float(match[1]), float(match[2]), found) if match else None
    except ValueError:
        return None


def checked(temperature: float, top_p: float, found: str) -> Sampling:
    """A Sampling of numbers from outside; raises ValueError for impossible ones."""
    if not (0 <= temperature <= HOTTEST and 0 < top_p <= 1):
        raise ValueError(f"temperature {temperature}, top-p {top_p}")
    return Sampling(temperature, top_p, found)


def stock_file(layout: str, output: Path, base: Layout) -> str:
    """The file that programs without AutoDeco open, as seen from the folder of ``output``."""
    if layout == EMBEDDED:
        return output.name
    if layout == MERGED:
        return "parts/base.gguf"  # what the card's --split writes
    return Path(base.path).name if base.has_base else "MODEL.gguf"
