"""What the run of llama.cpp's own server tests found, as it is kept and told; `make server-peer` runs them."""

import json

from builders import peer_suite

RESULTS = json.loads(peer_suite.RESULTS.read_text(encoding="utf-8"))


def test_nothing_that_passes_on_llama_server_fails_on_ours():
    assert peer_suite.worse(RESULTS) == {}
    assert sum(outcomes == ["passed"] * 3 for outcomes in RESULTS.values()) > 340
    assert not any("missing" in outcomes for outcomes in RESULTS.values())


def test_the_document_has_the_table_of_the_run():
    assert peer_suite.written_table() == peer_suite.table(RESULTS)


def test_what_has_become_worse_is_found(monkeypatch):
    monkeypatch.setattr(peer_suite, "DIFFERENCES", {"b::test_words": "says other words"})
    results = {
        "a::test_one": ["passed", "failed", "passed"],
        "a::test_two": ["failed", "failed", "failed"],
        "b::test_words[x]": ["passed", "passed", "failed"],
        "b::test_other": ["passed", "passed", "failed"],
        "b::test_skipped": ["skipped", "skipped", "skipped"],
    }
    assert set(peer_suite.worse(results)) == {"a::test_one", "b::test_other"}
    table = peer_suite.table(results)
    assert "| `a` | 2 | 1 | 0 | 1 |\n" in table
    assert "| `b` | 2 | 2 | 2 | 0 |\n" in table
    assert table.endswith("| all | 4 | 3 | 2 | 1 |\n")
