"""A hash that identifies a base model file in milliseconds, whatever the model's size."""

import hashlib
import os

from autodeco.errors import InputError

BLOCKS = 256
BLOCK_SIZE = 4096


def fingerprint(path: str | os.PathLike, offset: int = 0, size: int | None = None) -> str:
    """Return ``"sha256:<hex>"`` of the ``size`` bytes at ``offset`` (default: the whole file): SHA-256 over the size as
    u64 little-endian, then 256 blocks of 4096 bytes, block i at ``i * (size - 4096) // 255``; a file of at most
    256 * 4096 bytes is hashed whole. Raises InputError if the bytes cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:
            if size is None:
                size = os.fstat(file.fileno()).st_size - offset
            digest = hashlib.sha256(size.to_bytes(8, "little"))
            if size <= BLOCKS * BLOCK_SIZE:
                digest.update(_read(file, offset, size))
            else:
                for block in range(BLOCKS):
                    start = block * (size - BLOCK_SIZE) // (BLOCKS - 1)
                    digest.update(_read(file, offset + start, BLOCK_SIZE))
    except (OSError, EOFError, OverflowError) as error:
        raise InputError(f"{path}: cannot be read for its fingerprint ({error}); check the file") from error
    return f"sha256:{digest.hexdigest()}"


def _read(file, offset: int, size: int) -> bytes:
    file.seek(offset)
    data = bytearray()
    while len(data) < size:
        chunk = file.read(size - len(data))
        if not chunk:
            raise EOFError("the file ends early")
        data += chunk
    return bytes(data)
