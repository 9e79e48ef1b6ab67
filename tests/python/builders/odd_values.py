"""Values, texts and files of settings that nobody means to give."""

import decimal
import fractions
import math
from pathlib import Path

import numpy as np


def deep(levels: int):
    """Lists in lists, each of which is there nine times."""
    value = ["lol"]
    for _ in range(levels):
        value = [value] * 9
    return value


VALUES = [
    *(math.inf, -math.inf, math.nan, 1e308, -1e308, 1e-320, 0.5, -0.0),
    *(10**400, -(10**400), 10**5000, 2**63, 2**64, -(2**63) - 1, -1, 0, 1),
    *(np.float32("nan"), np.float64("inf"), np.int64(3), np.uint64(2**64 - 1), np.array([1, 2]), np.array(0.5)),
    *(fractions.Fraction(1, 3), decimal.Decimal("NaN"), decimal.Decimal(1), 1j),
    *("", "0.5", "1e400", "nan", "\0", "\ud800", "\udcff", "\x1b[31m", "a\nb", "x" * 100_000, "9" * 5000),
    *(b"", b"1", bytearray(b"x"), memoryview(b"x")),
    *(
        [],
        [[]],
        ["a"],
        [1, "a"],
        [math.nan],
        [10**400],
        deep(12),
        range(10**9),
        (),
        ("",),
        {},
        {"a": 1},
        {1},
        iter("a"),
    ),
    *(None, True, False, Ellipsis, object(), int, len, Path("\udcff"), Path("a\0b"), Path()),
]

YAML = [
    "steps: !!bool maybe",
    "steps: !!int x",
    "steps: !!float x",
    "steps: !!timestamp x",
    "steps: !!binary '***'",
    "steps: !!null x",
    "steps: !!set x",
    "steps: !!omap x",
    "steps: !!pairs [1]",
    "steps: !!python/object/apply:os.system ['true']",
    "steps: !!str [1]",
    "!!map [1]",
    "steps: !unknown 1",
    "steps: *nothing",
    "steps: &a [*a]",
    "&a [*a, *a]",
    "a: &a [lol]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)),
    "learning_rate: &a [x]\n",
    "? [a]\n: b",
    "? {a: b}\n: c",
    "? !!binary aGk=\n: b",
    "1: 2",
    "null: 1",
    ".nan: 1",
    "2020-02-30: 1",
    "steps: 2020-02-30",
    "steps: 99999-01-01 00:00:00",
    "steps: 190:20:30",
    "steps: 0o99",
    "steps: 0x",
    "steps: " + "9" * 5000,
    "9" * 5000 + ": 1",
    "learning_rate: 1e400",
    "learning_rate: .inf",
    "learning_rate: .nan",
    "learning_rate: -.inf",
    "seed: 1.0e+3000",
    "steps: [",
    "steps: {",
    "steps: 'a",
    'steps: "\\ud800"',
    'steps: "\\0"',
    'steps: "\\xzz"',
    "%YAML 9.9\n---\nsteps: 1",
    "%TAG ! tag:x,2000:\n---\nsteps: !x 1",
    "---\nsteps: 1\n---\nsteps: 2",
    "steps: 1\n steps: 2",
    "\tsteps: 1",
    "steps : : 1",
    "[1, 2]",
    "text",
    "1",
    "~",
    "",
    "#",
    "---",
    "[" * 5000,
    "- " * 3000 + "a",
    "a: " * 300,
    "unknown_setting: 1",
    "\x1b[31m: 1",
    '"\\e[31mred": 1',
    "x" * 100_000 + ": 1",
    "<<: 1",
    "<<: [1]",
    "=: 1",
    "steps: =",
]

BYTES = [
    b"\xff\xfe",
    b"\xff\xfes\0t\0e\0p\0s\0:\0 \0x\0",
    b"\xef\xbb\xbfunknown: 1",
    b"steps: \xff",
    b"steps: \x00",
    b"\x00" * 1000,
    b"steps: \xed\xa0\x80",
    b"\x89PNG\r\n\x1a\n",
    b"GGUF\x03\x00\x00\x00",
    b"steps: \x85x",
    b"a: b\r\nc: [\r\n",
    b" " * 10_000_001,
]

NUMBERS = ["nan", "inf", "-inf", "1e400", "-1", "1e30x", "", "9" * 5000, "1e308", str(2**63), str(2**64), "0x10", "-0"]
PATHS = ["", "/", "/dev/null", "/dev/full", "\udcff.gguf", "a" * 300, "a/" * 3000, "no/such", "folder", "text.txt"]
PATHS += ["model.gguf/x", "\x1b[31m\n", "-"]
TEXTS = ["", "\udcff", "\x1b[31m", "x" * 3000, "\n", "-1", "{{", "%s%n", "\u2028"]
