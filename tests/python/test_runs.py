"""What long runs stand on: whole files, logs that are continued, locks, interrupts, and seeds that never change."""

import errno
import importlib.metadata
import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import llama_cpp
import numpy as np
import pytest

import autodeco
from autodeco import batch
from autodeco.errors import InputError
from autodeco.runs import seeds
from autodeco.runs.atomic import replacing
from autodeco.runs.interrupts import deferred_interrupt, exit_code, noted_interrupt
from autodeco.runs.jsonl_log import JsonlLog
from autodeco.runs.locks import locked_file, locked_folder
from autodeco.runs.names import beside
from autodeco.runs.provenance import file_hash, provenance
from autodeco.runs.seeds import Stream, generator, seed_of

# whole files


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_new_file_has_the_permissions_of_any_and_the_masks_of_other_threads_stay(tmp_path, monkeypatch, mask):
    before = os.umask(mask)
    try:
        monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the mask is that of the whole process"))
        with replacing(tmp_path / "file") as part:
            part.write_text("whole")
        monkeypatch.undo()
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask
    finally:
        os.umask(before)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path):
    (tmp_path / "file").write_text("old")

    def fail():
        with replacing(tmp_path / "file") as part:
            part.write_text("ha")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


KILLED = """
import sys, time
from pathlib import Path
from autodeco.runs.atomic import replacing, scratch_folder

with replacing(sys.argv[1]) as part, scratch_folder(Path(sys.argv[1]).parent) as scratch:
    part.write_bytes(bytes(3_000_000))
    (scratch / "model").write_bytes(bytes(2_000_000))
    print("ready", flush=True)
    time.sleep(60 if len(sys.argv) > 2 else 0)
"""


def test_what_killed_runs_left_is_named_and_removed_by_the_next_one(tmp_path):
    """Another process that still writes there keeps its files, and so do files that are named otherwise."""

    def begun(name: str) -> subprocess.Popen:
        arguments = [sys.executable, "-c", KILLED, str(tmp_path / name), "wait"]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        return process

    others = [".x.part", ".x.0123456.part", "x.01234567.part", ".x.01234567.parts", ".x.0123456g.part"]
    for name in others:
        (tmp_path / name).write_text("of another program")
    first = begun("one")
    first.kill()
    first.communicate()
    left = [path.name for path in tmp_path.iterdir() if path.name not in others]
    assert len(left) == 2
    writing = begun("three")
    own = {path.name for path in tmp_path.iterdir()} - {*others, *left}
    assert len(own) == 2
    last = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "four"], capture_output=True, text=True, check=True)
    assert last.stderr == ""
    writing.kill()
    _, told = writing.communicate()
    assert told == f"{tmp_path}: removed what killed runs had left (5.0 MB): {', '.join(sorted(left))}\n"
    assert {path.name for path in tmp_path.iterdir()} == {*others, *own, "four"}
    assert (tmp_path / "four").stat().st_size == 3_000_000


