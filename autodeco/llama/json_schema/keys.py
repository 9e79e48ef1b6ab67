"""The names of properties that are none of some others."""

import json

from autodeco.llama.json_schema.rules import PLAIN, literal


def other_keys(names: list[str]) -> str:
    """Return an expression for the strings that are none of ``names``, written without escapes."""
    names = [name for name in names if json.dumps(name, ensure_ascii=False) == f'"{name}"']
    return f'"\\"" {_others(names)} "\\""' if names else "string"


def _others(rests: list[str]) -> str:
    """Texts that are none of ``rests``."""
    following: dict[str, list[str]] = {}
    for rest in rests:
        if rest:
            following.setdefault(rest[0], []).append(rest[1:])
    parts = [f"{literal(letter)} {_others(some)}" for letter, some in following.items()]
    excluded = "".join(f"\\U{ord(letter):08X}" for letter in following)
    parts.append(f"[^{excluded}{PLAIN[2:]} ({PLAIN})*")
    return "(" + " | ".join(parts) + ")" + ("" if "" in rests else "?")
