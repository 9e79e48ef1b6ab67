"""What is published: the source package, the wheel of the module, and what each of them requires."""

import email.parser
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from builders.server import running

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
PROGRAMS = tomllib.loads((REPOSITORY / "packages" / "programs" / "pyproject.toml").read_text(encoding="utf-8"))
INSTALLED = importlib.metadata.version("llama-cpp-python")


def backend(hook: str, folder: Path, source: Path = REPOSITORY, objects: Path | None = None) -> Path:
    """What a hook of the build backend writes to ``folder``, as pip calls it in ``source``."""
    pytest.importorskip("scikit_build_core", minversion="1.1")
    code = f"import sys, scikit_build_core.build as b; print(b.{hook}(sys.argv[1], {{'build-dir': sys.argv[2]}}))"
    command = [sys.executable, "-c", code, folder, objects or folder / "objects"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where cmake and ninja are
    done = subprocess.run(
        command, cwd=source, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def source_package(tmp_path_factory) -> tarfile.TarFile:
    with tarfile.open(backend("build_sdist", tmp_path_factory.mktemp("sdist"))) as package:
        yield package


def listed(*options: str) -> set[str]:
    """Files of the repository, by git."""
    command = ["git", "ls-files", "-z", *options]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return set(filter(None, done.stdout.split("\0")))


def test_the_source_package_holds_what_builds_it_and_nothing_else(source_package):
    held = {name.partition("/")[2] for name in source_package.getnames()}
    wanted = ("autodeco/", "export/", "cpp_ext/", "cmake/", "third_party/")
    files = {name for name in listed() if name.startswith(wanted) and (REPOSITORY / name).exists()}
    assert len(files) > 250
    files |= {
        "CMakeLists.txt",
        "CMakePresets.json",
        "pyproject.toml",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "PKG-INFO",
    }
    untracked = listed("--others", "--exclude-standard")
    assert held - untracked == files - untracked


def test_the_source_package_takes_every_release_of_the_window_and_says_that_wheels_take_one(source_package):
    name = next(name for name in source_package.getnames() if name.endswith("PKG-INFO"))
    metadata = email.parser.Parser().parsestr(source_package.extractfile(name).read().decode())
    assert metadata["Dynamic"] == "Requires-Dist"
    required = [line for line in metadata.get_all("Requires-Dist") if re.match(r"llama-cpp-python[<>=]", line)]
    assert len(required) == 1
    window = next(line for line in PROJECT["project"]["dependencies"] if line.startswith("llama-cpp-python"))
    assert set(required[0].removeprefix("llama-cpp-python").split(",")) == set(
        window.removeprefix("llama-cpp-python").split(",")
    )


def test_the_installed_package_requires_the_release_that_it_was_built_for():
    """Metadata of an editable installation, which is made as a wheel's is."""
    assert f"llama-cpp-python=={INSTALLED}" in importlib.metadata.requires("autodeco")


@pytest.mark.parametrize("state", ["sdist", "wheel", "editable", "metadata_wheel", "metadata_editable"])
def test_only_the_source_package_is_for_several_releases(state):
    spec = importlib.util.spec_from_file_location("built_for", REPOSITORY / "cmake" / "built_for.py")
    built_for = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(built_for)
    built_for.build_state(state)
    added = [] if state == "sdist" else [f"llama-cpp-python=={INSTALLED}"]
    assert built_for.dynamic_metadata({}, {}) == {"dependencies": added}


def test_the_programs_have_the_version_of_the_package_that_pulls_them():
    version = PROJECT["project"]["version"]
    assert PROGRAMS["project"]["version"] == version
    assert PROJECT["project"]["optional-dependencies"]["programs"] == [f"autodeco-programs=={version}"]


def test_the_licences_of_what_the_programs_hold_are_beside_it():
    assert (REPOSITORY / "packages" / "programs" / "LICENSE").read_text(encoding="utf-8") == (
        REPOSITORY / "LICENSE"
    ).read_text(encoding="utf-8")
    header = (REPOSITORY / "third_party" / "cxxopts.hpp").read_text(encoding="utf-8")
    assert (REPOSITORY / "third_party" / "LICENSE-cxxopts").read_text(encoding="utf-8").strip() in header


@pytest.mark.slow
def test_a_wheel_names_no_place_of_the_machine_that_built_it(tmp_path):
    """And so finds libllama where llama_cpp has loaded it from, in whatever site-packages."""
    with zipfile.ZipFile(backend("build_wheel", tmp_path)) as wheel:
        module = next(name for name in wheel.namelist() if "/_native" in name and not name.endswith(".pyi"))
        data = wheel.read(module)
        names = wheel.namelist()
    assert str(Path.home()).encode() not in data
    assert str(REPOSITORY).encode() not in data
    assert b"site-packages" not in data
    assert not any("libllama" in name or "libggml" in name for name in names)
    if sys.platform == "linux":
        (tmp_path / "module.so").write_bytes(data)
        dynamic = subprocess.run(["readelf", "-d", tmp_path / "module.so"], capture_output=True, text=True, check=True)
        assert "libllama.so.0" in dynamic.stdout
        assert not re.search(r"R(UN)?PATH", dynamic.stdout)


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Path:
    """The wheel of the programs, unpacked. Compiles llama.cpp, once: the objects stay in build/programs."""
    if sys.platform != "linux" or not (REPOSITORY / "build" / "llama.cpp").exists():
        pytest.skip("wants Linux, and the source that `make strict` unpacks")
    folder = tmp_path_factory.mktemp("programs")
    wheel = backend("build_wheel", folder, REPOSITORY / "packages" / "programs", REPOSITORY / "build" / "programs")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "wheel")
    for program in (folder / "wheel").glob("*.data/scripts/*"):
        program.chmod(0o755)
    return folder / "wheel"


def program(programs: Path, name: str) -> Path:
    return next(programs.glob(f"*.data/scripts/{name}"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["autodeco-cli", "autodeco-server"])
def test_a_program_of_the_wheel_needs_no_library(programs, name):
    dynamic = subprocess.run(["readelf", "-d", program(programs, name)], capture_output=True, text=True, check=True)
    assert "NEEDED" not in dynamic.stdout
    subprocess.run([program(programs, name), "--version"], check=True, env={})


@pytest.mark.slow
def test_the_licences_of_what_the_programs_hold_are_in_their_wheel(programs):
    licences = next(programs.glob("*.dist-info/licenses"))
    held = {str(path.relative_to(licences)) for path in licences.rglob("*") if path.is_file()}
    assert held == {
        "LICENSE",
        "third_party/LICENSE-cxxopts",
        "third_party/llama.cpp/LICENSE",
        "third_party/llama.cpp/licenses/LICENSE-jsonhpp",
        "third_party/llama.cpp/vendor/cpp-httplib/LICENSE",
        "third_party/llama.cpp/vendor/hash/rotate-bits/LICENSE.md",
        "third_party/llama.cpp/vendor/hash/sha256/LICENSE",
        "third_party/llama.cpp/vendor/hash/xxhash/LICENSE",
    }


@pytest.mark.slow
def test_the_programs_of_the_wheel_draw_with_heads(programs, smollm2, tmp_path, monkeypatch):
    heads = REPOSITORY / "examples" / "smollm2" / "results" / "reward.gguf"
    command = [program(programs, "autodeco-cli"), "-m", smollm2, "--heads", heads, "-n", "3", "-s", "1", "-t", "1"]
    command += ["-p", "The capital of France is"]
    assert "Paris" in subprocess.run(command, capture_output=True, text=True, check=True, env={}).stdout
    monkeypatch.setenv("AUTODECO_SERVER", str(program(programs, "autodeco-server")))
    with running(tmp_path / "server.log", "-m", smollm2, "--autodeco", heads, "-c", 256) as server:
        assert json.loads(server.get("/health")) == {"status": "ok"}
        question = [{"role": "user", "content": "What is the capital of France?"}]
        answer = server.post("/v1/chat/completions", messages=question, max_tokens=8, seed=1, autodeco=True)
    (choice,) = answer["choices"]
    assert choice["message"]["content"]
    assert len(choice["autodeco"]["temperature"]) == len(choice["autodeco"]["top_p"]) == 8
    assert all(0 < value < 2 for value in choice["autodeco"]["temperature"])
    assert all(0 < value < 1 for value in choice["autodeco"]["top_p"])
