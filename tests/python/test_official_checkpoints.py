"""Checkpoints as the official project publishes them are exported, and run in the graph with the official values."""

import json
import subprocess

import numpy as np
import pytest

import autodeco
from autodeco.base.states import StateReader, open_stateful
from autodeco.errors import InputError
from autodeco.export import cli
from autodeco.export.checkpoint import read_heads
from autodeco.export.layout import open_layout
from builders.compiled import built
from builders.gguf_files import head_arrays
from builders.official_checkpoints import (
    INDEX,
    OFFICIAL,
    official_values,
    rounded,
    write_extracted,
    write_heads,
    write_whole,
)

PROMPT = [3, 14, 15, 9, 2, 65, 35, 89]
TOKENS = 12
OPTIONS = {"n_ctx": 128, "n_threads": 1, "n_threads_batch": 1}
FORMS = ("heads", "whole", "extracted")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folder with a tiny model of each architecture among the bases."""
    folder = tmp_path_factory.mktemp("models")
    wanted = "|".join(sorted({official.architecture.rpartition("-")[0] for official in OFFICIAL.values()}))
    command = [built("generate_architectures"), "-a", f"^({wanted})$", "-s", "1", "-o", folder]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return folder


def write_forms(folder, official, arrays, vocab):
    write_heads(folder / "heads", official, arrays, vocab)
    write_whole(folder / "whole", official, arrays, vocab, at=official.shards // 2)
    write_extracted(folder / "extracted", folder / "whole", official, arrays, vocab)


@pytest.mark.parametrize("name", OFFICIAL)
def test_every_form_of_a_checkpoint_holds_the_same_heads(tmp_path, name):
    official, arrays = OFFICIAL[name], head_arrays(hidden=96)
    write_forms(tmp_path, official, arrays, 1000)
    for form in FORMS:
        heads = read_heads(tmp_path / form)
        assert (heads.hidden_size, heads.prob_stats, heads.base_model) == (96, True, official.base)
        assert heads.notes == ()
        for tensor, expected in rounded(arrays).items():
            np.testing.assert_array_equal(heads.tensors[tensor], expected)


@pytest.mark.slow  # compiles llama.cpp's generator
@pytest.mark.parametrize("name", OFFICIAL)
def test_a_checkpoint_runs_in_the_graph_with_the_official_values(models, tmp_path, name):
    official = OFFICIAL[name]
    model = models / f"{official.architecture}.gguf"
    layout = open_layout(model)
    arrays = head_arrays(hidden=layout.embedding_length, seed=len(name))
    write_forms(tmp_path, official, arrays, layout.vocab_size)
    exported = {}
    for form in FORMS:
        output = tmp_path / f"{form}.gguf"
        assert cli.main([str(tmp_path / form), "--base", str(model), "--type", "bf16", "-o", str(output)]) == 0
        exported[form] = output.read_bytes()
    assert exported["heads"] == exported["whole"] == exported["extracted"]

    llm = autodeco.Llama(str(model), tmp_path / "whole.gguf", verbose=False, **OPTIONS)
    llm.set_seed(7)
    for count, _ in enumerate(llm.generate(PROMPT), 1):
        if count == TOKENS:
            break
    decoding = llm.decoding
    llm.close()
    reader = open_stateful(model, **OPTIONS)
    ((_, hidden, logits),) = StateReader(reader).read(PROMPT, decoding.token.tolist())
    temperature, top_p = official_values(rounded(arrays), hidden, logits)
    reader.close()
    assert len(temperature) == TOKENS
    assert np.ptp(temperature) > 0.01
    np.testing.assert_allclose(decoding.temperature, temperature, rtol=0, atol=1e-3)
    np.testing.assert_allclose(decoding.top_p, top_p, rtol=0, atol=1e-3)


def test_a_shard_with_heads_that_is_missing_is_told(tmp_path):
    official = OFFICIAL["GPT-OSS-20B"]
    write_forms(tmp_path, official, head_arrays(hidden=96), 1000)
    (shard,) = {
        name
        for tensor, name in json.loads((tmp_path / "whole" / INDEX).read_text())["weight_map"].items()
        if tensor.startswith("temp_head.")
    }
    (tmp_path / "whole" / shard).unlink()
    with pytest.raises(InputError, match=f"{shard}: cannot be read"):
        read_heads(tmp_path / "whole")


def test_an_index_left_beside_extracted_heads_does_not_hide_a_head_that_is_missing(tmp_path):
    official = OFFICIAL["GPT-OSS-20B"]
    write_forms(tmp_path, official, head_arrays(hidden=96), 1000)
    only = {name: array for name, array in head_arrays(hidden=96).items() if name.startswith("temp_head.")}
    extracted = tmp_path / "extracted"
    (extracted / "model.safetensors").unlink()
    write_heads(tmp_path / "one", official, only, 1000)
    (tmp_path / "one" / "model.safetensors").rename(extracted / "model.safetensors")
    with pytest.raises(InputError, match=r"the tensor 'top_p_head\.mlp\.0\.bias' that the index promises is missing"):
        read_heads(extracted)
