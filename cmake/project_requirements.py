"""Print what pyproject.toml requires, one requirement a line, for pip.

python cmake/project_requirements.py          to build, run, train and test
python cmake/project_requirements.py --all    for every check and the site too
"""

import sys
import tomllib
from pathlib import Path

pyproject = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
everything = sys.argv[1:] == ["--all"]
extras = pyproject["project"]["optional-dependencies"]
requirements = [
    *pyproject["build-system"]["requires"],
    *pyproject["project"]["dependencies"],
    *(each for name, extra in extras.items() if everything or name != "docs" for each in extra),
    *(pyproject["dependency-groups"]["kernels"] if everything else ()),
]
print("\n".join(dict.fromkeys(each for each in requirements if not each.startswith("autodeco"))))
