"""The lists and the settings by which the heads of benchmarks/gpu are judged are what `autodeco eval` takes."""

import dataclasses
from types import SimpleNamespace

import pytest

from autodeco.commands.eval import Files
from autodeco.data.checkers import check, checker
from autodeco.evaluation import rivals
from autodeco.evaluation.settings import Settings
from autodeco.evaluation.tasks import Task, parse_specs
from autodeco.servers.settings import ServerSettings
from autodeco.settings.machine import Machine, Processes
from autodeco.settings.options import chosen_options
from autodeco.settings.yaml_file import read_config
from builders.gpu_scripts import FOLDER

KINDS = (Files, Settings, Machine, Processes, ServerSettings)


@pytest.fixture
def read(monkeypatch):
    """read(NAME.yaml) -> its values, and settings."""
    monkeypatch.chdir(FOLDER.parents[1])

    def read(name):
        values = read_config(FOLDER / name, KINDS)
        files = chosen_options(Files, values | {"model": "model.gguf"})
        return values, chosen_options(Settings, values | {"tasks": tuple(parse_specs(list(files.tasks)))})

    return read


def test_the_settings_are_those_of_the_figures(read):
    values, settings = read("judged.yaml")
    assert (settings.test, settings.samples, settings.ks, settings.max_tokens) == (200, 8, (1, 8), 400)
    assert settings.derived == 2
    assert [chosen_options(kind, values) for kind in (Machine, Processes)] == [Machine(7, -1), Processes(2, 1)]
    groups = [spec.group for spec in settings.tasks]
    assert groups == ["trained"] * 12 + ["unseen"] * 4


def test_every_rule_by_hand_is_a_rival_in_so_many_answers_as_the_file_says(read):
    values, settings = read("rivals.yaml")
    assert [chosen_options(kind, values) for kind in (Machine, Processes)] == [Machine(7, -1), Processes(2, 1)]
    rules = rivals.by_hand(SimpleNamespace(metadata={}), settings.without)
    names = {rule.rule for rule in rules}
    wanted = {
        "min-p",
        "dynamic temperature",
        "top-n-sigma",
        "adaptive-p",
        "llama.cpp's defaults",
        "EDT",
        "greedy-threshold",
    }
    assert names == wanted
    assert rivals.number_of_heads(settings.without) == 0
    static, sets = 1 + len(settings.temperatures) * len(settings.top_ps), 2
    asked = len(rules) + static + sets
    answers = len(settings.tasks) * (settings.test * (asked + sets) + settings.validation * asked)
    text = (FOLDER / "rivals.yaml").read_text()
    assert f"{len(rules)} settings of rules, {static} static ones" in text
    assert f"{answers:,} answers" in text.replace("\n# ", " ")


SPECS = parse_specs([str(FOLDER / name) for name in ("reasoning.yaml", "unseen.yaml")])


@pytest.mark.parametrize("spec", [pytest.param(spec, id=spec.name) for spec in SPECS])
def test_the_checker_reads_the_answers_of_every_family(spec):
    pytest.importorskip("reasoning_gym")
    for problem in Task(spec, 0, test=4).test:
        right = str(problem["answer"])
        assert check(checker(spec.checker), problem, f"7, so it is {right}.") == 1
        assert check(checker(spec.checker), problem, f"{right}, so it is {right}1.") == 0


def test_the_problems_are_those_that_are_written_for_training_and_testing():
    """problems.py writes the same tasks without validation problems and with problems to train on."""
    pytest.importorskip("reasoning_gym")
    spec = SPECS[-1]
    judged = Task(spec, 5, test=6, validation=3)
    written = Task(dataclasses.replace(spec, checker=""), 5, test=6, training=9)
    assert judged.test == written.test
