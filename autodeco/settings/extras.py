"""Which extra of autodeco brings a package that is missing, as the metadata of autodeco say."""

import importlib.metadata
import re
import sys
from collections.abc import Sequence

# Packages whose module has another name than they.
_PACKAGES = {"google.protobuf": "protobuf"}
_REQUIREMENT = re.compile(r"""([\w.-]+).*?;.*\bextra == ['"]([\w-]+)['"]""")


def missing_package(module: str, argv: Sequence[str] | None = None) -> str | None:
    """One line that names the missing ``module`` and what to install; None if it is in no extra.

    ``argv`` is the command line (default: the process arguments): where several extras bring the package, the line
    names the extra with the verb's name, else the first.
    """
    extras = extras_with(module)
    if not extras:
        return None
    verb = next(iter(sys.argv[1:] if argv is None else argv), None)
    return f"this needs the package {module}: pip install 'autodeco[{verb if verb in extras else extras[0]}]'"


def extras_with(module: str) -> list[str]:
    """The extras that bring the package of ``module``, in the order of pyproject.toml; not those for developing."""
    wanted = _normalized(_PACKAGES.get(module, module))
    found = map(_REQUIREMENT.match, importlib.metadata.requires("autodeco") or ())
    return [match[2] for match in found if match and _normalized(match[1]) == wanted and match[2] != "dev"]


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()  # as packaging.python.org has it
