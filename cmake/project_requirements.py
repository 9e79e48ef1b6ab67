"""Print what pyproject.toml requires to build, run and develop, one requirement a line, for pip."""

import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
extras = project["project"]["optional-dependencies"]
requirements = [
    *project["build-system"]["requires"],
    *project["project"]["dependencies"],
    *(requirement for extra in extras.values() for requirement in extra if not requirement.startswith("autodeco")),
]
print("\n".join(dict.fromkeys(requirements)))
