"""What ``response_format`` of a chat asks for, and the parameters of a function, as a grammar."""

from typing import Any

import llama_cpp

from autodeco.errors import InputError
from autodeco.llama.json_schema import schema_grammar

KINDS = "text, json_object or json_schema"


def format_grammar(response_format: Any) -> llama_cpp.LlamaGrammar | None:
    """Return the grammar that keeps to ``response_format``, None if that asks for nothing.

    A schema stands at ``schema``, or as in OpenAI's interface at ``json_schema.schema``. Raises InputError for a kind
    that is not known, and for a schema that no grammar can keep to.
    """
    if response_format is None:
        return None
    kind = response_format.get("type") if isinstance(response_format, dict) else None
    if kind not in ("text", "json_object", "json_schema"):
        raise InputError(f"response_format {response_format!r}: its type must be {KINDS}")
    if kind == "text":
        return None
    schema = response_format.get("schema")
    described = response_format.get("json_schema")
    if isinstance(described, dict) and "schema" in described:
        schema = described["schema"]
    if schema is None:
        if kind == "json_schema":
            raise InputError("response_format: has no schema; give it as json_schema: {schema: ...}")
        schema = {"type": "object"}
    return llama_cpp.LlamaGrammar.from_string(schema_grammar(schema), verbose=False)


def arguments_grammar(function: dict[str, Any] | None) -> llama_cpp.LlamaGrammar | None:
    """Return the grammar of arguments for ``function``, whose ``parameters`` are a schema; None for no function.

    Raises InputError for a schema that no grammar can keep to.
    """
    if function is None:
        return None
    try:
        return llama_cpp.LlamaGrammar.from_string(schema_grammar(function["parameters"]), verbose=False)
    except InputError as error:
        raise InputError(f"the parameters of {function['name']}: {error}") from None
