"""llama.cpp's own converter and C++ source, of exactly a version that we know, from a pinned source package.

The wheel holds the library only; the source package of llama-cpp-python holds the whole llama.cpp tree.
"""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

from autodeco.errors import InputError
from autodeco.runs.atomic import scratch_folder

# The releases that autodeco builds with, and the SHA-256 of their source packages; pyproject.toml has the same window.
RELEASES = {
    "0.3.33": "369ba03d02caaef42c1ed07bbdc454f7436e47c7675b8b9757fa13fbac6acd92",
    "0.3.34": "d849d286d808284f1d3ec1bd6875572430d29d1f9574a010232caa4e9cef0e35",
    "0.3.35": "1139dbb54509074b70893fab8554e3b079aa9f4d312058ce4018ef0019e3de12",
    "0.3.36": "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
}
# What the documents and most tests are of, and the converter.
VERSION = "0.3.36"
# Folders of the package: its own, and llama.cpp's in it.
PACKAGE = f"llama_cpp_python-{VERSION}/"
LLAMA_CPP = PACKAGE + "vendor/llama.cpp/"
CONVERTER = ("convert_hf_to_gguf.py", "LICENSE", "conversion/", "gguf-py/gguf/")
LIBRARY = ("CMakeLists.txt", "LICENSE", "licenses/", "cmake/", "common/", "ggml/", "include/", "src/", "vendor/")
# and of its servers, less the sources of a web page, which only a network could build
SERVER = (
    "tools/rpc/rpc-server.cpp",
    "tools/rpc/CMakeLists.txt",
    "tools/server/main.cpp",
    "tools/server/server",
    "tools/mtmd/CMakeLists.txt",
    "tools/mtmd/clip",
    "tools/mtmd/debug/",
    "tools/mtmd/models/",
    "tools/mtmd/mtmd",
    "tools/ui/ui.",
)
# what our tests build of it besides: its generator of tiny models
GENERATOR = "tests/test-llama-archs.cpp"


def cache_folder() -> Path:
    """Where the converter is kept: $XDG_CACHE_HOME/autodeco, or ~/.cache/autodeco."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "autodeco"


def converter_script() -> Path:
    """Path of convert_hf_to_gguf.py of the pinned version, fetched (77 MB) if it is not in the cache yet.

    Raises InputError if the package cannot be fetched or is not, byte for byte, the one that is pinned."""
    folder = cache_folder() / f"llama.cpp-of-llama-cpp-python-{VERSION}"
    return unpacked(folder, CONVERTER) / "convert_hf_to_gguf.py"


def library_source(folder: Path, version: str = VERSION) -> Path:
    """``folder`` with what CMake needs to build llama.cpp of llama-cpp-python ``version``, its servers and its
    generator of tiny models, fetched (77 MB) if it is not there.

    Raises InputError if the package cannot be fetched or is not, byte for byte, the one that is pinned."""
    if version not in RELEASES:
        raise InputError(f"llama-cpp-python {version}: is not known here; give one of {', '.join(RELEASES)}")
    wanted = (SERVER[0], GENERATOR, *LIBRARY, *SERVER[1:])
    return unpacked(folder, wanted, LLAMA_CPP.replace(VERSION, version), version)


def unpacked(folder: Path, wanted: tuple[str, ...], root: str = LLAMA_CPP, version: str = VERSION) -> Path:
    """``folder`` with the files of the package that begin with ``root`` and one of ``wanted``, less ``root``; fetched
    (77 MB) unless ``wanted[0]`` is there.

    Raises InputError if the package cannot be fetched or is not, byte for byte, the one that is pinned."""
    marker = folder / wanted[0]
    if marker.exists():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(folder.parent) as scratch:
            parts = scratch / "parts"
            _unpack(_fetch(scratch, version), parts, wanted, root)
            if folder.exists():  # of an older release, which wanted less
                _add(parts, folder)
            else:
                parts.rename(folder)
    except (OSError, tarfile.TarError) as error:
        # Another process may have come first; then what it put there is as good.
        if not marker.exists():
            raise InputError(f"{folder}: llama.cpp's source cannot be kept there ({error}); free space") from error
    return folder


def _add(parts: Path, folder: Path) -> None:
    """Move what ``folder`` lacks of ``parts`` there."""
    for file in sorted(path for path in parts.rglob("*") if path.is_file()):
        target = folder / file.relative_to(parts)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            file.rename(target)


def _fetch(folder: Path, version: str) -> Path:
    # pip itself checks the hash, and follows the user's own settings for indexes, proxies and certificates.
    requirement = folder / "requirement.txt"
    requirement.write_text(f"llama-cpp-python=={version} --hash=sha256:{RELEASES[version]}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python"]
    command += ["--require-hashes", "--requirement", str(requirement), "--dest", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(folder.glob("llama_cpp_python-*.tar.gz"))
    if result.returncode or len(archives) != 1:
        lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
        raise InputError(
            f"llama-cpp-python {version}: its source package, which holds llama.cpp, cannot be fetched ({lines[-1]}); "
            "check the network. To export without it, convert the model yourself and give the GGUF with --base"
        )
    return archives[0]


def _unpack(archive: Path, folder: Path, wanted: tuple[str, ...], root: str) -> None:
    with tarfile.open(archive) as tar:
        # Python before 3.11.4 has no filters; pip has checked the archive's hash
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        members = []
        for member in tar:
            inside = member.name.removeprefix(root)
            if member.isfile() and inside != member.name and inside.startswith(wanted):
                member.name = inside
                members.append(member)
        tar.extractall(folder, members)
