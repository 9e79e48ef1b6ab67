"""Every command that computes with a GGUF has --gpu-layers, and llama.cpp is asked for as many."""

import json

import llama_cpp.llama_cpp as llama_cpp_api
import pytest

from autodeco.settings.machine import Machine, Processors
from builders.commands import refused

ASK = [{"role": "user", "content": "1 + 1?"}]
SCORED = ["--problems", "problems.jsonl", "--checker", "exact"]
COMMANDS = {
    "tune": ["--max-tokens", 8, "-o", "out"],
    "demo": ["-o", "out"],
    "rollout": [*SCORED, "-o", "out.jsonl"],
    "collect": ["--data", "data.jsonl", "-o", "out"],
    "reward": [*SCORED, "-o", "out"],
    "control": ["--init", "heads", "-o", "out"],
    "generate": ["--heads", "heads.gguf"],
    "serve": ["--heads", "heads.gguf", "--port", 0],
    "eval": ["--heads", "heads.gguf", "--tasks", "problems.jsonl", "--test", 2, "--validation", 1, "-o", "out"],
    "bench": ["--heads", "heads.gguf"],
}
MODEL_IS_A_FLAG = ("demo", "generate")
FROM_A_FILE = ("tune", "collect", "control", "serve", "bench")  # of settings, the others from a flag


@pytest.fixture
def folder(tmp_path, monkeypatch, exported):
    """A folder of everything that the commands read, in which they run."""
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": ASK, "answer": str(i), "completion": [{"role": "assistant", "content": "2"}]} for i in range(8)]
    for name in ("problems", "data"):
        texts = [json.dumps(row | {"prompt": [ASK[0] | {"content": f"{i} + 1?"}]}) for i, row in enumerate(rows)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(texts))
    (tmp_path / "heads.gguf").symlink_to(exported("f32"))
    return tmp_path


@pytest.fixture
def asked(monkeypatch):
    """How many layers llama.cpp was asked to put on the GPU, for each model whose weights it was to load; it loads
    none."""
    layers = []
    load = llama_cpp_api.llama_model_load_from_file

    def loaded(path, params):
        if params.vocab_only:
            return load(path, params)
        layers.append(params.n_gpu_layers)
        return None

    monkeypatch.setattr(llama_cpp_api, "llama_model_load_from_file", loaded)
    return layers


@pytest.mark.parametrize("command", COMMANDS)
def test_the_layers_that_are_asked_for_reach_llama_cpp(command, smollm2, folder, asked):
    if command == "control":
        pytest.importorskip("torch").manual_seed(0)
        from autodeco import Heads

        Heads(576).save_pretrained(folder / "heads")
    words = [command, *(["--model"] if command in MODEL_IS_A_FLAG else []), smollm2, *COMMANDS[command]]
    if command == "generate":
        words.append("hello")
    (folder / "run.yaml").write_text("gpu_layers: 7\n")
    words += ["--config", "run.yaml"] if command in FROM_A_FILE else ["--gpu-layers", 7]
    assert "llama.cpp cannot load it" in refused(*words)
    assert asked == [7]


def test_layers_have_no_meaning_where_transformers_answers(folder):
    for command in ("reward", "control"):
        words = [command, "model", *COMMANDS[command], "--answers-from", "hugging-face", "--gpu-layers", 1]
        assert "--gpu-layers: has no meaning with --answers-from hugging-face" in refused(*words)


def test_processors_are_all_used_unless_a_number_is_given():
    assert Machine().opening == {"n_threads": None, "n_threads_batch": None, "n_gpu_layers": 0}
    assert Processors(threads=3, gpu_layers=-1).opening == {"n_threads": 3, "n_threads_batch": 3, "n_gpu_layers": -1}
    assert Processors().opening["n_threads"] >= 1
    assert Processors().flags == []
