"""The settings of ``autodeco serve``; names are llama-server's where it has the setting."""

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from autodeco.errors import InputError
from autodeco.settings.opened import Opened, model_option
from autodeco.settings.options import Options, option

IGNORE, MULTIPLY, OVERRIDE = "ignore", "multiply", "override"
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Served(Opened):
    """What is served."""

    model: Path | None = model_option(positional=True)
    alias: str | None = option(None, "the model's name in the API (default: the file's)", short="-a")
    client_sampling: str = option(
        IGNORE,
        "what temperature and top_p of a request do: nothing, multiply what the heads pick, or replace it; "
        "temperature 0 is greedy with each",
        choices=(IGNORE, MULTIPLY, OVERRIDE),
    )


@dataclass(frozen=True)
class Listening(Options):
    """Where requests come from, and which are let in."""

    host: str = option("127.0.0.1", "address to listen on; 0.0.0.0 lets other machines in")
    port: int = option(8080, "0: a free one", least=0, most=65535, hint="0 is a free one")
    api_key: str | None = option(
        None, "keys that requests must have one of, parted by commas (default: $LLAMA_API_KEY)", metavar="KEYS"
    )
    api_key_file: Path | None = option(None, "the same from a file, one a line", metavar="FILE")
    cors_origins: str = option(
        "",
        "web pages of other origins that may use the server, as http://localhost:3000, parted by commas; "
        "* is all (default: none)",
        metavar="ORIGINS",
    )

    @property
    def is_local(self) -> bool:
        """Whether programs of this machine alone reach the server."""
        if self.host in LOOPBACK_NAMES:
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def origins(self) -> frozenset[str]:
        """The origins that ``cors_origins`` names; raises InputError for one that is none."""
        origins = {origin.strip().rstrip("/").lower() for origin in self.cors_origins.split(",")} - {""}
        for origin in origins - {"*"}:
            if "://" not in origin:
                raise InputError(f"cors-origins {origin}: is no origin; give them as http://localhost:3000")
        return frozenset(origins)

    def api_keys(self) -> frozenset[str]:
        """The keys that let a request in, none if every request is; raises InputError for a file without any."""
        given = self.api_key if self.api_key is not None else os.environ.get("LLAMA_API_KEY", "")
        keys = {key.strip() for key in given.split(",")} - {""}
        if self.api_key is not None and not keys:
            raise InputError("api-key: is empty; give a key, or leave it out")
        if self.api_key_file is not None:
            if not self.api_key_file.is_file():  # a device may have no end
                raise InputError(f"{self.api_key_file}: no such file; write one key a line")
            try:
                lines = self.api_key_file.read_text(encoding="utf-8").splitlines()
            except UnicodeDecodeError:
                raise InputError(f"{self.api_key_file}: is no text; write one key a line") from None
            read = {line.strip() for line in lines} - {""}
            if not read:
                raise InputError(f"{self.api_key_file}: holds no key; write one a line")
            keys |= read
        for key in keys:
            if not key.isascii():
                raise InputError("api-key: a key has letters that no HTTP header holds; use ASCII")
        return frozenset(keys)
