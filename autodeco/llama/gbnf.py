"""Grammars in llama.cpp's notation that its reader would end the process at."""

import re
from typing import Any

import llama_cpp

from autodeco.errors import InputError

DEEPEST = 1000  # groups within groups, which llama.cpp reads by recursion
MOST_RULES = 10_000  # which it follows by recursion, to see whether one begins with itself
LAST_LETTER = 0x10FFFF
# what brackets mean nothing in: comments, texts and sets of letters
QUOTED = re.compile(r'#[^\n]*|"(?:\\.|[^"\\])*"?|\[(?:\\.|[^\]\\])*\]?', re.DOTALL)
ESCAPED = re.compile(r"\\(?:U([0-9a-fA-F]{8})|.)", re.DOTALL)


def check_grammar(grammar: Any) -> None:
    """Raise InputError for a ``grammar`` that is none, that no text is, or that llama.cpp would crash at."""
    if not isinstance(grammar, llama_cpp.LlamaGrammar):
        raise InputError("grammar: must be a llama_cpp.LlamaGrammar; make it by LlamaGrammar.from_string")
    text = grammar._grammar
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError("grammar: holds half a surrogate pair, which is no character; leave it out") from None
    if any(code and int(code, 16) > LAST_LETTER for code in ESCAPED.findall(text)):
        raise InputError(f"grammar: holds a letter beyond \\U{LAST_LETTER:08X}, which is the last that there is")
    bare = QUOTED.sub("", text)
    if bare.count("::=") > MOST_RULES:
        raise InputError(f"grammar: has more than {MOST_RULES} rules; make it smaller")
    depth = 0
    for bracket in re.findall(r"[()]", bare):
        depth += 1 if bracket == "(" else -1
        if depth > DEEPEST:
            raise InputError(f"grammar: has more than {DEEPEST} groups within each other; name some of them")
