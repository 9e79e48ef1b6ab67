"""The Python package without the modules and functions that Windows lacks. Nothing here has run on Windows itself."""

import filecmp
import os
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from autodeco.runs import locks
from builders.golden import GOLDEN

PROGRAM = Path(__file__).parent / "programs" / "as_on_windows.py"


def as_on_windows(*arguments, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_every_module_can_be_imported():
    result = as_on_windows("import", env=os.environ | {"TRITON_INTERPRET": "1"})
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 100


@pytest.mark.parametrize("layout", ["merged", "embedded"])
def test_files_are_copied_without_positioned_reads(layout, smollm2, exported, tmp_path):
    output = tmp_path / "heads.gguf"
    arguments = [GOLDEN / "smollm2.heads.safetensors", "--base", smollm2, "--layout", layout, "--type", "f16"]
    result = as_on_windows("export", *arguments, "--sampling", "none", "-o", output)
    assert result.returncode == 0, result.stderr
    assert filecmp.cmp(output, exported("f16", layout), shallow=False)
    assert list(tmp_path.iterdir()) == [output]


def test_what_a_killed_process_left_goes_and_what_a_living_one_writes_stays(tmp_path):
    folder, temporary = tmp_path / "results", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    environment = os.environ | {"TMPDIR": str(temporary)}
    command = [sys.executable, str(PROGRAM), "write", str(folder / "first")]
    writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        part = Path(writer.stdout.readline().strip())
        second = as_on_windows("write", folder / "second", stdin=subprocess.DEVNULL, env=environment)
        assert second.returncode == 0, second.stderr
        assert second.stderr == ""
        assert part.exists()
    finally:
        writer.kill()
        writer.communicate()
    third = as_on_windows("write", folder / "third", stdin=subprocess.DEVNULL, env=environment)
    assert "removed what killed runs had left" in third.stderr
    assert part.name in third.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["second", "third"]


def test_the_file_of_a_lock_is_removed_when_the_lock_is_free(monkeypatch, tmp_path):
    removed = []

    def unlink(path, **options):
        with filelock.FileLock(path).acquire(timeout=0):
            removed.append(path.name)

    monkeypatch.setattr(locks, "OPEN_FILES_STAY", True)
    monkeypatch.setattr(Path, "unlink", unlink)
    with locks.locked_file(tmp_path / "result"):
        assert removed == []
    assert removed == [".result.lock"]
