"""llama.cpp's source is unpacked whole, into a folder of an older release too."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from autodeco.export import llama_cpp_source

FILES = ("CMakeLists.txt", "src/llama.cpp", "src/models/lfm2.cpp", "tests/test-llama-archs.cpp", "tests/other.cpp")
WANTED = ("tests/test-llama-archs.cpp", "CMakeLists.txt", "src/")


@pytest.fixture(autouse=True)
def archive(tmp_path, monkeypatch):
    """A package of FILES, which pip fetches."""
    fetched = []

    def pip(command, **_):
        folder = Path(command[command.index("--dest") + 1])
        fetched.append(folder)
        with tarfile.open(folder / "llama_cpp_python-0.tar.gz", "w:gz") as tar:
            for name in FILES:
                (tmp_path / "file").write_text(f"new {name}")
                tar.add(tmp_path / "file", llama_cpp_source.LLAMA_CPP + name)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(llama_cpp_source.subprocess, "run", pip)
    return fetched


def contents(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_what_is_wanted_is_unpacked_once(tmp_path, archive):
    folder = tmp_path / "llama.cpp"
    for _ in range(2):
        assert llama_cpp_source.unpacked(folder, WANTED) == folder
    assert contents(folder) == {name: f"new {name}" for name in FILES[:-1]}
    assert len(archive) == 1


def test_a_folder_of_an_older_release_is_completed(tmp_path):
    folder = tmp_path / "llama.cpp"
    (folder / "src").mkdir(parents=True)
    for name in ("CMakeLists.txt", "src/llama.cpp", "src/own.cpp"):
        (folder / name).write_text("old")
    llama_cpp_source.unpacked(folder, WANTED)
    assert contents(folder) == {
        "CMakeLists.txt": "old",
        "src/llama.cpp": "old",
        "src/own.cpp": "old",
        "src/models/lfm2.cpp": "new src/models/lfm2.cpp",
        "tests/test-llama-archs.cpp": "new tests/test-llama-archs.cpp",
    }


def test_the_source_is_fetched_before_anything_is_installed():
    root = Path(__file__).parents[2]
    code = f"import sys; sys.path[:0] = [{str(root)!r}]; from export.llama_cpp_source import library_source"
    subprocess.check_call([sys.executable, "-S", "-c", code])  # -S: no installed packages
