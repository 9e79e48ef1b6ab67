"""The reference: Python and file formats from docstrings, commands from their parsers, C from the header."""

import ast
import contextlib
import io
import os
import re
from pathlib import Path
from unittest import mock

# modules, and which of their names are shown; None: those of __all__
PYTHON = {
    "autodeco.llama": ["Llama"],
    "autodeco.llama.decoding": ["Decoding", "TokenDecoding"],
    "autodeco.llama.extra_samplers": ["ExtraSamplers"],
    "autodeco.batch": None,
    "autodeco.native": ["load_heads", "predict", "nucleus_sample"],
    "autodeco.heads": ["Heads"],
    "autodeco.losses": None,
    "autodeco.traces": None,
    "autodeco.training": None,
    "autodeco.errors": ["InputError"],
}
FILES = {"Heads in GGUF": "autodeco.export.schema", "Traces": "autodeco.traces.format"}
SECTION = re.compile(r"^//\n// (.+)\n//\n", re.MULTILINE)


def pages(root: Path) -> dict[str, str]:
    """Return the pages of the reference by where the site has them."""
    return {
        "reference/c.md": c_page((root / "cpp_ext" / "include" / "autodeco.h").read_text(encoding="utf-8")),
        "reference/commands.md": commands_page(),
        "reference/files.md": files_page(),
        "reference/python.md": python_page(root),
    }


def python_page(root: Path) -> str:
    lines = ["# Python", "", "`import autodeco` is quick and needs no torch: each name loads on first use.", ""]
    for module, names in PYTHON.items():
        lines += [f"## {module}", ""]
        for name in names or public_names(root / Path(*module.split(".")) / "__init__.py"):
            lines += [f"::: {module}.{name}", ""]
    return "\n".join(lines)


def public_names(init: Path) -> list[str]:
    """Return ``__all__`` of a package, which is not imported."""
    for node in ast.parse(init.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return ast.literal_eval(node.value)
    raise ValueError(f"{init}: has no __all__")


def files_page() -> str:
    told = "[Publishing](../export.md#what-the-files-contain) has the tables; [versions](../versioning.md) says "
    lines = [
        "# File formats",
        "",
        told + "what a reader does with another version. Here are the modules that define them.",
        "",
    ]
    for title, module in FILES.items():
        lines += [f"## {title}", "", f"::: {module}", "    options:", "      show_if_no_docstring: true", ""]
    return "\n".join(lines)


def commands_page() -> str:
    from autodeco.cli import VERBS, main
    from autodeco.export.cli import parser

    lines = ["# Commands", "", "What `--help` says. [Without Python](../edge.md) has `autodeco-cli`.", ""]
    with mock.patch.dict(os.environ, COLUMNS="100"):
        helps = {"autodeco": _help_of(main, [])} | {f"autodeco {verb}": _help_of(main, [verb]) for verb in VERBS}
        helps["autodeco-export"] = parser().format_help()
    for command, text in helps.items():
        lines += [f"## {command}", "", "```text", text.rstrip(), "```", ""]
    return "\n".join(lines)


def _help_of(main, verb: list[str]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        main([*verb, "--help"])
    return said.getvalue()


def c_page(header: str) -> str:
    """The header, part by part: what a comment says as text, and the code that it is about."""
    opening, _, rest = header.partition("#pragma once")
    lines = ["# C", "", "`#include <autodeco.h>`, from `cpp_ext/include/autodeco.h`.", "", *_text(opening), ""]
    rest = rest[: rest.rindex("#ifdef __cplusplus")]
    first, *parts = SECTION.split(rest)
    for title, part in zip(["Version", *parts[::2]], [first, *parts[1::2]], strict=True):
        lines += [f"## {title}", ""]
        for block in re.split(r"\n(?:[ \t]*\n)+(?=\S)", part.strip()):
            comment, code = _apart(block)
            if title == "Version" and not code.startswith("#define AUTODECO_VERSION"):
                continue  # what every header begins with
            if not code:
                lines += [*_text(comment), ""]
                continue
            if (names := _names(code)) and title != "Version":
                lines += ["### " + ", ".join(f"`{name}`" for name in names), ""]
            lines += [*_text(comment), "", "```c", code, "```", ""]
    return "\n".join(lines)


def _apart(block: str) -> tuple[str, str]:
    lines = block.split("\n")
    n = next((i for i, line in enumerate(lines) if not line.startswith("//")), len(lines))
    return "\n".join(lines[:n]), "\n".join(lines[n:]).strip("\n")


def _text(comment: str) -> list[str]:
    return [re.sub(r"^// ?", "", line) for line in comment.strip().split("\n") if line]


def _names(code: str) -> list[str]:
    """Return what ``code`` declares: functions, else the structures, enumerations or macros that it begins."""
    functions = re.findall(r"^AUTODECO_API .*?\b(autodeco_\w+)\s*\(", code, re.MULTILINE)
    return functions or re.findall(r"^(?:struct|enum|#define) (\w+)", code, re.MULTILINE)
