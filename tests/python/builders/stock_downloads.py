"""Which file of a repository stock llama.cpp downloads as the model, by the rule of ``find_best_model``.

The rule is that of common/download.cpp in llama.cpp as llama-cpp-python 0.3.36 has it, written anew.
"""

import re

NOT_A_MODEL = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
DEFAULT_TAGS = ("Q4_K_M", "Q8_0")


def downloaded(names: list[str], tag: str = "") -> str | None:
    """The one of ``names`` that ``llama-server -hf user/repo:tag`` opens; None if there is none."""
    models = [name for name in names if _is_model(name) and _part(name) == 1]
    for wanted in [tag] if tag else DEFAULT_TAGS:
        for name in models:
            if re.search(wanted + "[.-]", name, re.IGNORECASE):
                return name
    return None if tag or not models else models[0]


def listed_tag(name: str) -> str:
    """The tag under which ``name`` is listed once it is downloaded; empty if under none."""
    found = re.search(r"[-.]([A-Z0-9_]+)$", name.removesuffix(".gguf"), re.IGNORECASE)
    return found[1].upper() if found and name.endswith(".gguf") else ""


def _is_model(name: str) -> bool:
    file = name.rpartition("/")[2]
    return file.endswith(".gguf") and not any(word in file for word in NOT_A_MODEL)


def _part(name: str) -> int:
    found = re.search(r"-([0-9]{5})-of-[0-9]{5}\.gguf$", name, re.IGNORECASE)
    return int(found[1]) if found else 1
