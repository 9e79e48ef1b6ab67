"""What benchmarks/gpu/two_gpus.py takes for right and for wrong, on answers and logs made here."""

import copy
import subprocess
import sys

import pytest

from builders.gpu_scripts import FOLDER, load

SCRIPT = FOLDER / "two_gpus.py"
two_gpus = load("two_gpus")

LOG = """load_tensors:   CPU_Mapped model buffer size =    27.00 MiB
load_tensors:        CUDA0 model buffer size =    59.25 MiB
load_tensors:        CUDA1 model buffer size =     0.00 MiB
load_tensors:        CUDA1 model buffer size =    32.50 MiB
load_tensors:    CUDA_Host model buffer size =     9.00 MiB

## SPLIT #0: CPU # 0 inputs

## SPLIT #1: CPU # 1 inputs: [result_output (192K)]

## SPLIT #0: CPU # 0 inputs

## SPLIT #1: CUDA0 # 2 inputs: [leaf_2 (   0K)] [embd (   2K)]

## SPLIT #2: CUDA1 # 1 inputs: [l_out-14 (   2K)]
"""


def test_a_log_tells_what_each_gpu_holds_and_how_the_last_graph_is_divided():
    assert two_gpus.placed(LOG) == {"mib": {"CUDA0": 59.25, "CUDA1": 32.5}, "splits": ["CPU", "CUDA0", "CUDA1"]}


def test_settings_are_flags_of_the_programs():
    flags = two_gpus.flags({"tensor_split": [0.9, 0.1], "split_mode": "none", "main_gpu": 1})
    assert flags == ["--tensor-split", "0.9,0.1", "--split-mode", "none", "--main-gpu", "1"]


def answers(devices: list[str], rate: float = 200.0) -> dict:
    values = {"token": list(range(64)), "temperature": [0.5] * 64, "top_p": [0.9] * 64}
    found = {name: copy.deepcopy(values) for name in two_gpus.ASKED}
    mib = dict.fromkeys(devices, 50.0)
    return found | {"tokens_per_second": rate, "mib": mib, "splits": ["CPU", *devices]}


ALONE = answers(["CUDA0"], 400.0)


def test_the_same_answers_from_layers_on_both_are_right():
    found = answers(["CUDA0", "CUDA1"])
    found["drawn"]["top_p"][63] += 5e-4
    assert two_gpus.faults("halves", found, ALONE) == []
    assert found["greedy_tokens_the_same"] == found["drawn_tokens_the_same"] == 64
    assert found["drawn_greatest_difference"] == pytest.approx(5e-4)
    assert found["over_one_gpu"] == 0.5
    assert two_gpus.faults("the second alone", answers(["CUDA1"]), ALONE) == []


def change(kind: str, name: str, at: int, value):
    def changed(found: dict) -> None:
        found[kind][name][at] = value

    return changed


WRONG = {
    "a greedy token": (change("greedy", "token", 40, 7), "greedy: token 41 is another one"),
    "a drawn token": (change("drawn", "token", 0, 7), "drawn: token 1 is another one"),
    "a temperature": (change("greedy", "temperature", 3, 0.502), "greedy: T or P differs by 0.002"),
    "no number": (change("drawn", "top_p", 3, float("nan")), "drawn: T or P differs by nan"),
    "a draw on the CPU": (lambda found: found["splits"].append("CPU"), "the CPU has more than the embedding"),
    "a graph that is not told": (lambda found: found["splits"].clear(), "the CPU has more than the embedding"),
    "one GPU for two": (lambda found: found["mib"].pop("CUDA1"), "layers are on CUDA0"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_value_is_a_fault(wrong):
    spoil, told = WRONG[wrong]
    found = answers(["CUDA0", "CUDA1"])
    spoil(found)
    (fault,) = two_gpus.faults("nine tenths and the rest", found, ALONE)
    assert told in fault


def test_the_first_gpu_in_the_place_of_the_second_is_a_fault():
    assert two_gpus.faults("the second alone", answers(["CUDA0"]), ALONE) == ["layers are on CUDA0"]


def test_rows_may_round_otherwise_or_be_refused_in_a_line():
    found = answers(["CUDA0", "CUDA1"])
    found["greedy"]["temperature"][5] += 0.05
    found["greedy"]["token"][6] = 0
    assert two_gpus.faults("rows", found, ALONE) == []
    assert found["greedy_tokens_the_same"] == 6
    assert two_gpus.faults("rows", {"failed": "no split buffers", "lines": 1}, ALONE) == []
    assert two_gpus.faults("rows", {"failed": "no split buffers", "lines": 30}, ALONE)
    assert two_gpus.faults("rows", {"failed": "cannot load", "lines": 1}, ALONE)


def test_tensor_parallelism_must_be_refused_and_layers_must_not():
    assert two_gpus.faults("tensor parallelism", answers(["CUDA0", "CUDA1"]), ALONE) == ["not refused"]
    assert two_gpus.faults("tensor parallelism", {"failed": "x: split_mode", "lines": 1}, ALONE) == []
    assert two_gpus.faults("halves", {"failed": "x: split_mode", "lines": 1}, ALONE)


def test_an_abort_is_told_as_one():
    done = subprocess.run(
        [sys.executable, "-c", "import os, sys; sys.stderr.write('split\\n'); sys.stderr.flush(); os.abort()"],
        capture_output=True,
        text=True,
        check=False,
    )
    found = two_gpus.ended(done)
    assert found["failed"] == "ended by SIGABRT: split"
    assert two_gpus.faults("rows", found, ALONE)


def test_the_result_has_every_way_and_a_fault_is_exit_code_1(tmp_path, monkeypatch, capsys):
    def take(settings: dict, _) -> dict:
        if settings.get("split_mode") in ("row", "tensor"):
            return {"failed": "x: split_mode", "lines": 1}
        second = settings.get("tensor_split") == [0, 1] or settings.get("main_gpu") == 1
        if settings == two_gpus.ALONE:
            return copy.deepcopy(ALONE)
        return answers(["CUDA1"] if second else ["CUDA0", "CUDA1"])

    monkeypatch.setattr(two_gpus, "with_python", take)
    arguments = [str(SCRIPT), str(SCRIPT), "-o", str(tmp_path / "r.json"), "--rpc", "a:1,b:2"]
    assert two_gpus.main(arguments) == 0
    told = capsys.readouterr().out
    assert len(told.splitlines()) == 1 + len(two_gpus.WAYS)
    assert "halves: 64 greedy and 64 drawn tokens the same, T and P to 0.0e+00, 0.50 of the speed of one GPU" in told
    monkeypatch.setattr(two_gpus, "with_python", lambda *_: copy.deepcopy(ALONE))
    assert two_gpus.main(arguments) == 1
    told = capsys.readouterr().out
    assert "WRONG: layers are on CUDA0" in told
    assert "tensor parallelism: 400.0 tokens per second; WRONG: not refused" in told


@pytest.mark.parametrize(("last", "told"), [("no-such-file", "no-such-file: no such file"), (None, "wants two GPUs")])
def test_what_is_not_there_is_refused(tmp_path, monkeypatch, capsys, last, told):
    monkeypatch.setattr(two_gpus, "gpus", lambda: ["one"])
    output = tmp_path / "r.json"
    with pytest.raises(SystemExit) as ended:
        two_gpus.main([str(SCRIPT), last or str(SCRIPT), "-o", str(output)])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err.splitlines()[-1]
    assert not output.exists()
