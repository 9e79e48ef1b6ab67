"""A module of another release than the library is refused in one line, never run."""

import ctypes
import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import llama_cpp
import pytest

from autodeco import native, release
from autodeco.errors import InputError
from autodeco.export import llama_cpp_source

INSTALLED = llama_cpp.__version__
OTHER = next(version for version in llama_cpp_source.RELEASES if version != INSTALLED)


def ended(code: str, **environment: str) -> list[str]:
    """The last lines of a Python that ends by an exception."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    assert done.returncode == 1, (done.returncode, done.stderr)
    return done.stderr.splitlines()


def test_another_version_is_an_import_error_and_bad_input_that_says_what_to_install():
    with pytest.raises(ImportError, match=r"built for llama-cpp-python 0\.0\.1, but 0\.0\.2 is installed") as caught:
        release.check_version("0.0.1", "0.0.2")
    assert isinstance(caught.value, InputError)
    assert "run `pip install llama-cpp-python==0.0.1`" in str(caught.value)
    assert "\n" not in str(caught.value)
    release.check_version("0.0.1", "0.0.1")


def test_the_module_was_built_for_the_installed_version():
    assert INSTALLED == native.BUILT_AGAINST


def test_a_mismatch_stops_the_import(tmp_path):
    """Before anything of the compiled module is used."""
    lines = ended("import llama_cpp; llama_cpp.__version__ = '9.9.9'; import autodeco.native")
    assert lines[-1].startswith("autodeco.release.WrongRelease: autodeco was built for llama-cpp-python")
    assert "9.9.9 is installed" in lines[-1]


def test_a_command_tells_a_mismatch_in_one_line(smollm2):
    code = "import sys, llama_cpp; llama_cpp.__version__ = '9.9.9'; from autodeco.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "generate", "one", "-m", smollm2]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("autodeco: error: autodeco was built for llama-cpp-python")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("built", "loaded", "wrong"), [("1.2.3", "1.2.4", True), ("1.2.3", "1.2.3", False), ("", "1", False)]
)
def test_a_library_of_another_version_is_refused_where_the_build_knew_its_own(built, loaded, wrong):
    if wrong:
        with pytest.raises(
            release.WrongRelease, match=r"built for ggml 1\.2\.3, but the llama\.cpp that is loaded has 1\.2\.4"
        ):
            release.check_library(built, loaded)
    else:
        release.check_library(built, loaded)


def test_the_build_knew_the_version_of_the_library_and_sees_the_one_that_is_loaded():
    version = llama_cpp.llama_cpp._lib.ggml_version
    version.restype = ctypes.c_char_p
    assert native._native.loaded_ggml() == version().decode() == native._native.GGML_VERSION


def test_every_structure_that_is_handed_over_has_its_layout_compared():
    layout = native._native.LAYOUT
    assert layout["llama_token_data"] == 12
    assert layout["llama_context_params"] == ctypes.sizeof(llama_cpp.llama_context_params)
    assert len(layout) == 10
    for name in layout:
        with pytest.raises(release.WrongRelease, match=f"^{name} is {layout[name] + 8} bytes in autodeco's"):
            release.check_layout({**layout, name: layout[name] + 8})


def test_a_field_that_moved_stops_the_import():
    """As in a package that was changed, or put together of two releases."""
    code = """
import ctypes, llama_cpp
fields = llama_cpp.llama_context_params._fields_
class Moved(ctypes.Structure):
    _fields_ = [fields[1], fields[0], *fields[2:3], ("more", ctypes.c_int64), *fields[3:]]
llama_cpp.llama_context_params = Moved
import autodeco.native
"""
    assert "WrongRelease: llama_context_params is " in ended(code)[-1]


def test_a_module_that_does_not_load_names_the_release_it_was_built_for(monkeypatch):
    """Where the installed library lacks a function."""
    monkeypatch.setattr(importlib.metadata, "version", lambda name: OTHER)
    wrong = release.not_loaded(ImportError("undefined symbol: llama_of_tomorrow"))
    assert str(wrong).startswith(f"autodeco was built for llama-cpp-python {INSTALLED}, but {OTHER} is installed: run")
    monkeypatch.undo()
    assert "undefined symbol: llama_of_tomorrow" in str(
        release.not_loaded(ImportError("undefined symbol: llama_of_tomorrow"))
    )


@pytest.mark.skipif(sys.platform != "linux", reason="a library in C is compiled")
def test_another_library_in_the_place_of_llama_cpps_is_one_line(tmp_path):
    """One that LLAMA_CPP_LIB_PATH names, with another ggml below it."""
    if shutil.which("cc") is None:
        pytest.skip("wants a C compiler")
    lib = Path(llama_cpp.__file__).parent / "lib"
    for file in lib.glob("*.so*"):
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "older.c").write_text('const char * ggml_version(void) { return "0.0.7"; }\n')
    # found before the real one, since a preloaded library is the first that names are looked up in
    subprocess.run(["cc", "-shared", "-fPIC", "-o", "older.so", "older.c"], cwd=tmp_path, check=True)
    lines = ended("import autodeco.native", LLAMA_CPP_LIB_PATH=str(tmp_path), LD_PRELOAD=str(tmp_path / "older.so"))
    assert "the llama.cpp that is loaded has 0.0.7" in lines[-1]
