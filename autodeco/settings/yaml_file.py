"""Settings in a YAML file, under the names of the flags."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autodeco.errors import InputError
from autodeco.settings.options import bare, declared, kind_of_one, said

MOST_BYTES = 10_000_000


def read_yaml(path: Path, expected: str) -> Any:
    """Return what the YAML file at ``path`` holds; raises InputError, which ends with what is ``expected``, for a file
    that cannot be read or is not valid YAML in UTF-8."""
    import yaml

    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise InputError(f"{path}: larger than any file of settings; {expected}")
        return yaml.safe_load(text.decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {expected}") from None
    except RecursionError:
        raise InputError(f"{path}: not valid YAML (nested too deep); {expected}") from None
    # PyYAML looks up a value that is given a tag (`!!bool maybe`) without a check
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(f"{path}: not valid YAML ({error}); {expected}") from None


def read_config(path: Path, options: Sequence[type], paths: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the settings in the YAML file at ``path`` by field name, those in ``paths`` as Path.

    Names may be written as the flags are, with hyphens. Raises InputError for a missing or damaged file and for names
    that are neither options of the dataclasses ``options`` nor in ``paths``; the values are the dataclasses' to check.
    """
    values = read_yaml(path, "write one `name: value` a line")
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds no settings; write one `name: value` a line")
    values = {bare(name).replace("-", "_"): value for name, value in values.items()}
    known = {name: kind_of_one(kind) for one in options for name, kind, _ in declared(one)}
    unknown = sorted(values.keys() - known.keys() - set(paths))
    if unknown:
        raise InputError(f"{path}: no setting is called {', '.join(unknown)}; the command's --help lists them all")
    for name, value in values.items():
        if name in paths and not isinstance(value, str):
            raise InputError(f"{path}: {name} must be a path, not {said(value)}")
        if known.get(name) is float:  # YAML reads 5e-4, which has no dot, as text
            numbers = [_number(path, name, one) for one in (value if isinstance(value, list) else [value])]
            values[name] = numbers if isinstance(value, list) else numbers[0]
    return {name: Path(value) if name in paths else value for name, value in values.items()}


def _number(path: Path, name: str, value):
    """``value``, as a number if it is text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        raise InputError(f"{path}: {name} must be a number, not {said(value)}") from None
