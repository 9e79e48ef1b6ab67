"""The names of exported files: none is downloaded as the model by people whose programs cannot open it."""

import itertools
import re

import pytest

from autodeco.export.heads_in_gguf import WEIGHT_TYPES
from autodeco.export.layout import EMBEDDED, MERGED, SIDECAR
from autodeco.export.names import model_stem, output_name
from autodeco.export.quantize import quantization_types
from builders.stock_downloads import downloaded, listed_tag

# What repositories use beside the names of llama.cpp's quantizer.
TAGS = sorted({*quantization_types(), "Q3_K_L", "Q3_K_XL", "Q4_K_L", "UD-Q4_K_XL", "UD-IQ1_S", "F64", "MXFP4", "NVFP4"})
STEMS = ("Model-1B-{}", "Model.{}", "Model-1B-{}-v2", "{}-Model", "Model-BF16-{}", "model.{}.imat")
OURS = [(layout, kind) for layout in (SIDECAR, MERGED, EMBEDDED) for kind in WEIGHT_TYPES]
UNKNOWN = [(layout, kind) for layout, kind in OURS if layout != EMBEDDED]  # to every program but AutoDeco


def cased(tag):
    return sorted({tag, tag.lower()})


def test_the_rule_takes_the_tag_and_the_defaults_and_else_the_first_model():
    names = ["a-Q2_K.gguf", "mmproj-Q8_0.gguf", "b-q8_0.gguf", "b-Q4_K_M-00002-of-00002.gguf", "notes-Q4_K_M.txt"]
    assert downloaded(names) == "b-q8_0.gguf"
    assert downloaded(names, "q2_k") == "a-Q2_K.gguf"
    assert downloaded(names, "Q4_K_M") is None
    assert downloaded(["x.gguf", *names[:1]]) == "x.gguf"
    assert downloaded(["part-Q4_K_M-00001-of-00002.gguf"], "Q4_K_M") == "part-Q4_K_M-00001-of-00002.gguf"
    assert listed_tag("b-q8_0.gguf") == "Q8_0"


@pytest.mark.parametrize("stem", STEMS)
def test_no_tag_finds_a_file_with_heads(stem):
    for tag, (layout, kind) in itertools.product(TAGS, OURS):
        for name_in_model in cased(tag):
            name = output_name(f"{stem.format(name_in_model)}.gguf", None, layout, kind)
            for asked in TAGS:
                assert not re.search(asked + "[.-]", name, re.IGNORECASE), (name, asked)


@pytest.mark.parametrize("stem", STEMS)
def test_the_model_beside_a_file_with_heads_is_what_everybody_downloads(stem):
    for tag, (layout, kind) in itertools.product(TAGS, OURS):
        for name_in_model in cased(tag):
            model = f"{stem.format(name_in_model)}.gguf"
            ours = output_name(model, None, layout, kind)
            for names in ([model, ours], [ours, model]):
                # Without a tag, and where no default fits, it is the first file: an embedded one runs as the model.
                assert downloaded(names) in ({model} if (layout, kind) in UNKNOWN else {model, ours})
                assert downloaded(sorted(names)) == model
                for asked in cased(tag):
                    assert downloaded(names, asked) == model


def test_alone_a_file_that_stock_llama_cpp_cannot_open_is_not_downloaded():
    for tag, (layout, kind) in itertools.product(TAGS, UNKNOWN):
        ours = output_name(f"Model-{tag}.gguf", None, layout, kind)
        assert downloaded([ours]) is None
        assert listed_tag(ours) == ""


def test_an_embedded_file_is_downloaded_where_it_is_alone_or_asked_for():
    ours = output_name("Model-Q5_K_M.gguf", None, EMBEDDED, "f16")
    assert ours == "Model-Q5_K_M_autodeco.gguf"
    assert downloaded([ours]) == ours
    for names in ([ours, "Model-Q5_K_M.gguf"], ["Model-Q5_K_M.gguf", ours]):
        assert downloaded(names, "Q5_K_M_autodeco") == ours
        assert downloaded(names, "Q5_K_M") == "Model-Q5_K_M.gguf"
    assert listed_tag(ours) == "Q5_K_M_AUTODECO"


def test_a_file_made_here_gives_the_name_of_its_model_again(tmp_path):
    for layout, kind in OURS:
        name = output_name(tmp_path / "Model-Q4_K_M.gguf", None, layout, kind)
        assert model_stem(tmp_path / name, None) == "Model-Q4_K_M"
        assert output_name(tmp_path / name, None, MERGED, "f16") == "Model-Q4_K_M_merged.autodeco"
    assert model_stem(tmp_path / "a_merged.gguf", None) == "a_merged"
    assert model_stem(tmp_path, "q8_0") == f"{tmp_path.name}-Q8_0"
