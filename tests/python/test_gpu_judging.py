"""The lists and the settings by which the heads of benchmarks/gpu are judged are what `autodeco eval` takes."""

import dataclasses

import pytest

from autodeco.commands.eval import Files
from autodeco.data.checkers import check, checker
from autodeco.evaluation.settings import Settings
from autodeco.evaluation.tasks import Task, parse_specs
from autodeco.servers.settings import ServerSettings
from autodeco.settings.machine import Machine, Processes
from autodeco.settings.options import chosen_options
from autodeco.settings.yaml_file import read_config
from builders.gpu_scripts import FOLDER

KINDS = (Files, Settings, Machine, Processes, ServerSettings)


@pytest.fixture
def values(monkeypatch):
    monkeypatch.chdir(FOLDER.parents[1])
    return read_config(FOLDER / "judged.yaml", KINDS)


def test_the_settings_are_those_of_the_figures(values):
    files = chosen_options(Files, values | {"model": "model.gguf"})
    specs = parse_specs(list(files.tasks))
    settings = chosen_options(Settings, values | {"tasks": tuple(specs)})
    assert (settings.test, settings.samples, settings.ks, settings.max_tokens) == (200, 8, (1, 8), 400)
    assert settings.derived == 2
    assert [chosen_options(kind, values) for kind in (Machine, Processes)] == [Machine(7, -1), Processes(2, 1)]
    groups = [spec.group for spec in specs]
    assert groups == ["trained"] * 12 + ["unseen"] * 4


SPECS = parse_specs([str(FOLDER / name) for name in ("reasoning.yaml", "unseen.yaml")])


QUICK = [spec for spec in SPECS if spec.source != "gsm_symbolic"]  # which takes a minute to load


@pytest.mark.parametrize("spec", [pytest.param(spec, id=spec.name) for spec in QUICK])
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
