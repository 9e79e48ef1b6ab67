"""The one exception that a user can cause. Needs nothing but Python: CMake reads llama.cpp's source with it."""


class InputError(ValueError):
    """Bad input: the message is one line that names the file, what is wrong and what to do."""
