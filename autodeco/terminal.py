"""Text that comes from a file, or from anybody else, as a terminal may show it.

It needs Python alone, as ``errors`` does.
"""

import re

_BREAK = re.compile(r"\s*[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]\s*")


def one_line(text: object) -> str:
    """``text`` as one line that drives no terminal and turns no direction of writing.

    Breaks, with the blanks around them, become one blank, as other blanks do each; everything else that is not
    printable (controls, escape sequences, marks of direction, halves of surrogate pairs, unassigned letters) becomes a
    question mark.
    """
    line = _BREAK.sub(" ", str(text).strip())
    if line.isprintable():
        return line
    return "".join(letter if letter.isprintable() else " " if letter.isspace() else "?" for letter in line)


def say(text: object, **settings) -> None:
    """Print ``text`` as ``one_line``; ``settings`` are those of ``print``."""
    print(one_line(text), **settings)
