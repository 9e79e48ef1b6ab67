"""Evaluation: methods and their results, interruption, the report."""

import functools
import json
import math
from types import SimpleNamespace
from typing import ClassVar

import llama_cpp
import pytest

from autodeco.batch import Sampling
from autodeco.data.scoring import Scorer
from autodeco.errors import InputError
from autodeco.evaluation import methods, stream
from autodeco.evaluation.folders import claim, describe
from autodeco.evaluation.methods import AUTODECO, GREEDY, Method, mean_shift, static
from autodeco.evaluation.results import ONE_FOR_ALL, rates, together
from autodeco.evaluation.running import Pass, Runner, TaskPasses, mean_of
from autodeco.evaluation.settings import Settings
from autodeco.evaluation.tasks import Task, TaskSpec, TrainedOn

SUMS = TaskSpec("sums", "chain_sum", {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1})


METHODS = [
    "greedy",
    "default, T 1 P 1",
    "T 0.5 P 0.9",
    "AutoDeco",
    "temperature head alone",
    "top-p head alone",
    "mean shift",
]


def rows_of(right, samples):
    return [
        {"problem": i, "sample": s, "right": s < c, "tokens": 2, "temperature": [0.5, 1.0], "top_p": [0.25, 0.75]}
        for i, c in enumerate(right)
        for s in range(samples)
    ]


def test_rates_are_by_problem_and_greedy_answers_count_as_they_are():
    sampled = Pass(static(0.5, 0.9), rows_of([0, 2, 4], 4), 1.0)
    assert rates(sampled, 3, 1).tolist() == [0.0, 0.5, 1.0]
    assert rates(sampled, 3, 2)[1] == pytest.approx(1 - math.comb(2, 2) / math.comb(4, 2))
    assert rates(Pass(GREEDY, rows_of([0, 1], 1), 1.0), 2, 1).tolist() == [0.0, 1.0]
    assert mean_of(sampled) == (0.75, 0.5)
    assert mean_shift(*mean_of(sampled)).sampling == Sampling(0.75, 0.5, heads="none")


def test_tasks_together_are_all_problems_with_each_tasks_own_rival():
    static_one, n = static(0.5, 0.9), 2
    passes = [
        TaskPasses(
            None,
            {method.name: Pass(method, [], 0.0) for method in (GREEDY, static_one, AUTODECO)},
            {
                AUTODECO.name: Pass(AUTODECO, rows_of(ours, n), 0.0),
                static_one.name: Pass(static_one, rows_of(theirs, n), 0.0),
                GREEDY.name: Pass(GREEDY, rows_of(greedy, 1), 0.0),
            },
        )
        for ours, theirs, greedy in (([2, 1], [0, 2], [1, 0]), ([0, 2], [1, 1], [0, 0]))
    ]
    best = [{"greedy": {"method": "greedy"}, "best": {"method": name}} for name in ("greedy", static_one.name)]
    tasks, settings = [{"against": against} for against in best], SimpleNamespace(test=2, seed=0)
    found = together(passes, tasks, settings)
    assert (found["problems"], found["pass_at_1"]["value"]) == (4, 0.625)
    differences = {rival: d["difference"] for rival, d in found["against"].items()}
    assert differences == {"greedy": 0.375, "best": 0.125, ONE_FOR_ALL: 0.125}
    assert found["against"][ONE_FOR_ALL]["methods"] == [static_one.name] * 2
    assert together(passes[:1], tasks[:1], settings) is None


def test_the_vendors_setting_is_read_from_the_model():
    class Model:
        model_path = "model.gguf"
        metadata: ClassVar = {
            "general.sampling.temp": "0.600000",
            "general.sampling.top_k": "20",
            "general.sampling.top_p": "0.95",
        }

    assert methods.vendor(Model()) == Method("vendor", Sampling(0.6, 0.95, 20, 0.0, "none"))
    Model.metadata = {}
    assert methods.vendor(Model()) is None
    Model.metadata = {"general.sampling.temp": "warm"}
    with pytest.raises(InputError, match="are no numbers"):
        methods.vendor(Model())
    Model.metadata = {"general.sampling.penalty_repeat": "1.1", "general.sampling.mirostat": "0"}
    assert methods.vendor(Model()) is None
    assert methods.not_measured(Model()) == ["penalty_repeat 1.1"]


