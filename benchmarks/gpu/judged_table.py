"""Tables in Markdown of what judge.py found: python benchmarks/gpu/judged_table.py OUT/judged.json

The first has every way's right answers in %, by group, and what it cost. One for each group and pass@k follows: the
differences of heads, in points with 95% intervals, to greedy decoding, to the static setting that is best in that very
table's group (an oracle: nobody knows it before), to the heads' own means, and to their pairs shuffled over tokens.
"""

import argparse
import json
import re
from pathlib import Path

STATIC = re.compile(r"greedy|T [\d.]+, P [\d.]+")  # a setting's name
TITLES = {"test": "trained families", "unseen": "unseen families"}  # of the files that problems.py writes
OWN = ("fixed at the mean", "fixed at the mean of 1/T", "shuffled")  # what judge.py makes of heads


def tables(judged: dict) -> str:
    """Return the tables of a ``judged.json`` as Markdown; raises KeyError for what is none."""
    figures, differences = judged["figures"], judged["differences"]
    first = next(iter(figures.values()))
    groups = [name for name, value in first.items() if isinstance(value, dict)]
    passes = list(dict.fromkeys(key for each in figures.values() for key in each[groups[0]] if key.startswith("pass@")))
    parts = [_figures(figures, set(differences), groups, passes)]
    if differences:
        parts += [_differences(figures, differences, group, key) for group in groups for key in passes]
    return "\n\n".join(parts)


def _figures(figures: dict, heads: set[str], groups: list[str], passes: list[str]) -> str:
    titles = [f"{_title(group)}: {' / '.join(passes)}" for group in groups]
    rows = []
    for name, each in figures.items():
        rates = [" / ".join(f"{each[group][key]:.1f}" for key in passes if key in each[group]) for group in groups]
        picked = f"{each['temperature']:.2f}, {each['top_p']:.2f}" if name in heads else ""
        shown = f"**{name}**" if name in heads else name
        rows.append([shown, *rates, f"{each['tokens']:,}", f"{each['tokens_per_second']:,}", picked])
    return _table(["in %", *titles, "tokens", "tokens/s", "mean T, P"], rows)


def _differences(figures: dict, differences: dict, group: str, key: str) -> str:
    best = best_static(figures, group, key)
    names = ["greedy", best, *OWN]
    columns = ["greedy", f"best static setting here: {best}" if best else "best static setting", *OWN]
    rows = []
    for name, others in differences.items():
        rivals = [*names[:2], *(f"{name}, {own}" for own in OWN)]
        found = [others.get(rival, {}).get(group, {}).get(key) for rival in rivals]
        rows.append([f"**{name}**", *("" if each is None else difference(*each) for each in found)])
    return _table([f"{_title(group)}, {key}: heads over", *columns], rows)


def best_static(figures: dict, group: str, key: str) -> str | None:
    """Return the name of the static setting with the most of ``key`` in ``group``; None where none has any."""
    found = {name: each[group][key] for name, each in figures.items() if STATIC.fullmatch(name) and key in each[group]}
    return max(found, key=found.__getitem__) if found else None


def difference(value: float, low: float, high: float) -> str:
    """Return a difference in points with its interval."""
    return f"{value:+.1f} ({low:.1f} to {high:.1f})"


def _title(group: str) -> str:
    return TITLES.get(group, group)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("judged", type=Path, metavar="JUDGED.json")
    file = parser.parse_args().judged
    try:
        print(tables(json.loads(file.read_text(encoding="utf-8"))))
    except OSError as error:
        raise SystemExit(f"{file}: cannot be read ({error.strerror}); give judged.json of judge.py's OUT") from None
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        raise SystemExit(f"{file}: is not what judge.py writes; give judged.json of its OUT") from None


if __name__ == "__main__":
    main()
