"""The one exception that a user can cause.

It needs Python alone: ``cmake/llama_cpp_source.py`` imports it before anything is installed.
"""

from autodeco.terminal import one_line


class InputError(ValueError):
    """Bad input: the message is one line that names the file, what is wrong and what to do.

    What it quotes from files drives no terminal.
    """

    def __init__(self, message: object):
        super().__init__(one_line(message))
