"""Setting up compiles of llama.cpp what Python loads, says how far it is, and shows why it failed."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from builders.compiled import REPOSITORY

FOLDER = REPOSITORY / "cmake"


@pytest.fixture(scope="module")
def installing():
    spec = importlib.util.spec_from_file_location("installing", FOLDER / "install_llama_cpp_python.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def saying(*lines: str, status: int = 0) -> list[str]:
    """A command that prints ``lines`` and ends with ``status``."""
    return [sys.executable, "-c", f"import sys; print({chr(10).join(lines)!r}); sys.exit({status})"]


def test_steps_of_the_compiling_are_told_now_and_then(installing, tmp_path, capsys):
    steps = [f"  [{step}/90] Building CXX object clip.cpp.o" for step in range(1, 91)]
    assert installing.run(saying("Collecting llama-cpp-python", *steps), tmp_path / "log") == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "llama.cpp is compiled, once: pip keeps the result"
    assert re.fullmatch(r"llama.cpp: 1 of 90 steps after \d:\d\d minutes", told[1])
    assert told[-1].startswith("llama.cpp: 90 of 90 steps after ")
    assert len(told) < 20


def test_a_wheel_that_is_kept_tells_no_steps(installing, tmp_path, capsys):
    assert installing.run(saying("Using cached llama_cpp_python.whl"), tmp_path / "log") == 0
    assert capsys.readouterr() == ("", "")


def test_a_failure_shows_its_end_and_names_the_log(installing, tmp_path, capsys):
    lines = [line for number in range(100) for line in (f"line {number}", f"[{number}/100] g++ " + "-W " * 200)]
    assert installing.run(saying(*lines, "fatal error: no compiler", status=3), tmp_path / "log") == 3
    errors = capsys.readouterr().err.splitlines()
    assert errors[0] == "line 61"
    assert errors[-2:] == [
        "fatal error: no compiler",
        f"llama-cpp-python was not installed; all that pip said is in {tmp_path / 'log'}",
    ]
    assert (tmp_path / "log").read_text(encoding="utf-8").startswith("line 0\n")


def test_cmake_reads_the_users_arguments_and_ours(installing, monkeypatch):
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_NATIVE=OFF")
    monkeypatch.setattr(installing, "FOLDER", Path("/a folder"))
    told = installing.environment()["CMAKE_ARGS"]
    assert told == "-DGGML_NATIVE=OFF '-DCMAKE_PROJECT_llama_cpp_INCLUDE=/a folder/llama_cpp_python.cmake'"


# As llama-cpp-python and llama.cpp have it: the library of the command line is forced on.
PROJECT = """
cmake_minimum_required(VERSION 3.21)
project(llama_cpp CXX)
set(LLAMA_BUILD_COMMON ON CACHE BOOL "" FORCE)
add_subdirectory(vendor)
"""
VENDOR = """
option(LLAMA_BUILD_COMMON "" OFF)
if(LLAMA_BUILD_COMMON)
    add_library(llama-common common.cpp)
endif()
add_library(mtmd SHARED mtmd.cpp mtmd.h models/models.h models/a.cpp models/b.cpp)
"""


def test_the_vision_models_are_compiled_together_and_the_command_line_is_not(tmp_path):
    (tmp_path / "vendor" / "models").mkdir(parents=True)
    (tmp_path / "CMakeLists.txt").write_text(PROJECT, encoding="utf-8")
    (tmp_path / "vendor" / "CMakeLists.txt").write_text(VENDOR, encoding="utf-8")
    for name in ("common.cpp", "mtmd.cpp", "mtmd.h", "models/models.h", "models/a.cpp", "models/b.cpp"):
        (tmp_path / "vendor" / name).touch()
    tools = Path(sys.executable).parent
    include = f"-DCMAKE_PROJECT_llama_cpp_INCLUDE={FOLDER / 'llama_cpp_python.cmake'}"
    configure = [tools / "cmake", "-S", tmp_path, "-B", tmp_path / "build", "-G", "Ninja", include]
    configure += [f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}", "-DCMAKE_CXX_COMPILER_WORKS=1"]
    done = subprocess.run(configure, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = subprocess.run([tools / "ninja", "-C", tmp_path / "build", "-t", "targets", "all"], capture_output=True)
    objects = re.findall(rb"(\w+)\.dir/(\S+)\.o: CXX", names.stdout)
    assert sorted(objects) == [(b"mtmd", b"Unity/unity_0_cxx.cxx"), (b"mtmd", b"mtmd.cpp")]


@pytest.mark.parametrize("release", ["0.3.32", "0.3.37"])
def test_cmake_refuses_a_release_outside_the_window(tmp_path, release):
    """0.3.32 has the ggml of 0.3.33, so that tells nothing."""
    (tmp_path / "llama_cpp").mkdir()
    (tmp_path / "llama_cpp" / "__init__.py").touch()
    about = tmp_path / f"llama_cpp_python-{release}.dist-info" / "METADATA"
    about.parent.mkdir()
    about.write_text(f"Metadata-Version: 2.1\nName: llama_cpp_python\nVersion: {release}\n")
    tools = Path(sys.executable).parent
    configure = [tools / "cmake", "-S", FOLDER.parent, "-B", tmp_path / "build", "-G", "Ninja", "-DAUTODECO_PYTHON=ON"]
    configure += [f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}", f"-DPython_EXECUTABLE={sys.executable}"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(configure, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert f"autodeco: llama-cpp-python {release} is installed, this release builds with >=0.3.33,<0.3.37" in said
