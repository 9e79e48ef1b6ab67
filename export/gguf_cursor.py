"""A bounded read position in a part of a file: nothing outside the part can be read, and nothing large is buffered."""

import struct
from typing import BinaryIO

from autodeco.errors import InputError

WINDOW = 1 << 20  # bytes read ahead; headers are walked in many small steps


class Cursor:
    """Reads little-endian values from the ``size`` bytes at ``start`` of ``file``; positions count from ``start``.

    Every method that runs past the end raises InputError naming ``path``."""

    def __init__(self, file: BinaryIO, path: str, start: int, size: int):
        self.path, self.start, self.size = path, start, size
        self._file = file
        self._window, self._window_start, self._at = b"", 0, 0

    @property
    def position(self) -> int:
        """Bytes from the start of the part to the next byte read."""
        return self._window_start + self._at

    @property
    def remaining(self) -> int:
        """Bytes of the part that lie after the position."""
        return self.size - self.position

    def damaged(self, found: str) -> InputError:
        """The error for a header that holds ``found``."""
        return InputError(f"{self.path}: not a valid GGUF header: it holds {found}; fetch or export the file again")

    def seek(self, position: int) -> None:
        """Move to ``position`` bytes from the start of the part."""
        if not 0 <= position <= self.size:
            raise self._cut_off()
        if self._window_start <= position <= self._window_start + len(self._window):
            self._at = position - self._window_start
        else:
            self._window, self._window_start, self._at = b"", position, 0

    def skip(self, count: int) -> None:
        """Move on by ``count`` bytes."""
        self.seek(self.position + count)

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        if self._at + count > len(self._window):
            self._refill(count)
        self._at += count
        return self._window[self._at - count : self._at]

    def u32(self) -> int:
        """The next four bytes as an unsigned integer."""
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        """The next eight bytes as an unsigned integer."""
        return int.from_bytes(self.take(8), "little")

    def skip_strings(self, count: int) -> None:
        """Move past ``count`` strings, each a u64 length and that many bytes."""
        if count * 8 > self.remaining:
            raise self._cut_off()
        window, at, limit = self._window, self._at, len(self._window)
        length_at = struct.Struct("<Q").unpack_from
        for _ in range(count):
            if at + 8 > limit:
                self.seek(self._window_start + at)
                self._refill(8)
                window, at, limit = self._window, self._at, len(self._window)
            at += 8 + length_at(window, at)[0]
        self.seek(self._window_start + at)

    def _refill(self, count: int) -> None:
        if count > self.remaining:
            raise self._cut_off()
        position = self.position
        wanted = max(count, min(WINDOW, self.remaining))
        self._file.seek(self.start + position)
        self._window, self._window_start, self._at = self._file.read(wanted), position, 0
        if len(self._window) < count:
            raise self._cut_off()

    def _cut_off(self) -> InputError:
        return InputError(f"{self.path}: cut off, it ends before its header says; fetch the file again")
