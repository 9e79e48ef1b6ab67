"""Copying a range of one file into another, without passing it through memory if the system can."""

import contextlib
import errno
import os
from collections.abc import Iterator

# Bytes a system call: as many as Linux takes at once. Smaller steps took up to four times as long on a virtual machine.
STEP = 1 << 31
BUFFER = 256 << 10  # larger ones measured slower, up to six times

# Where copy_file_range may refuse: other file systems, old kernels, files that are no plain files.
_REFUSALS = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM, errno.ETXTBSY}


def copy_range(source: int, source_offset: int, target: int, target_offset: int, size: int) -> None:
    """Copy ``size`` bytes between two open file descriptors.

    The kernel copies (copy_file_range). It shares the extents instead if the file system can and both offsets lie on
    its blocks. Where neither works, a buffer copies. Raises OSError as the system reports it, EOFError if the source
    ends early."""
    done = 0
    while done < size and hasattr(os, "copy_file_range"):
        try:
            copied = os.copy_file_range(
                source, target, min(STEP, size - done), source_offset + done, target_offset + done
            )
        except OSError as error:
            if error.errno not in _REFUSALS:
                raise
            break
        if copied == 0:  # some file systems say so instead of refusing
            break
        done += copied
    buffer = memoryview(bytearray(BUFFER)) if done < size else None
    while done < size:
        count = _read_at(source, buffer[: size - done], source_offset + done)
        if count == 0:
            raise EOFError("the source ends early")
        written = 0
        while written < count:
            written += _write_at(target, buffer[written:count], target_offset + done + written)
        done += count


if hasattr(os, "preadv"):

    def _read_at(source: int, buffer: memoryview, offset: int) -> int:
        return os.preadv(source, [buffer], offset)

    def _write_at(target: int, data: memoryview, offset: int) -> int:
        return os.pwrite(target, data, offset)

else:  # Windows

    def _read_at(source: int, buffer: memoryview, offset: int) -> int:
        with _position(source, offset):
            data = os.read(source, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _write_at(target: int, data: memoryview, offset: int) -> int:
        with _position(target, offset):
            return os.write(target, data)


@contextlib.contextmanager
def _position(descriptor: int, offset: int) -> Iterator[None]:
    """Let the file be at byte ``offset`` while the body runs, and then where it was."""
    before = os.lseek(descriptor, 0, os.SEEK_CUR)
    os.lseek(descriptor, offset, os.SEEK_SET)
    try:
        yield
    finally:
        os.lseek(descriptor, before, os.SEEK_SET)