@pytest.mark.parametrize("letter", ["n", "\u20ac"])
def test_a_name_of_any_length_that_the_file_system_takes_can_be_written(tmp_path, letter):
    for length in (239, 240, 241, 247, 248, 249, 250, 254, 255):
        name = letter * (length // len(letter.encode())) + "n" * (length % len(letter.encode()))
        with replacing(tmp_path / name) as part:
            part.write_text("whole")
        with locked_file(tmp_path / name), pytest.raises(InputError), locked_file(tmp_path / name):
            pass
        assert [path.name for path in tmp_path.iterdir()] == [name]
        (tmp_path / name).unlink()
    with pytest.raises(OSError, match="too long") as error, replacing(tmp_path / ("n" * 256)):
        pass
    assert error.value.filename == os.fspath(tmp_path / ("n" * 256))
    assert not list(tmp_path.iterdir())


def test_names_that_are_cut_stay_apart(tmp_path):
    names = {beside(tmp_path / ("n" * 250 + end), "", ".partial").name for end in ("1", "2", "3.gguf")}
    assert len(names) == 3
    assert {len(name) for name in names} == {255}
    assert beside(tmp_path / "short", ".", ".lock").name == ".short.lock"


def test_a_file_takes_the_place_of_a_link_and_leaves_what_that_leads_to(tmp_path):
    (tmp_path / "target").write_text("target")
    (tmp_path / "link").symlink_to("target")
    with replacing(tmp_path / "link") as part:
        part.write_text("new")
    assert not (tmp_path / "link").is_symlink()
    assert [(tmp_path / name).read_text() for name in ("link", "target")] == ["new", "target"]


# logs

HEADER = {"seed": 3, "shard": (1, 2)}


@pytest.fixture
def log_file(tmp_path):
    with JsonlLog(tmp_path / "log.jsonl", HEADER) as log:
        for row in ({"a": 1}, {"a": 2}):
            log.add(row)
    return tmp_path / "log.jsonl"


def test_a_log_holds_its_header_and_a_row_a_line(log_file):
    assert [json.loads(line) for line in log_file.read_text().splitlines()] == [
        {"seed": 3, "shard": [1, 2]},
        {"a": 1},
        {"a": 2},
    ]
    assert JsonlLog(log_file, HEADER).rows == [{"a": 1}, {"a": 2}]
    with JsonlLog(log_file, HEADER) as log:
        log.add({"a": 3})
        assert JsonlLog(log_file, HEADER).rows == log.rows == [{"a": 1}, {"a": 2}, {"a": 3}]


@pytest.mark.parametrize("tail", [b'{"a": 3', b'{"a": 3}', b'{"a": "\xc3'])
def test_a_last_line_without_its_end_is_dropped_and_cut_off_before_the_next(log_file, tail):
    whole = log_file.read_bytes()
    log_file.write_bytes(whole + tail)
    log = JsonlLog(log_file, HEADER)
    assert log.rows == [{"a": 1}, {"a": 2}]
    assert log_file.read_bytes() == whole + tail, "reading changes nothing"
    with log:
        log.add({"a": 4})
    assert log_file.read_bytes() == whole + b'{"a": 4}\n'


def test_a_header_that_was_cut_short_is_written_again(log_file):
    log_file.write_bytes(b'{"seed"')
    with JsonlLog(log_file, HEADER) as log:
        log.add({"a": 1})
    assert log_file.read_bytes() == b'{"seed": 3, "shard": [1, 2]}\n{"a": 1}\n'


@pytest.mark.parametrize("content", [b"{}\n\n", b"{}\n[1]\n", b"{}\n{\n", b"{}\n\xff\n", b'{}\n{"b": 1}\n'])
def test_a_damaged_line_is_named(tmp_path, content):
    (tmp_path / "log").write_bytes(content)
    with pytest.raises(InputError, match=r"log, line 2: is damaged; remove the file to start again"):
        JsonlLog(tmp_path / "log", {}, check=lambda row: row["a"])


def test_another_header_is_refused_by_what_differs(log_file):
    with pytest.raises(InputError, match="the unfinished run had another seed; use the same again"):
        JsonlLog(log_file, HEADER | {"seed": 4})
    with pytest.raises(InputError, match="another model, another seed"):
        JsonlLog(log_file, {"shard": [1, 2], "model": "m"})


class Full(io.FileIO):
    """A file on a disk that has become full."""

    def write(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_names_the_log(log_file, monkeypatch):
    log = JsonlLog(log_file, HEADER)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, mode: Full(path, mode))
        with log, pytest.raises(OSError, match="No space left") as error:
            log.add({"a": 3})
    assert error.value.filename == str(log_file)
    assert log.rows == JsonlLog(log_file, HEADER).rows == [{"a": 1}, {"a": 2}]


# locks


def holding(lock, path):
    """A process that holds the lock of ``path``."""
    code = "import sys, time; from autodeco.runs import locks\n"
    code += "with getattr(locks, sys.argv[1])(sys.argv[2]): print(); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-uc", code, lock.__name__, str(path)], stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


@pytest.mark.parametrize("lock", [locked_folder, locked_file])
def test_a_second_process_is_refused_and_a_killed_one_blocks_nobody(tmp_path, lock):
    path = tmp_path / "new" / "here"
    process = holding(lock, path)
    try:
        with pytest.raises(InputError, match="here: another process writes there; wait until it ends"), lock(path):
            pass
    finally:
        process.kill()
        process.wait()
    for _ in range(2):
        with lock(path):
            held = {str(entry.relative_to(tmp_path / "new")) for entry in path.parent.rglob("*")}
            assert held == ({"here", "here/.lock"} if lock is locked_folder else {".here.lock"})
    assert [entry.name for entry in path.parent.iterdir()] == (["here"] if lock is locked_folder else [])


# interrupts

