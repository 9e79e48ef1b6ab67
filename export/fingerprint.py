"""A hash that identifies a base model file in milliseconds, whatever the model's size."""

import hashlib
import os

from autodeco.errors import InputError

BLOCKS = 256
BLOCK_SIZE = 4096


def fingerprint(path: str | os.PathLike, offset: int = 0, size: int | None = None, header: bytes = b"") -> str:
    """Return ``"sha256:<hex>"`` of ``header`` and the ``size`` bytes at ``offset`` (default: the whole file).

    SHA-256 over the size of both as u64 little-endian, then 256 blocks of 4096 bytes, block i at
    ``i * (size - 4096) // 255``; at most 256 * 4096 bytes are hashed whole. Raises InputError if the bytes cannot be
    read."""
    try:
        with open(path, "rb", buffering=0) as file:
            if size is None:
                size = os.fstat(file.fileno()).st_size - offset
            whole = len(header) + size
            digest = hashlib.sha256(whole.to_bytes(8, "little"))

            def add(start: int, count: int) -> None:
                front = header[start : start + count]
                digest.update(front)
                digest.update(_read(file, offset + max(0, start - len(header)), count - len(front)))

            if whole <= BLOCKS * BLOCK_SIZE:
                add(0, whole)
            else:
                for block in range(BLOCKS):
                    add(block * (whole - BLOCK_SIZE) // (BLOCKS - 1), BLOCK_SIZE)
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
