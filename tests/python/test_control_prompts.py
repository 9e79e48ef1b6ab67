"""Prompts that commands are given to: how many of which kinds, and what of them training never sees."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from autodeco.data.control import NEUTRAL, REGISTERS, SCALE, Command, commanded, read_commands
from autodeco.data.control_prompts import (
    HELD_OUT_KINDS,
    KINDS,
    MADE_OF,
    MORE_KINDS,
    control_prompts,
    quoting,
    split,
    sums,
)
from autodeco.data.records import Record
from autodeco.errors import InputError

EXAMPLE = Path(__file__).parents[2] / "examples" / "control" / "prompts.py"


def parts(kind, held_out):
    """Templates cut at their gap, and subjects, of one use; a held-out kind has all of its own there."""
    made_of = MADE_OF["kinds"][kind]
    if kind in HELD_OUT_KINDS:
        return (made_of["templates"], made_of["subjects"]) if held_out else ([], [])
    return split(made_of["templates"], held_out), split(made_of["subjects"], held_out)


def test_there_are_1120_prompts_of_twenty_kinds_to_train_with_and_200_of_ten_held_out():
    training, new = control_prompts(False), control_prompts(True)
    assert len({prompt.text for prompt in training}) == len(training) == 1120
    assert len({prompt.text for prompt in new}) == len(new) == 200
    assert len(KINDS) == 10
    assert len(HELD_OUT_KINDS) == 2
    counts = Counter(p.kind for p in training)
    assert set(counts) == {*KINDS, *MORE_KINDS} - {*HELD_OUT_KINDS}
    assert {counts[kind] for kind in counts if kind in KINDS} == {50}
    assert {counts[kind] for kind in MORE_KINDS} == {60}
    counts = Counter(p.kind for p in new)
    assert set(counts) == set(KINDS)
    assert all(counts[kind] >= (40 if kind in HELD_OUT_KINDS else 10) for kind in KINDS)


def test_training_sees_no_held_out_kind_template_or_subject():
    texts = [prompt.text for prompt in control_prompts(False)]
    for kind in KINDS:
        templates, subjects = parts(kind, held_out=True)
        assert len(templates) >= 3
        for subject in subjects:
            assert not any(subject in text for text in texts if len(subject) > 5), subject
        for template in templates:
            before, after = template.split("{}")
            filled = [t for t in texts if t.startswith(before) and t.endswith(after)]
            _, known = parts(kind, held_out=False)
            assert not [t for t in filled if t[len(before) : len(t) - len(after)] in known], template


def test_held_out_prompts_are_made_of_held_out_parts_alone():
    for prompt in control_prompts(True):
        if prompt.kind == "sums":
            continue
        templates, subjects = parts(prompt.kind, held_out=True)
        assert prompt.text in {template.format(subject) for template in templates for subject in subjects}


def test_a_seed_gives_the_same_prompts_and_a_smaller_count_the_first_of_them():
    assert control_prompts(False, 30) == control_prompts(False)[:30]
    assert control_prompts(False, seed=1) != control_prompts(False)


def test_sums_have_their_results_and_differ_between_training_and_measuring():
    training, new = sums(300, False), sums(300, True)
    for prompt in (*training, *new):
        terms = [int(word) for word in prompt.text.replace("?", " ").replace(".", " ").split() if word.isdigit()]
        assert sum(terms) == int(prompt.answer)
    assert not {p.answer for p in training} & {p.answer for p in new}


def test_each_direction_has_114_wordings_in_four_registers_to_train_with_and_17_held_out():
    commands = read_commands(wanted=("low", "high", SCALE, NEUTRAL))
    for direction in ("low", "high"):
        mine = [command for command in commands if command.direction == direction]
        assert {c.register for c in mine} == set(REGISTERS)
        assert {c.register for c in mine if c.held_out} == set(REGISTERS)
        assert [sum(c.held_out == use for c in mine) for use in (False, True)] == [114, 17]
    for direction in (SCALE, NEUTRAL):
        registers = [{c.register for c in commands if c.direction == direction and c.held_out == use} for use in (0, 1)]
        assert registers == [set(REGISTERS)] * 2
    assert {c.direction for c in read_commands()} == {"low", "high"}


def test_a_command_of_the_system_register_stands_in_the_system_message():
    command = Command("low", "Be sure.", False, "system")
    asked = [{"role": "user", "content": "Why?"}]
    assert commanded(Record(1, asked, ""), command).prompt == [{"role": "system", "content": "Be sure."}, *asked]
    told = [{"role": "system", "content": "You help."}, *asked]
    given = commanded(Record(1, told, ""), command).prompt
    assert given == [{"role": "system", "content": "You help. Be sure."}, *asked]


def test_a_quotation_and_its_neutral_twin_differ_in_the_quoted_sentence_alone():
    for held_out in (False, True):
        quoted, neutral = quoting("Be creative.", held_out, np.random.default_rng(0))
        use = "held_out" if held_out else "training"
        documents = [d for d in MADE_OF["quotations"][use] if d.format("Be creative.") == quoted]
        assert len(documents) == 1
        assert neutral in {documents[0].format(sentence) for sentence in MADE_OF["neutral_quotes"][use]}
    assert not set(MADE_OF["quotations"]["training"]) & set(MADE_OF["quotations"]["held_out"])


def test_a_wording_of_the_scale_without_a_place_for_the_degree_is_refused(tmp_path):
    wordings = {"training": ["a {n}"], "held_out": ["b"]}
    (tmp_path / "set.json").write_text(json.dumps({"scale": wordings}))
    with pytest.raises(InputError, match=r"'b' of scale lacks \{n\}, where the degree"):
        read_commands(tmp_path / "set.json", (SCALE,))


@pytest.mark.parametrize(("flags", "count"), [([], 1120), (["--new"], 200), (["7"], 7)])
def test_the_example_prints_them_as_problems(flags, count):
    shown = subprocess.run([sys.executable, EXAMPLE, *flags], capture_output=True, text=True, check=True).stdout
    rows = [json.loads(line) for line in shown.splitlines()]
    assert len(rows) == count
    assert all(row["prompt"][0]["role"] == "user" and row["answer"] == "." for row in rows)
    assert all(("sum" in row) == (row["kind"] == "sums") for row in rows)
