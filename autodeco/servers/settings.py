"""The settings of drawing at servers: they decide where answers are drawn, and how many at a time."""

from dataclasses import dataclass

from autodeco.errors import InputError
from autodeco.settings.options import Options, option


@dataclass(frozen=True)
class ServerSettings(Options):
    """Where answers are drawn, if not here."""

    server: str | None = option(
        None,
        "draw at these servers instead of here, comma-separated: autodeco-server, or others with OpenAI's API for "
        "settings without heads; a key is taken from LLAMA_API_KEY",
        metavar="URL[,URL...]",
    )
    in_flight: int | None = option(
        None, "requests under way at each server (default: as many as it says it has slots, else 32)", least=1
    )
    server_timeout: str = option("30m", "for one answer of a server; then it is asked for again", metavar="TIME")

    @property
    def urls(self) -> list[str]:
        """The addresses, without what follows from the API; raises InputError for what is none."""
        return list(dict.fromkeys(_url(text.strip()) for text in (self.server or "").split(",") if text.strip()))


def _url(text: str) -> str:
    address = text if "://" in text else f"http://{text}"
    scheme, _, rest = address.partition("://")
    if scheme not in ("http", "https") or not rest or any(letter.isspace() for letter in rest) or "@" in rest:
        raise InputError(f"server {text}: is no address; give one as http://127.0.0.1:8080")
    return address.rstrip("/").removesuffix("/v1")
