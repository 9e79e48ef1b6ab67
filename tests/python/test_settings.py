"""Settings are declared once: flags, a YAML file and Python arguments give the same values and the same refusals."""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from autodeco.errors import InputError
from autodeco.settings.given import add_settings, given_settings
from autodeco.settings.options import Options, checked, option


@dataclass(frozen=True)
class Files(Options):
    model: Path = option(None, "the model", positional=True, metavar="MODEL.gguf")
    output: Path | None = option(None, "where to", short="-o")


@dataclass(frozen=True)
class Settings(Options):
    steps: int = option(4, "of the loop", least=1, most=9)
    rate: float = option(0.5, "of learning", least=0.0)
    grid: tuple[float, ...] = option((0.2, 0.4), "to try", least=0.0, most=1.0)
    names: tuple[str, ...] = option((), "to leave out", choices=("one", "two"))
    kind: str = option("a", "of it", choices=("a", "b"))
    seed: int | None = option(None, "(default: a random one)", least=-1, hint="-1 is random")
    whole: bool = option(True, "or a part")
    hidden: int = option(7, "for who reads the code", flag=False)


def given(*arguments):
    parser = argparse.ArgumentParser()
    add_settings(parser, Files, Settings)
    return given_settings(parser.parse_args([str(argument) for argument in arguments]), Files, Settings)


def test_defaults_are_those_of_the_dataclass():
    assert given("m.gguf") == [Files(Path("m.gguf")), Settings()]


FLAGS = ["m.gguf", "-o", "out", "--steps", 5, "--rate", "5e-4", "--grid", 0.1, 1, "--names", "two", "--no-whole"]
YAML = "model: m.gguf\noutput: out\nsteps: 5\nrate: 5e-4\ngrid: [0.1, 1]\nnames: [two]\nwhole: no\n"
BY_HAND = Settings(steps=np.int64(5), rate=5e-4, grid=[0.1, 1], names=["two"], whole=False)


def test_flags_a_file_and_python_give_the_same(tmp_path):
    (tmp_path / "run.yaml").write_text(YAML)
    assert given(*FLAGS) == given("--config", tmp_path / "run.yaml") == [Files("m.gguf", "out"), BY_HAND]


def test_values_have_their_declared_types_whatever_they_were_given_as():
    assert [type(value) for value in (BY_HAND.steps, BY_HAND.grid, *BY_HAND.grid)] == [int, tuple, float, float]
    assert type(Settings(rate=1).rate) is float
    assert type(Files("m.gguf").model) is type(Path())


def test_flags_win_over_the_file(tmp_path):
    (tmp_path / "run.yaml").write_text(YAML)
    files, settings = given("--config", tmp_path / "run.yaml", "--steps", 6, "--seed", -1, "other.gguf")
    assert (files.model, settings.steps, settings.seed, settings.rate) == (Path("other.gguf"), 6, -1, 5e-4)


def test_help_has_the_defaults_and_no_flag_for_what_nobody_asked_for():
    parser = argparse.ArgumentParser()
    add_settings(parser, Files, Settings)
    text = parser.format_help()
    assert "to try (default: 0.2 0.4)" in text
    assert "or a part (default: yes)" in text
    assert "{a,b}" in text
    assert "hidden" not in text
    with pytest.raises(SystemExit):
        given("m.gguf", "--hidden", 8)
    assert Settings(hidden=8).hidden == 8


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, r"^steps 0: must be between 1 and 9$"),
        ({"steps": 10}, "steps 10: must be between 1 and 9"),
        ({"steps": 1.0}, "steps 1.0: must be a whole number"),
        ({"steps": True}, "steps True: must be a whole number"),
        ({"steps": None}, "steps: is missing; give it"),
        ({"rate": -0.1}, "rate -0.1: must be at least 0.0"),
        ({"rate": math.nan}, "rate nan: must be at least 0.0"),
        ({"rate": math.inf}, "rate inf: must be a finite number"),
        ({"rate": "fast"}, "rate 'fast': must be a number"),
        ({"grid": 0.1}, "grid 0.1: must be a list, each a number"),
        ({"grid": "0.1"}, "grid '0.1': must be a list"),
        ({"grid": (0.1, 2)}, "grid 2.0: must be between 0.0 and 1.0"),
        ({"names": ("one", "three")}, "names three: must be one of one, two"),
        ({"kind": "c"}, "kind c: must be one of a, b"),
        ({"seed": -2}, "seed -2: must be at least -1; -1 is random"),
        ({"whole": 1}, "whole 1: must be true or false"),
    ],
)
def test_values_that_make_no_sense_are_refused_by_name(wrong, message):
    with pytest.raises(InputError, match=message):
        Settings(**wrong)


def test_what_must_be_given_is_asked_for():
    with pytest.raises(InputError, match=r"^model: is missing; give it as an argument or in a file"):
        given()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("step: 3\n", "no setting is called step;"),
        ("grid: [a]\n", "grid must be a number, not 'a'"),
        ("- 1\n", "holds no settings"),
        ("steps: [", "not valid YAML"),
        ("model: m\nsteps: 0\n", "steps 0: must be between 1 and 9"),
    ],
)
def test_a_file_of_settings_that_make_no_sense_is_refused(tmp_path, text, message):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        given("--config", tmp_path / "run.yaml", "m.gguf")


def test_a_single_value_is_checked_as_an_option_is():
    assert checked("n", 3, int, 1) == 3
    assert checked("n", None, int | None, 1) is None
    with pytest.raises(InputError, match="n 0: must be at least 1"):
        checked("n", 0, int, 1)
