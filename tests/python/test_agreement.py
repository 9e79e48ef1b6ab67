"""What is written in two languages, or in two files, is the same in both."""

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import llama_cpp
import pytest
from packaging.specifiers import SpecifierSet

import autodeco
from autodeco.export import llama_cpp_source, schema
from autodeco.settings import limits
from builders.compiled import compiled

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


def constants(*path: str) -> dict[str, float]:
    """The numbers that a C++ header names."""
    text = REPOSITORY.joinpath("cpp_ext", *path).read_text(encoding="utf-8")
    return {name: float(value.rstrip("f")) for name, value in re.findall(r"constexpr \w+ +(\w+) += (-?[\w.-]+);", text)}


def test_the_method_has_the_same_numbers_in_cpp_and_in_python():
    method = constants("src", "method.h")
    kernel_alone = {"N_PROB_STATS", "TOP_P_ROUNDING"}
    both = {"HEAD_WIDTH", "TEMPERATURE_SCALE", "STATS_EPSILON", "GREEDY_TEMPERATURE"}
    assert method.keys() == both | kernel_alone
    assert {name: method[name] for name in both} == {name: getattr(schema, name) for name in both}
    assert method["N_PROB_STATS"] == schema.EXTRA_PROB_STATS - schema.EXTRA_PLAIN


def test_no_number_of_the_method_is_written_out_a_second_time():
    """1e-8, 1e-5 and 6e-8 have a name in method.h, and stand there alone."""
    sources = [p for p in (REPOSITORY / "cpp_ext" / "src").rglob("*") if p.suffix in (".h", ".cpp", ".inl")]
    assert len(sources) > 40
    for path in sources:
        code = re.sub(r"//.*", "", path.read_text(encoding="utf-8"))
        assert path.name == "method.h" or not re.search(r"(?<![\w.])(1e-8|1e-5|6e-8)f?\b", code), path


def test_defaults_of_the_program_are_those_of_python():
    options = constants("cli", "options.h")
    assert options["MAX_DEFAULT_CONTEXT"] == limits.DEFAULT_CONTEXT
    assert options["DEFAULT_PROMPT_BATCH"] == limits.PROMPT_BATCH
    include = Path(llama_cpp.__file__).parents[1] / "include"
    most = re.search(r"#define GGML_MAX_N_THREADS +(\d+)", (include / "ggml.h").read_text(encoding="utf-8"))
    assert int(most[1]) == limits.MOST_THREADS


def test_one_version_of_autodeco():
    version = PROJECT["project"]["version"]
    assert importlib.metadata.version("autodeco") == autodeco.__version__ == version
    shown = subprocess.run([compiled("autodeco-cli"), "--version"], capture_output=True, text=True, check=True).stdout
    assert shown.startswith(f"autodeco-cli {version}, llama.cpp ")


def test_the_c_interface_has_the_version_of_the_package():
    header = (REPOSITORY / "cpp_ext" / "include" / "autodeco.h").read_text(encoding="utf-8")
    numbers = re.findall(r"#define AUTODECO_VERSION_(?:MAJOR|MINOR) (\d+)", header)
    assert numbers == PROJECT["project"]["version"].split(".")[:2]


def test_a_shared_library_below_1_0_promises_the_binary_interface_of_its_minor_version_alone(tmp_path):
    """By CMake itself, with a library of one function in the place of ours."""
    lines = (REPOSITORY / "cmake" / "library.cmake").read_text(encoding="utf-8")
    named = lines[lines.index("if(PROJECT_VERSION_MAJOR") : lines.index("    PUBLIC_HEADER")] + ")"
    (tmp_path / "one.cpp").write_text("int one() { return 1; }\n")
    for version, soversion in (("0.2.0", "0.2"), ("0.3.1", "0.3"), ("1.4.2", "1")):
        project = f"project(named VERSION {version} LANGUAGES CXX)\nadd_library(autodeco SHARED one.cpp)\n"
        asked = "get_target_property(soversion autodeco SOVERSION)\nmessage(STATUS soversion=${soversion}=)\n"
        (tmp_path / "CMakeLists.txt").write_text(f"cmake_minimum_required(VERSION 3.21)\n{project}{named}\n{asked}")
        command = [Path(sys.executable).with_name("cmake"), "-S", tmp_path, "-B", tmp_path / version]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert f"soversion={soversion}=" in said


def test_the_changelog_begins_with_this_version():
    headings = re.findall(r"^## (\S+)", (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == PROJECT["project"]["version"]


def test_nothing_else_states_the_version():
    """Neither the citation nor the templates, in which it would be forgotten."""
    version = PROJECT["project"]["version"]
    for path in (REPOSITORY / "CITATION.cff", *(REPOSITORY / ".github").rglob("*.*")):
        assert version not in path.read_text(encoding="utf-8"), path


def test_one_window_of_llama_cpp_python():
    extras = PROJECT["project"]["optional-dependencies"]
    required = [*PROJECT["build-system"]["requires"], *PROJECT["project"]["dependencies"], *extras["serve"]]
    windows = {SpecifierSet(re.sub(r"^[\w-]+(\[\w+\])?", "", name)) for name in required if "llama-cpp" in name}
    assert len(windows) == 1
    window = windows.pop()
    known = list(llama_cpp_source.RELEASES)
    assert [version for version in (f"0.3.{patch}" for patch in range(100)) if version in window] == known
    assert known[-1] == llama_cpp_source.VERSION  # what the Makefile installs, and most tests run on
    cmake = (REPOSITORY / "cmake" / "llama_cpp.cmake").read_text(encoding="utf-8")
    ggml = re.search(r"set\(LLAMA_CPP_GGML_VERSIONS ([\d. ]+)\)", cmake)[1].split()
    page = (REPOSITORY / "docs" / "install.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (0\.3\.\d+) \| ([\d.]+) \|", page, re.MULTILINE)
    assert rows == list(zip(reversed(known), reversed(ggml), strict=True))
    pins = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
    assert f"llama-cpp-python=={llama_cpp_source.VERSION}\n" in pins


def test_presets_ask_for_the_cmake_that_reads_them():
    first = {2: "3.20", 3: "3.21", 4: "3.23", 5: "3.24", 6: "3.25"}  # cmake-presets(7)
    presets = json.loads((REPOSITORY / "CMakePresets.json").read_text(encoding="utf-8"))["version"]
    asked = re.match(
        r"cmake_minimum_required\(VERSION (\S+)\)", (REPOSITORY / "CMakeLists.txt").read_text(encoding="utf-8")
    )[1]
    assert asked == first[presets]


@pytest.mark.slow
def test_the_source_of_llama_cpp_is_unpacked_before_anything_is_installed(tmp_path):
    """By an interpreter that has the standard library alone; a folder that is there is left alone."""
    (tmp_path / "CMakeLists.txt").touch()
    command = [sys.executable, "-I", "-S", REPOSITORY / "cmake" / "llama_cpp_source.py", tmp_path]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout == f"{tmp_path}\n", result.stderr
