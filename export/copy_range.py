"""Copying a range of one file into another, without passing it through memory if the system can."""

import errno
import os

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
        count = os.preadv(source, [buffer[: size - done]], source_offset + done)
        if count == 0:
            raise EOFError("the source ends early")
        written = 0
        while written < count:
            written += os.pwrite(target, buffer[written:count], target_offset + done + written)
        done += count
