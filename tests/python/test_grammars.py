"""Grammars that llama.cpp's reader would end the process at are refused; those beside them are read."""

import llama_cpp
import pytest

from autodeco.errors import InputError
from autodeco.llama.gbnf import DEEPEST, MOST_RULES, check_grammar


def checked(text: str) -> None:
    check_grammar(llama_cpp.LlamaGrammar.from_string(text, verbose=False))


def chain(rules: int) -> str:
    return "root ::= r1\n" + "".join(f"r{i} ::= r{i + 1}\n" for i in range(1, rules - 1)) + f'r{rules - 1} ::= "a"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("root ::= " + "(" * (DEEPEST + 1) + '"a"' + ")" * (DEEPEST + 1), "more than 1000 groups within each other"),
        (chain(MOST_RULES + 1), "more than 10000 rules"),
        ('root ::= "\\UFFFFFFFF"', "holds a letter beyond"),
        ("root ::= [a-\\U00110000]", "holds a letter beyond"),
        ('root ::= "\ud800"', "holds half a surrogate pair"),
    ],
    ids=["groups", "rules", "letter", "range", "surrogate"],
)
def test_grammars_that_llama_cpp_crashes_at_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        checked(text)


@pytest.mark.parametrize(
    "text",
    [
        'root ::= "' + "(" * 2000 + '"',
        "root ::= [(" + "(" * 2000 + "]",
        "root ::= [\\]" + "(" * 2000 + "]",
        'root ::= "a" # ' + "(" * 2000,
        'root ::= "\\"' + "(" * 2000 + '"',
        'root ::= "\\\\UFFFFFFFF"',
        "root ::= " + '("a") ' * 2000,
        "root ::= [\\U0010FFFF]",
    ],
    ids=["text", "set", "escaped-set", "comment", "escaped-text", "backslash", "beside", "last"],
)
def test_brackets_that_group_nothing_are_not_counted(text):
    checked(text)


def test_the_largest_grammars_are_read_by_llama_cpp(llm):
    for text in ("root ::= " + "(" * DEEPEST + '"a"' + ")" * DEEPEST, chain(MOST_RULES)):
        grammar = llama_cpp.LlamaGrammar.from_string(text, verbose=False)
        assert llm.create_completion("b", max_tokens=3, grammar=grammar)["choices"][0]["text"] == "a"
