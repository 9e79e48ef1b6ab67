"""benchmarks/gpu/judged_table.py writes what judge.py found as tables."""

import json
import subprocess
import sys

import pytest

from builders.gpu_scripts import FOLDER, load

SCRIPT = FOLDER / "judged_table.py"
judged_table = load("judged_table")

OWN = {"fixed at the mean": 2.0, "fixed at the mean of 1/T": 2.5, "shuffled": 3.0}


def figures(test, unseen, **more):
    """Of a way with (pass@1, pass@8) in each group, without pass@8 where there is one answer."""
    groups = {
        group: {**dict(zip(("pass@1", "pass@8"), rates, strict=False)), "families": {"sums": {"pass@1": 1.0}}}
        for group, rates in (("test", test), ("unseen", unseen))
    }
    return groups | {"seconds": 10.0, "tokens": 123456, "tokens_per_second": 12346, "finished": 0.98} | more


def apart(test, unseen):
    return {"test": {name: [d, d - 1, d + 0.96] for name, d in test.items()}} | {
        "unseen": {name: [d, d - 1, d + 0.96] for name, d in unseen.items()}
    }


JUDGED = {
    "seconds": 100.0,
    "settings": {},
    "figures": {
        "single": figures((20.14, 40.0), (18.1, 33.0), temperature=0.081, top_p=0.914),
        "greedy": figures((18.31,), (18.0,)),
        "T 0.1, P 1": figures((19.0, 30.06), (17.0, 30.0)),
        "T 0.6, P 0.95": figures((15.4, 45.2), (12.1, 40.8)),
        "min-p 0.1": figures((99.0, 99.0), (99.0, 99.0)),
        **{f"single, {own}": figures((18.0, 39.0), (17.0, 32.0)) for own in OWN},
    },
    "differences": {
        "single": {
            "greedy": apart({"pass@1": 1.83}, {"pass@1": 0.1}),
            "T 0.1, P 1": apart({"pass@1": 1.14, "pass@8": 9.94}, {"pass@1": 1.1, "pass@8": 3.0}),
            "T 0.6, P 0.95": apart({"pass@1": 4.74, "pass@8": -5.2}, {"pass@1": 6.0, "pass@8": -7.8}),
            "min-p 0.1": apart({"pass@1": -79.0}, {"pass@1": -80.0}),
            **{f"single, {own}": apart({"pass@1": by, "pass@8": 1}, {"pass@1": 1.1}) for own, by in OWN.items()},
        }
    },
}


def test_every_figure_has_its_place():
    ways, *others = judged_table.tables(JUDGED).split("\n\n")
    assert ways.splitlines()[:5] == [
        "| in % | trained families: pass@1 / pass@8 | unseen families: pass@1 / pass@8 "
        "| tokens | tokens/s | mean T, P |",
        "| --- | --- | --- | --- | --- | --- |",
        "| **single** | 20.1 / 40.0 | 18.1 / 33.0 | 123,456 | 12,346 | 0.08, 0.91 |",
        "| greedy | 18.3 | 18.0 | 123,456 | 12,346 |  |",
        "| T 0.1, P 1 | 19.0 / 30.1 | 17.0 / 30.0 | 123,456 | 12,346 |  |",
    ]
    own = " | ".join(OWN)
    assert [table.splitlines()[::2] for table in others] == [
        [
            f"| trained families, pass@1: heads over | greedy | best static setting here: T 0.1, P 1 | {own} |",
            "| **single** | +1.8 (0.8 to 2.8) | +1.1 (0.1 to 2.1) | +2.0 (1.0 to 3.0) | +2.5 (1.5 to 3.5) "
            "| +3.0 (2.0 to 4.0) |",
        ],
        [
            f"| trained families, pass@8: heads over | greedy | best static setting here: T 0.6, P 0.95 | {own} |",
            "| **single** |  | -5.2 (-6.2 to -4.2) | +1.0 (0.0 to 2.0) | +1.0 (0.0 to 2.0) | +1.0 (0.0 to 2.0) |",
        ],
        [
            f"| unseen families, pass@1: heads over | greedy | best static setting here: greedy | {own} |",
            "| **single** | +0.1 (-0.9 to 1.1) | +0.1 (-0.9 to 1.1) | +1.1 (0.1 to 2.1) | +1.1 (0.1 to 2.1) "
            "| +1.1 (0.1 to 2.1) |",
        ],
        [
            f"| unseen families, pass@8: heads over | greedy | best static setting here: T 0.6, P 0.95 | {own} |",
            "| **single** |  | -7.8 (-8.8 to -6.8) |  |  |  |",
        ],
    ]


def test_a_rule_is_no_static_setting_and_a_run_without_heads_has_one_table():
    assert judged_table.best_static(JUDGED["figures"], "unseen", "pass@1") == "greedy"
    assert judged_table.tables(JUDGED | {"differences": {}}).count("\n\n") == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "cannot be read (No such file"), ("{", "is not what judge.py writes"), ("[]", "is not what"), ("{}", "is")],
)
def test_another_file_is_told_in_one_line(tmp_path, text, said):
    file = tmp_path / "judged.json"
    if text is not None:
        file.write_text(text)
    done = subprocess.run([sys.executable, SCRIPT, file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{file}: {said}" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_tables_are_printed(tmp_path):
    file = tmp_path / "judged.json"
    file.write_text(json.dumps(JUDGED))
    done = subprocess.run([sys.executable, SCRIPT, file], capture_output=True, text=True, check=True)
    assert done.stdout == judged_table.tables(JUDGED) + "\n"
