"""A build of the C++ for another machine or device, and what it draws beside the build for this processor."""

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from autodeco.base.opening import default_model
from autodeco.export import cli as export_cli

ROOT = Path(__file__).parents[3]
TOKENS = 20
SECONDS = 3600  # an emulated processor takes seconds a token


@dataclass(frozen=True)
class EdgeBuild:
    """A folder with ``autodeco-cli`` and the C++ tests, run by ``emulator`` and in ``environment`` where given."""

    folder: Path
    emulator: tuple[str, ...] = ()
    options: tuple[str, ...] = ()  # of autodeco-cli
    environment: dict[str, str] = field(default_factory=dict)
    suffix: str = ""  # of a program's file

    def command(self, program: str, *arguments) -> list[str]:
        """The command that runs ``program``."""
        return [*self.emulator, str(self.folder / f"{program}{self.suffix}"), *map(str, arguments)]

    def run(self, program: str, *arguments, input: str = "", **environment: str) -> subprocess.CompletedProcess:
        """Run ``program`` to its end, whatever that is; no line break of its input and output is translated."""
        # into files: Wine's own processes, which stay for a while, would keep a pipe open
        with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as wrong:
            result = subprocess.run(
                self.command(program, *arguments),
                input=input.encode(),
                stdout=told,
                stderr=wrong,
                check=False,
                timeout=SECONDS,
                env=os.environ | self.environment | environment,
            )
            for file in (told, wrong):
                file.seek(0)
            result.stdout, result.stderr = (file.read().decode(errors="replace") for file in (told, wrong))
        return result

    def output(self, program: str, *arguments, **options) -> str:
        """What ``program`` prints; it must end well."""
        result = self.run(program, *arguments, **options)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def claims(self, program: str, *arguments, **environment: str) -> str:
        """What a C++ test prints, none of whose claims fails."""
        told = self.output(program, *arguments, **environment)
        assert ", 0 failed" in told
        return told

    def generated(self, model: Path, heads: Path, *options, **environment: str) -> list[dict]:
        """The tokens of a short text, greedy unless ``options`` say otherwise, each with what was picked for it."""
        command = ["-m", model, "--heads", heads, "-p", "The capital of France is", "-n", TOKENS, "-t", 1, "-c", 256]
        command += ["--temp", 0, "--ignore-eos", "--json", *self.options, *options]
        return [json.loads(line) for line in self.output("autodeco-cli", *command, **environment).splitlines()][:-1]


def exported_heads(folder: Path, layout: str) -> Path:
    """Heads of random weights for SmolLM2, float16."""
    path = folder / f"{layout}.gguf"
    golden = ROOT / "tests" / "golden" / "smollm2.heads.safetensors"
    arguments = [golden, "--base", default_model(), "--layout", layout, "--type", "f16", "-o", path]
    arguments += ["--sampling", "none"]  # else the model runs for the heads' mean
    assert export_cli.main([str(argument) for argument in arguments]) == 0
    return path


def same_tokens(a: list[dict], b: list[dict]) -> int:
    """How many tokens two texts begin with together."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x["token"] != y["token"]), len(a))


def largest_difference(a: list[dict], b: list[dict], n: int) -> float:
    """Of temperature or top-p, among the first ``n`` tokens."""
    return max(abs(x[key] - y[key]) for x, y in zip(a[:n], b[:n], strict=True) for key in ("temperature", "top_p"))
