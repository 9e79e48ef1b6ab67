"""Opening a model reads its header once and its fingerprint at most once; its vocabulary opens without its weights."""

import json

import pytest

import autodeco
from autodeco.base.opening import open_base, open_vocabulary
from autodeco.base.tokenizer import Tokenizer
from autodeco.batch import Sampling, generate
from autodeco.errors import InputError
from autodeco.export.layout import open_layout
from autodeco.traces import CollectSettings, collect
from builders.file_reads import count_reads

SMALL = {"n_ctx": 64, "n_threads": 1, "n_threads_batch": 1}


def test_a_layout_opens_as_its_file_does_without_reading_the_header_again(smollm2, monkeypatch):
    layout = open_layout(smollm2)
    counts = count_reads(monkeypatch)
    assert open_layout(layout) is layout
    llm = open_base(layout, **SMALL)
    assert llm.n_vocab() == layout.vocab_size
    llm.close()
    assert not counts


def test_a_layout_without_a_model_does_not_open(exported):
    with pytest.raises(InputError, match="holds heads only; give the base model"):
        open_base(open_layout(exported()))


def test_collecting_reads_a_model_s_header_and_fingerprint_once(smollm2, tmp_path, monkeypatch):
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"prompt": "1 + 1 =", "completion": " 2"}) + "\n")
    counts = count_reads(monkeypatch)
    collect(smollm2, data, tmp_path / "traces", CollectSettings(context=64), threads=1, progress=False)
    assert counts == {"read_gguf": 1, "fingerprint": 1}


@pytest.mark.parametrize(
    ("layout", "expected"),
    [  # two headers in each
        ("sidecar", {"read_gguf": 2, "fingerprint": 1}),
        ("merged", {"read_gguf": 2}),
        ("embedded", {"read_gguf": 2, "fingerprint": 1}),  # whether another program has rewritten its model
    ],
)
def test_a_model_with_heads_reads_each_header_once(smollm2, exported, monkeypatch, layout, expected):
    files = [smollm2, exported()] if layout == "sidecar" else [exported("f16", layout)]
    counts = count_reads(monkeypatch)
    autodeco.Llama(*map(str, files), verbose=False, **SMALL).close()
    assert counts == expected


def test_a_batch_reads_the_header_of_heads_alone_where_the_model_is_open(smollm2, exported, monkeypatch):
    llm = autodeco.Llama(str(smollm2), verbose=False, **SMALL)
    counts = count_reads(monkeypatch)
    for _ in range(2):
        assert list(generate(llm, ["1 + 1 ="], 1, Sampling(heads="both"), max_tokens=1, heads=exported()))
    llm.close()
    assert counts == {"read_gguf": 2, "fingerprint": 1}


def test_a_vocabulary_tokenizes_as_the_whole_model_and_says_nothing(smollm2, capfd):
    whole, vocabulary = open_base(smollm2, **SMALL), open_vocabulary(smollm2)
    for prompt in ("1 + 1 = <|im_end|>é", [{"role": "user", "content": "Hi"}]):
        assert Tokenizer(vocabulary).prompt_ids(prompt) == Tokenizer(whole).prompt_ids(prompt)
    assert vocabulary.detokenize([504, 3575]) == whole.detokenize([504, 3575])
    vocabulary.close()
    whole.close()
    assert capfd.readouterr() == ("", "")
