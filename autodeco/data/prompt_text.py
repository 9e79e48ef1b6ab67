"""A prompt from a pipe or a file."""

from autodeco.errors import InputError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def prompt_text(content: bytes, name: str) -> str:
    """Return the prompt that ``content`` of ``name`` is, as ``autodeco-cli`` reads it.

    It is without a byte order mark, without the one line break that ends it, and with lines that end in a newline.
    Raises InputError where it is no UTF-8.
    """
    if content.startswith(UTF_16):
        raise InputError(f"{name}: is UTF-16; save it as UTF-8")
    try:
        text = content.removeprefix(BYTE_ORDER_MARK).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: byte {error.start} is no UTF-8; save it as UTF-8") from None
    return text.replace("\r\n", "\n").removesuffix("\n")
