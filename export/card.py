"""A model card for an exported file: README.md with the front matter that model hubs read."""

import json
import os
import re
import shlex
from pathlib import Path

from autodeco.atomic import replacing
from autodeco.errors import InputError
from autodeco.export.accuracy import Deviation
from autodeco.export.head_weights import HeadWeights
from autodeco.export.layout import MERGED, Layout
from autodeco.export.schema import KEY_AUTHOR, KEY_LICENSE, KEY_NAME, KEY_URL

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_ASK_IN_PYTHON = (
    'answer = llm.create_chat_completion([{"role": "user", "content": "Why is the sky blue?"}])',
    'print(answer["choices"][0]["message"]["content"])',
)
_COMPLETE_IN_PYTHON = ('print(llm("Once upon a time", max_tokens=64)["choices"][0]["text"])',)


def model_card(
    file: str | os.PathLike,
    layout: str,
    weight_type: str,
    heads: HeadWeights,
    base: Layout,
    description: dict[str, str],
    deviations: list[Deviation] = (),
) -> str:
    """Text of the card for ``file``; ``description`` maps `general.*` keys to what the user said."""
    file = Path(file).name
    merged = layout == MERGED
    model = Path(base.path).name if base.has_base else "MODEL.gguf"
    front = {"tags": ["autodeco", "gguf", "llama.cpp"], "pipeline_tag": "text-generation"}
    license_ = description.get(KEY_LICENSE)
    if merged and not license_ and isinstance(base.gguf.get(KEY_LICENSE), str):
        license_ = base.gguf.get(KEY_LICENSE)  # the model is in the file, and so is its own word on this
    if license_:
        front["license"] = license_.lower()
    if heads.base_model and _HUB_ID.fullmatch(heads.base_model):
        front["base_model"] = heads.base_model
        front["base_model_relation"] = "quantized" if merged else "adapter"
    # JSON is YAML: quoting is right whatever the text holds.
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in front.items()), "---", ""]

    title = description.get(KEY_NAME) or f"{base.base_name} with AutoDeco heads"
    chats = base.model is not None and "tokenizer.chat_template" in base.model.keys
    files = f"-m {shlex.quote(file)}" if merged else f"-m {shlex.quote(model)} --heads {shlex.quote(file)}"
    kinds = [name for name, here in (("temperature", heads.has_temperature), ("top-p", heads.has_top_p)) if here]
    what = f"the model and its {' and '.join(kinds)} heads" if merged else f"{' and '.join(kinds)} heads for the model"
    lines += [f"# {_line(title)}", ""]
    for key, label in ((KEY_AUTHOR, "Author"), (KEY_URL, "Home")):
        if description.get(key):
            lines += [f"{label}: {_line(description[key])}", ""]
    lines += [
        f"`{file}` holds {what} in GGUF, for llama.cpp through AutoDeco. The heads read the model's last hidden state",
        "and choose the sampling temperature and the top-p of every token, so there are no sampling settings to tune",
        "([paper](https://arxiv.org/abs/2510.26697)).",
        "",
        "| | |",
        "|---|---|",
        f"| base model | {_cell(base.base_name)} |",
        f"| base file | `{base.base_fingerprint}` |",
        f"| hidden size, vocabulary | {base.embedding_length}, {base.vocab_size} |",
        f"| heads | {', '.join(kinds)}{' (with probability statistics)' if heads.prob_stats else ''} |",
        f"| type of the head weights | {weight_type} |",
        "",
        "## Use",
        "",
        "```python",
        "from autodeco import Llama",
        "",
        f"llm = Llama({json.dumps(file)})" if merged else f"llm = Llama({json.dumps(model)}, {json.dumps(file)})",
        *(_ASK_IN_PYTHON if chats else _COMPLETE_IN_PYTHON),
        "```",
        "",
        "Without Python:",
        "",
        "```sh",
        f"autodeco-cli {files} --chat" if chats else f'autodeco-cli {files} -p "Once upon a time"',
        "```",
        "",
    ]
    if merged:
        lines += [
            "Programs that do not know AutoDeco refuse this file. It holds the model's own file byte for byte:",
            f"`autodeco-export --split {file} -o parts` gives it back as `parts/base.gguf`.",
            "",
        ]
    else:
        lines += [
            "The heads belong to the one model file named above; others of the same shape load with a warning.",
            "",
        ]
    if deviations:
        lines += ["## Accuracy of the head weights", "", *deviation_table(deviations), ""]
    return "\n".join(lines)


def write_card(path: Path, text: str) -> None:
    """Write a card; raises InputError if the file cannot be written."""
    try:
        with replacing(path) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); check the free space") from error


def deviation_table(deviations: list[Deviation]) -> list[str]:
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


def _line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")
