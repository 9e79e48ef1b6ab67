"""Runs a part of the package without what Python lacks on Windows:

as_on_windows.py import                 import every module, and print how many there are
as_on_windows.py export ARGUMENTS       autodeco-export
as_on_windows.py write PATH             begin to write PATH, print the unfinished file, and wait for the input's end
"""

import builtins
import importlib
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
FUNCTIONS = ("copy_file_range", "fchmod", "pathconf", "posix_fadvise", "pread", "preadv", "pwrite")

_import = builtins.__import__


def _import_on_windows(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "")
    if name in MODULES and importer.split(".")[0] == "autodeco":
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return _import(name, globals, locals, fromlist, level)


def modules() -> list[str]:
    """The names of all modules, from the tree: a package finds its folders only where it is installed."""
    found = []
    for folder, package in (("autodeco", "autodeco"), ("export", "autodeco.export")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found.append(".".join((package, *(part for part in parts if part != "__init__"))))
    return [name for name in found if not name.endswith("__main__")]


if __name__ == "__main__":
    builtins.__import__ = _import_on_windows
    for function in FUNCTIONS:
        if hasattr(os, function):
            delattr(os, function)
    if sys.argv[1] == "import":
        for name in modules():
            importlib.import_module(name)
        print(len(modules()))
    elif sys.argv[1] == "export":
        from autodeco.export import cli

        sys.exit(cli.main(sys.argv[2:]))
    else:
        from autodeco.runs.atomic import replacing

        with replacing(sys.argv[2]) as part:
            print(part, flush=True)
            sys.stdin.read()
