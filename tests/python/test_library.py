"""The C library: its interface, and a project outside the tree that finds it by CMake and by pkg-config."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import llama_cpp
import pytest

from builders.compiled import compiled

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "examples" / "cmake"
PACKAGES = Path(llama_cpp.__file__).parents[1]
CMAKE = Path(sys.executable).with_name("cmake")
TOKEN = re.compile(r"token \d+, temperature (\d\.\d+), top-p (\d\.\d+), nucleus \d+\n")


def run(*command, **options) -> subprocess.CompletedProcess:
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


C, CXX = os.environ.get("CC", "cc"), os.environ.get("CXX", "c++")


# llama.h, a header of the system here, is C11 itself.
@pytest.mark.parametrize("compiler", [(C, "c", "c99"), (C, "c", "c17"), (CXX, "c++", "c++11"), (CXX, "c++", "c++20")])
def test_the_header_compiles_by_itself_as_c_and_as_c_plus_plus(compiler, tmp_path):
    program, language, standard = compiler
    source = tmp_path / "source"
    function = "int code(struct autodeco_error e);\nint code(struct autodeco_error e) { return e.code; }\n"
    source.write_text(f'#include "autodeco.h"\n{function}')
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"] + (["-Wstrict-prototypes"] if language == "c" else [])
    include = ["-I", REPOSITORY / "cpp_ext" / "include", "-isystem", PACKAGES / "include"]
    run(program, f"-std={standard}", "-x", language, *warnings, *include, "-fsyntax-only", source)


def test_every_function_of_the_header_is_in_the_library(prefix):
    header = (REPOSITORY / "cpp_ext" / "include" / "autodeco.h").read_text()
    declared = set(re.findall(r"^AUTODECO_API .*?(autodeco_\w+)\s*\(", header, re.MULTILINE))
    symbols = run("nm", "--defined-only", next(prefix.rglob("libautodeco.a"))).stdout
    assert declared <= set(re.findall(r" T (autodeco_\w+)", symbols))
    assert len(declared) > 20


@pytest.fixture(scope="module")
def prefix(tmp_path_factory) -> Path:
    """Where the library that `make strict` built is installed."""
    folder = tmp_path_factory.mktemp("prefix")
    run(CMAKE, "--install", compiled(), "--prefix", folder, "--component", "autodeco")
    return folder


@pytest.fixture(scope="module")
def outside(tmp_path_factory) -> Path:
    """The example, outside the tree."""
    return Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("outside") / "project"))


def test_find_package_gives_all_that_the_example_needs(prefix, outside, smollm2, exported):
    build = outside / "build"
    run(CMAKE, "-S", outside, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix};{PACKAGES}")
    run(CMAKE, "--build", build)
    sidecar = TOKEN.fullmatch(run(build / "ten_lines", smollm2, exported("f16")).stdout)
    for both in (exported("f16", "merged"), exported("f16", "embedded")):
        assert TOKEN.fullmatch(run(build / "ten_lines", both, both).stdout).groups() == sidecar.groups()
    assert 0 < float(sidecar[1]) < 2
    assert 0 < float(sidecar[2]) < 1
    failed = subprocess.run([build / "ten_lines", smollm2, smollm2], capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert "holds no AutoDeco heads" in failed.stderr


@pytest.mark.skipif(not shutil.which("pkg-config"), reason="pkg-config is not installed")
def test_pkg_config_gives_all_that_the_example_needs(prefix, outside, smollm2, exported):
    environment = {**os.environ, "PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")}
    flags = run("pkg-config", "--cflags", "--libs", "autodeco", env=environment).stdout.split()
    program = outside / "by_pkg_config"
    run(os.environ.get("CC", "cc"), outside / "ten_lines.c", "-o", program, *flags)
    libraries = {**os.environ, "LD_LIBRARY_PATH": str(Path(llama_cpp.__file__).parent / "lib")}
    assert TOKEN.fullmatch(run(program, smollm2, exported("f16"), env=libraries).stdout)


ASK = """
import org.autodeco.Autodeco;

class Ask {
    public static void main(String[] files) {
        try {
            new Autodeco(files[0], files[0], 512, 1);
        } catch (RuntimeException e) {
            System.out.println(e.getMessage());
        }
        try (Autodeco autodeco = new Autodeco(files[0], files[1], 512, 1)) {
            int[] tokens = {0};
            autodeco.answer("What is the capital of France?", 6, (text, temperature, topP) -> {
                return text.length > 0 && temperature > 0 && temperature < 2 && topP > 0 && topP < 1 && ++tokens[0] < 4;
            });
            System.out.println(tokens[0]);
            try {
                autodeco.answer("word ".repeat(600), 6, (text, temperature, topP) -> true);
            } catch (RuntimeException e) {
                System.out.println(e.getMessage());
            }
        }
    }
}
"""


@pytest.mark.skipif(not shutil.which("javac"), reason="no JDK is installed")
def test_the_sketch_for_android_answers_on_a_desktop(prefix, tmp_path, smollm2, exported):
    source, build = REPOSITORY / "examples" / "android", tmp_path / "build"
    run(CMAKE, "-S", source, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix};{PACKAGES}")
    run(CMAKE, "--build", build)
    (tmp_path / "Ask.java").write_text(ASK)
    run("javac", "-d", tmp_path, source / "Autodeco.java", tmp_path / "Ask.java")
    java = ["java", f"-Djava.library.path={build}", "-cp", tmp_path, "Ask", smollm2, exported("f16")]
    refused, answered, too_long = run(*java).stdout.splitlines()
    assert "holds no AutoDeco heads" in refused
    assert answered == "4"  # the listener's false ends the answer
    assert too_long.endswith("tokens, the context holds 512")
