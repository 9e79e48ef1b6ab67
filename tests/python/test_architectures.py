"""Heads with every architecture of llama.cpp: its own generator makes a tiny random model of each."""

import pytest

from autodeco.export.language_models import REFUSED
from builders import architectures


@pytest.fixture(scope="module")
def results():
    return architectures.sweep()


@pytest.mark.slow
def test_values_in_the_graph_are_those_of_the_states_in_every_way_of_running(results):
    assert len(results) > 120
    found = {
        model: wrong for model, one in results.items() if "refused" not in one and (wrong := architectures.wrong(one))
    }
    assert found == {}


@pytest.mark.slow
def test_what_is_refused_is_what_the_table_of_refusals_names(results):
    refused = {architectures.architecture(model) for model, one in results.items() if "refused" in one}
    assert refused == set(REFUSED) & {architectures.architecture(model) for model in results}
    assert {"dream", "cogvlm"} <= refused


@pytest.mark.slow
def test_the_document_has_the_table_of_this_run(results):
    assert architectures.written_table() == architectures.table(results)


def test_the_document_names_everything_that_is_refused():
    lines = architectures.written_table().splitlines()
    for name, what in REFUSED.items():
        (line,) = [line for line in lines if f"`{name}`" in line]
        assert line.startswith(f"| refused: {what} |")


def test_a_model_that_goes_wrong_in_one_way_is_not_said_to_work():
    good = {"model": "a", "distances": dict.fromkeys(architectures.WAYS, 1e-4)}
    assert architectures.wrong(good) == {}
    far = good | {"distances": good["distances"] | {"batch": 2e-3}}
    assert architectures.wrong(far) == {"batch": 2e-3}
    assert architectures.wrong(good | {"distances": good["distances"] | {"host": float("nan")}}).keys() == {"host"}
    assert architectures.wrong({"model": "a", "distances": {}}).keys() == set(architectures.WAYS)
