"""A preset as llama.cpp reads it, by the grammar of common/preset.cpp in llama-cpp-python 0.3.36, written anew."""

import re

_SECTION = re.compile(r"\[[ \t]*([^\]]+?)[ \t]*\]")
_KEY = re.compile(r"([a-zA-Z_][\w.-]*)[ \t]*=[ \t]*", re.ASCII)


def read_preset(text: str) -> dict[str, dict[str, str]]:
    """Sections of a preset, each a map of options to values; raises ValueError for a line that it does not have."""
    sections: dict[str, dict[str, str]] = {}
    current = "default"
    for line in text.splitlines():
        rest = re.split(r"[ \t]*[;#]", line, maxsplit=1)[0].strip(" \t")  # a comment may begin anywhere
        if found := _SECTION.fullmatch(rest):
            current = found[1]
            sections[current] = {}
        elif found := _KEY.match(rest):
            sections.setdefault(current, {})[found[1]] = rest[found.end() :]
        elif rest:
            raise ValueError(line)
    return sections