def test_settings_that_make_no_sense_are_refused():
    for wrong, message in (
        ({"samples": 0}, "samples 0"),
        ({"samples": 4, "ks": (1, 8)}, "pass@8 needs k from 1 to the 4 samples"),
        ({"ks": (4,)}, "keep 1 among the k"),
        ({"temperatures": ()}, "at least one temperature"),
        ({"temperatures": (float("nan"),)}, "temperatures nan: must be at least 0.0"),
        ({"top_ps": (0.9, 1.5)}, "top-ps 1.5: must be between 0.0 and 1.0"),
        ({"top_ps": (0.9, 0)}, "top-p 0 of the grid keeps no token"),
        ({"seed": -1}, "seed -1: must be at least 0"),
        ({"without": ("greedy",)}, "without greedy: must be one of default, vendor, temperature-head, top-p-head"),
    ):
        with pytest.raises(InputError, match=message):
            Settings(tasks=(SUMS,), **wrong)
    with pytest.raises(InputError, match="no task"):
        Settings(tasks=())


@pytest.mark.parametrize(("samples", "ks"), [(16, (1, 4, 16)), (8, (1, 4)), (3, (1,)), (1, (1,)), (100, (1, 4, 16))])
def test_the_usual_k_go_as_far_as_the_samples(samples, ks):
    assert Settings(tasks=(SUMS,), samples=samples).ks == ks


def test_other_settings_get_another_folder(tmp_path):
    first = claim(tmp_path, {"seed": 0})
    assert claim(tmp_path, {"seed": 0}) == first
    assert claim(tmp_path, {"seed": 1}) != first
    (first / "settings.json").write_text("{}")
    with pytest.raises(InputError, match="was changed by hand"):
        claim(tmp_path, {"seed": 0})


def test_a_recommended_top_k_is_asked_too_and_all_methods_give_their_own_answers(llm, smollm2, tmp_path, monkeypatch):
    """Methods are told apart though they are asked together; the recommended one in batches of its own, which have no
    more sequences than llama.cpp has."""
    monkeypatch.setattr(llama_cpp, "llama_max_parallel_sequences", lambda: 3)
    recommended = Method("vendor", Sampling(1.5, top_k=1, heads="none"))
    monkeypatch.setattr(methods, "vendor", lambda llm: recommended)
    settings = Settings(
        (SUMS,),
        validation=1,
        test=2,
        samples=2,
        ks=(1,),
        max_tokens=10,
        temperatures=(1.5,),
        top_ps=(1.0,),
        slots=8,
        without=("rivals",),
    )
    description = describe(settings, smollm2, None, TrainedOn())
    task = Task(SUMS, 0, 2, 1)
    (passes,) = Runner(llm, settings, tmp_path, description).run([task])
    texts = {name: [row["text"] for row in answers.rows] for name, answers in passes.test.items()}
    assert set(texts) == {name for name in METHODS if name != "T 0.5 P 0.9"} | {"vendor", "T 1.5 P 1"}
    assert [len(found) for found in texts.values()] == [2, *[4] * (len(texts) - 1)]
    assert texts["vendor"] == [text for text in texts["greedy"] for _ in range(2)], "top-k 1 is greedy"
    assert len(set(texts["T 1.5 P 1"])) > 1
    rows = passes.test["AutoDeco"].rows
    assert all(len(row["temperature"]) == row["tokens"] for row in rows)
    assert len({t for row in rows for t in row["temperature"]}) > 3
    assert all("temperature" not in row for row in passes.test["vendor"].rows)
    assert [(row["problem"], row["sample"]) for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def hangs(problem, text):  # named by python:test_evaluation:hangs
    while problem["answer"] == "hang":
        pass
    return 1.0


def test_an_answer_whose_scoring_hangs_is_given_up_and_counted(llm, smollm2, tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "Scorer", functools.partial(Scorer, seconds=1.0))
    ask = "State the final answer to the following arithmetic problem: {} + 4 ="
    prompts = [[{"role": "user", "content": ask.format(i)}] for i in range(3)]
    problems = [{"prompt": prompt, "answer": "go"} for prompt in prompts]
    problems[1]["answer"] = "hang"
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(problem) + "\n" for problem in problems))
    spec = TaskSpec("asked", str(tmp_path / "asked.jsonl"), checker="python:test_evaluation:hangs")
    settings = Settings(
        (spec,), validation=1, test=2, samples=1, ks=(1,), max_tokens=48, temperatures=(0.2,), top_ps=(1.0,), slots=8,
        without=("default", "temperature-head", "top-p-head", "vendor", "rivals"),
    )  # fmt: skip
    runner = Runner(llm, settings, tmp_path, describe(settings, smollm2, None, TrainedOn()))
    task = Task(spec, 0, 2, 1)
    (passes,) = runner.run([task])
    greedy = [*passes.validation["greedy"].rows, *passes.test["greedy"].rows]
    assert all(row["finish"] != "length" for row in greedy)
    right = [row["right"] for row in greedy]
    assert right == [problem["answer"] == "go" for problem in [*task.validation, *task.test]]
    assert runner.given_up >= 1
