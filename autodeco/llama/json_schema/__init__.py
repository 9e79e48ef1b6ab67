"""JSON schemas as grammars of llama.cpp (GBNF): whatever the grammar accepts, the schema does."""

from autodeco.llama.json_schema.grammar import schema_grammar

__all__ = ["schema_grammar"]
