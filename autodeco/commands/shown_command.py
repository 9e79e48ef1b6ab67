"""A command that another one runs, shown as a user would type it."""

import shlex
from collections.abc import Callable


def show_and_run(console, main: Callable, *words) -> int:
    """Print ``words``, a program and its arguments, and run its ``main`` on the arguments; return its exit code."""
    texts = [str(word) for word in words]
    console.print(f"$ {shlex.join(texts)}", style="bold", soft_wrap=True)
    return main(texts[1:])
