"""The one exception that a user can cause.

It needs Python alone: ``cmake/llama_cpp_source.py`` imports it before anything is installed.
"""


class InputError(ValueError):
    """Bad input: the message is one line that names the file, what is wrong and what to do."""
