"""Runs generated code in a child process that can compute and read, and nothing else.

Its limits: seconds of wall clock and of processor, bytes of address space, no file written, changed or removed, no
socket, no other process started or signalled. The kernel holds them (rlimits and a seccomp filter), so that no trick in
Python gets around them. Code can still read files, but has no way to pass on what it reads.
"""

import ctypes
import os
import platform
import secrets
import struct
import subprocess
import sys
import tempfile

from autodeco.errors import InputError

SECONDS, MEMORY = 5.0, 2**30

# linux/audit.h, filter.h, seccomp.h and prctl.h
_X86_64 = 0xC000003E
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _REFUSE, _ABSENT, _KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000  # EPERM, ENOSYS
_SET_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2
_X32 = 0x40000000
_WRITES = 0o1 | 0o2 | 0o100 | 0o1000  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC
_THREAD = 0x10000  # CLONE_THREAD

# numbers of system calls of x86_64
_OPEN, _OPENAT, _CLONE, _CLONE3, _OPENAT2 = 2, 257, 56, 435, 437
_NETWORK = (41, 42, 44, 46, 49, 50, 53, 307)
_PROCESSES = (57, 58, 59, 62, 101, 200, 234, 272, 302, 310, 311, 322, 424, 434, 438)
_FILES = (76, 77, 82, 83, 84, 85, 86, 87, 88, 90, 91, 92, 93, 94, 132, 133, 188, 189, 190, 197, 198, 199, 235)
_FILES_AT = (258, 259, 260, 261, 263, 264, 265, 266, 268, 280, 285, 304, 316, 452)
_SYSTEM = (155, 161, 165, 166, 321, 323, 425, 426, 427, 428, 429, 430)  # mounts, bpf, userfaultfd, io_uring

_CHILD = """
import os, resource, sys
from autodeco.evaluation.families.sandbox import lock
result, secret = int(sys.argv[1]), sys.argv[2]
program = sys.stdin.read()
lock(float(sys.argv[3]), int(sys.argv[4]))
del sys.argv[1:]
exec(compile(program, "answer", "exec"), {"__name__": "answer"})
os.write(result, secret.encode())
"""


def check_platform() -> None:
    """Raise InputError where the kernel cannot hold the limits."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise InputError(
            "generated code runs only on Linux for x86_64, whose kernel can lock it in; leave such tasks out"
        )


def runs(program: str, seconds: float = SECONDS, memory: int = MEMORY) -> bool:
    """Return whether ``program`` runs to its end within the limits; raises InputError where they cannot be held."""
    check_platform()
    secret = secrets.token_hex(16)
    read, write = os.pipe()
    try:
        with tempfile.TemporaryDirectory() as folder:
            child = subprocess.Popen(
                [sys.executable, "-B", "-c", _CHILD, str(write), secret, str(seconds), str(memory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[write],
                cwd=folder,
                env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONHASHSEED": "0"},
            )
            os.close(write)
            write = -1
            try:
                child.communicate(program.encode("utf-8", "replace"), timeout=seconds + _START)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                return False
        os.set_blocking(read, False)
        return child.returncode == 0 and os.read(read, 64) == secret.encode()
    except BlockingIOError:
        return False
    finally:
        os.close(read)
        if write >= 0:
            os.close(write)


_START = 3.0  # seconds of a slow machine, for Python to begin


def lock(seconds: float, memory: int) -> None:
    """Put this process under the limits, for good; raises OSError if the kernel refuses."""
    import resource  # which Windows lacks

    cpu = int(seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = memory if most == resource.RLIM_INFINITY else min(memory, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    rules = _filter()
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(rules), ctypes.addressof(code)))
    for arguments in ((_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0), (_SET_SECCOMP, _FILTER, ctypes.addressof(program), 0, 0)):
        if libc.prctl(*(ctypes.c_ulong(value) for value in arguments)):
            raise OSError(ctypes.get_errno(), "the kernel does not lock a process in")


def _filter() -> list[tuple[int, int, int, int]]:
    """The seccomp filter: (code, jump if true, jump if false, value) each; struct seccomp_data has the number at 0, the
    architecture at 4 and the arguments from 16 on, 8 bytes each."""
    rules = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, _X86_64), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    rules += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    for number in (*_NETWORK, *_PROCESSES, *_FILES, *_FILES_AT, *_SYSTEM):
        rules += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    for number in (_CLONE3, _OPENAT2):  # their flags lie in memory, which a filter cannot read; libc has other ways
        rules += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ABSENT)]
    for number, argument, bits, with_bits, without in (
        (_OPEN, 1, _WRITES, _REFUSE, _ALLOW),
        (_OPENAT, 2, _WRITES, _REFUSE, _ALLOW),
        (_CLONE, 0, _THREAD, _ALLOW, _REFUSE),
    ):
        rules += [(_EQUAL, 0, 4, number), (_LOAD, 0, 0, 16 + 8 * argument), (_ANY_BIT, 0, 1, bits)]
        rules += [(_RETURN, 0, 0, with_bits), (_RETURN, 0, 0, without)]
    return [*rules, (_RETURN, 0, 0, _ALLOW)]
