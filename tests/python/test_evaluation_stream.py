"""The answers to all tasks are drawn as one stream, and are those of each task and method by itself."""

import json
import time
from types import SimpleNamespace

import pytest

from autodeco import batch, cli
from autodeco.batch import shared
from autodeco.batch.shared_context import StateContext
from autodeco.evaluation import stream
from autodeco.evaluation.drawing import Here
from autodeco.evaluation.folders import describe
from autodeco.evaluation.methods import AUTODECO
from autodeco.evaluation.running import Runner
from autodeco.evaluation.settings import Settings
from autodeco.evaluation.stream import Clock, OpenLogs, Stream
from autodeco.evaluation.tasks import Task, TaskSpec, TrainedOn
from autodeco.llama.opening import open_llama
from builders.commands import refused
from builders.random_heads import write_random_heads
from builders.word_models import write_llama

NOTED = "validation", AUTODECO.name  # whose distributions choose settings of rules
SLOTS, SAMPLES, MOST, SEED = 6, 3, 14, 7
WORDS = {"one": "Hello once upon a time there", "two": "she had a big dog who", "three": "upon time big who dog she"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, two sets of heads, three files of problems."""
    folder = tmp_path_factory.mktemp("stream")
    model = write_llama(folder / "words.gguf")
    for seed, name in enumerate(("cold", "warm"), start=1):
        write_random_heads(folder / f"{name}.gguf", model, seed)
    for name, words in WORDS.items():
        rows = [{"prompt": f"{word} {name} {i}", "answer": "x"} for i, word in enumerate(words.split())]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def run(folder, tmp_path):
    """The runner of all three tasks with both sets of heads, and its tasks."""
    specs = tuple(TaskSpec(name, str(folder / f"{name}.jsonl")) for name in WORDS)
    settings = Settings(
        specs, validation=2, test=4, samples=SAMPLES, derived_samples=2, ks=(1,), max_tokens=MOST, temperatures=(0.5,),
        top_ps=(0.9,), slots=SLOTS, seed=SEED, stop=("o",), without=("vendor", "stock-defaults", "dynatemp", "phases"),
    )  # fmt: skip
    sets = {name: folder / f"{name}.gguf" for name in ("cold", "warm")}
    llm = open_llama(folder / "words.gguf", sets["cold"], n_ctx=256, n_threads=1, n_threads_batch=1)
    source = Here(llm, SLOTS, "cold", {"warm": sets["warm"]})
    description = describe(settings, folder / "words.gguf", sets, TrainedOn())
    runner = Runner(llm, settings, tmp_path / "answers", description, source)
    tasks = [Task(spec, SEED, 4, 2) for spec in specs]
    yield SimpleNamespace(runner=runner, tasks=tasks, llm=llm, source=source, settings=settings)
    llm.close()


def by_itself(run, method, problems, samples):
    """The answers of one method to the problems of one task, asked alone."""
    prompts = [problem["prompt"] for problem in problems]
    wanted = batch.requests(run.llm, prompts, samples, method.sampling, MOST, "o", SEED)
    heads = run.source.heads[method.of] if method.sampling.heads != "none" else None
    return {(a.prompt, a.sample): a for a in shared.answer(run.llm, wanted, heads, SLOTS)}


def test_answers_are_those_of_each_task_and_method_alone_token_for_token(run, monkeypatch):
    monkeypatch.setattr(stream, "OPEN_LOGS", 2)
    compared, texts = 0, set()
    for of_task in run.runner.run(run.tasks):
        for split, passes in (("validation", of_task.validation), ("test", of_task.test)):
            problems = getattr(of_task.task, split)
            for answers in passes.values():
                method = answers.method
                samples = 1 if method.is_greedy else 2 if method.from_heads else SAMPLES
                alone = by_itself(run, method, problems, samples)
                assert [(row["problem"], row["sample"]) for row in answers.rows] == sorted(alone)
                for row in answers.rows:
                    one = alone[row["problem"], row["sample"]]
                    assert (row["text"], row["tokens"], row["finish"]) == (one.text, len(one.decoding), one.finish)
                    assert len(row.get("entropy", [])) == (row["tokens"] if (split, method.name) == NOTED else 0)
                    if "ids" in row:
                        assert row["ids"] == one.decoding.token.tolist()
                    if "temperature" in row:
                        assert row["temperature"] == pytest.approx(one.decoding.temperature.tolist(), abs=2e-4)
                    compared += 1
                    texts.add(row["text"])
    assert compared > 1000
    assert len(texts) > 300, "the answers are too alike to test anything"


def test_no_slot_waits_for_the_end_of_a_task(run, monkeypatch):
    """But for the last answers, and the first ones, of which it is not known how much they share."""
    steps, states = [], StateContext.states
    monkeypatch.setattr(StateContext, "states", lambda c, s, t: steps.append(len(s)) or states(c, s, t))
    made, init = [], StateContext.__init__
    monkeypatch.setattr(StateContext, "__init__", lambda c, *given: made.append(len(steps)) or init(c, *given))
    run.runner.run(run.tasks)
    assert len(made) == 2, "validation and test are a stream each"
    for stream_steps in (steps[: made[1]], steps[made[1] :]):
        middle = stream_steps[MOST : -2 * MOST]
        assert len(middle) > 10 * MOST, "this tests nothing"
        idle = 1 - sum(middle) / (SLOTS * len(middle))
        assert idle < 0.01


def test_a_run_that_is_cut_off_reports_the_tasks_that_are_whole_and_goes_on(folder, tmp_path, monkeypatch, capsys):
    given = [folder / "words.gguf", "--heads", folder / "cold.gguf", "--tasks"]
    given += [folder / f"{name}.jsonl" for name in WORDS]
    given += [
        "--test",
        4,
        "--validation",
        2,
        "--samples",
        2,
        "--ks",
        1,
        "--context",
        256,
        "--max-tokens",
        8,
        "--slots",
        4,
    ]
    given += ["--temperatures", 0.5, "--top-ps", 0.9, "--threads", 1, "--without", "rivals", "-o", tmp_path]

    def answers(name):
        files = tmp_path.glob(f"answers/{name}-*/test.*.jsonl")
        return sum("seconds" not in json.loads(line) for file in files for line in file.read_text().splitlines())

    def evaluate(*others):
        assert cli.main([str(one) for one in ("eval", *given, *others)]) == 0
        (file,) = tmp_path.glob("*/report.json")
        return json.loads(file.read_text()), capsys.readouterr().out, file

    wanted = 4 * (1 + 2 * 6)
    with monkeypatch.context() as cut:
        cut.setattr(Stream, "is_over", property(lambda _: True))
        said = refused("eval", *given, "--time", "9m")
        assert "no task is whole after 9m: nothing to report; the same command goes on" in said
        cut.setattr(Stream, "is_over", property(lambda _: answers("one") == wanted))
        found, out, file = evaluate("--time", "9m")
    assert "not whole after 9m, and left out: two, three; the same command goes on" in out
    assert [task["task"] for task in found["tasks"]] == ["one"]
    assert found["unfinished"] == ["two", "three"]
    for page in ("report.md", "report.html"):
        assert "Not whole yet, and left out: two, three." in (file.parent / page).read_text()
    before = {name: answers(name) for name in WORDS}
    assert before["one"] == wanted > before["three"]
    whole, out, file = evaluate()
    assert "left out" not in out
    assert "left out" not in (file.parent / "report.md").read_text()
    assert [task["task"] for task in whole["tasks"]] == list(WORDS)
    assert whole["tasks"][0] == found["tasks"][0], "what was whole is drawn again"
    assert {name: answers(name) for name in WORDS} == dict.fromkeys(WORDS, wanted)
    assert "time '9x': is no length of time" in refused("eval", *given, "--time", "9x")


def test_time_is_shared_by_the_tokens_of_answers_that_came_meanwhile(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = Clock()
    clock.count("a", 30)
    clock.count("b", 10)
    now[0] = 4.0
    assert list(clock.taken(["a"])) == [("a", 3.0)]
    clock.count("b", 1)
    clock.count("c", 1)
    now[0] = 6.0
    assert dict(clock.taken()) == {"b": 2.0, "c": 1.0}
    assert list(clock.taken()) == []


def test_no_more_logs_are_open_than_a_system_lets_a_program_have(monkeypatch):
    monkeypatch.setattr(stream, "OPEN_LOGS", 2)
    events = []

    class Log:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            events.append(f"+{self.name}")

        def __exit__(self, *_):
            events.append(f"-{self.name}")

    a, b, c = map(Log, "abc")
    with OpenLogs() as opened:
        for log in (a, b, a, c, a, b):
            assert opened(log) is log
    assert events == ["+a", "+b", "-b", "+c", "-c", "+b", "-a", "-b"]
