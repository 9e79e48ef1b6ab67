"""Whether all parts of a model that is split into several files are there."""

import os
import re

from autodeco.errors import InputError
from autodeco.export.gguf_file import read_gguf
from autodeco.export.layout import Layout
from autodeco.export.schema import KEY_SPLIT_COUNT, KEY_SPLIT_NO


def check_parts(model: Layout) -> None:
    """Raise InputError, naming the part, if one of a split model is missing, cut off or another file.

    llama.cpp finds the parts by the name of the first, which ends in -00001-of-0000N.gguf."""
    count = model.split_count
    if count == 1:
        return
    found = re.fullmatch(r"(.*)-00001-of-(\d{5})\.gguf", model.path, re.DOTALL)
    if not found or int(found[2]) != count:
        raise InputError(
            f"{model.path}: the first of {count} parts of a model, whose names must end in -00001-of-{count:05d}.gguf "
            "and so on; rename them, so that llama.cpp finds them"
        )
    for number in range(2, count + 1):
        path = f"{found[1]}-{number:05d}-of-{count:05d}.gguf"
        if not os.path.isfile(path):
            raise InputError(f"{model.path}: part {number} of {count} is missing; fetch {path}")
        part = read_gguf(path)
        if (part.integer(KEY_SPLIT_NO), part.integer(KEY_SPLIT_COUNT)) != (number - 1, count):
            raise InputError(f"{path}: is not part {number} of {count} of {model.path}; fetch it again")