WAITS = """
import signal, sys, time
from autodeco.errors import InputError
from autodeco.runs.atomic import replacing
from autodeco.runs.interrupts import exit_code, noted_interrupt
from autodeco.settings.program import reports_errors

def main(argv):
    if argv[0] == "noted":
        with noted_interrupt("stopping soon") as caught:
            print("ready", flush=True)
            while not caught:
                time.sleep(0.01)
            print("all in order", flush=True)
        return exit_code(caught[0])
    with replacing(argv[1]) as part:
        part.write_text("half")
        print("ready", flush=True)
        for _ in range(6000):  # a signal just before one long sleep would not end it
            time.sleep(0.01)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(reports_errors("autodeco")(main)(sys.argv[1:]))
"""


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("how", ["noted", "raised"])
def test_a_process_that_is_stopped_leaves_all_in_order_and_says_by_which_signal(tmp_path, how, sent, code):
    arguments = [sys.executable, "-c", WAITS, how, str(tmp_path / "file")]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(sent)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert (out, err.strip()) == (("all in order\n", "stopping soon") if how == "noted" else ("", "interrupted"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_is_raised_at_once_and_what_handled_them_before_does_again(number):
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    done = []

    def twice():
        with noted_interrupt() as caught:
            signal.raise_signal(signal.SIGTERM)
            done.extend(exit_code(one) for one in caught)
            signal.raise_signal(number)
            done.append("more")

    def later():
        with deferred_interrupt():
            signal.raise_signal(number)
            done.append("the rest")

    for run in (twice, later):
        with pytest.raises(KeyboardInterrupt):
            run()
    assert done == [143, "the rest"]
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_in_another_thread_nothing_is_noted_and_nothing_fails():
    found = []

    def body():
        with noted_interrupt() as caught:
            found.append(caught)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert found == [[]]


# seeds


def test_streams_keep_the_numbers_that_seeds_have_always_given():
    assert {stream.name: int(stream) for stream in Stream} == {
        "SPLIT": 0,
        "EPOCH": 1,
        "VALIDATION": 2,
        "EASY_TOKENS": 3,
        "ANSWERS": 4,
        "WORDINGS": 5,
        "RANKED_TOKENS": 6,
        "HELD_OUT_ANSWERS": 7,
        "PROBLEMS": 8,
        "DECISIONS": 9,
        "UPDATES": 10,
        "BOOTSTRAP": 11,
        "ANCHORS": 12,
        "PROMPTS": 13,
    }
    # numpy promises these to stay (NEP 19): SeedSequence and the raw bits of PCG64
    assert generator(7, Stream.EPOCH, 2).bit_generator.random_raw() == np.random.PCG64([7, 1, 2]).random_raw()
    assert seed_of(7, Stream.ANSWERS, 1, 2) == np.random.SeedSequence(7, spawn_key=(4, 1, 2)).generate_state(1)[0]
    assert batch.seed_of(7, 1, 2) == np.random.SeedSequence(7, spawn_key=(1, 2)).generate_state(1)[0]


def test_every_stream_and_key_has_numbers_of_its_own():
    drawn = {generator(1, stream, key).random() for stream in Stream for key in range(1, 20)}
    seeded = {seed_of(1, stream, key) for stream in Stream for key in range(1, 20)}
    assert len(drawn) == len(seeded) == len(Stream) * 19


def test_no_seed_means_random_to_llama_cpp():
    class Sequence:
        def generate_state(self, n):
            return np.array([seeds.RANDOM, 12], np.uint32)[:n]

    assert seeds.RANDOM == llama_cpp.LLAMA_DEFAULT_SEED
    assert seeds.in_32_bits(Sequence()) == 6


# what a run was made of


def test_a_file_is_known_by_its_sha_256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, B.1
    assert file_hash(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(InputError, match=rf"^{re.escape(str(path))}: cannot be read \("):
            file_hash(path)


def test_a_copy_of_the_package_that_is_not_installed_says_how_it_was_run_too(monkeypatch):
    def version(package):
        if package == "autodeco":
            raise importlib.metadata.PackageNotFoundError(package)
        return "1.2.3"

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setitem(vars(autodeco), "__version__", "of before, which comes back")
    del autodeco.__version__
    versions = provenance()["versions"]
    assert (versions["autodeco"], versions["numpy"]) == ("unknown", "1.2.3")
    assert autodeco.__version__ == "unknown"
