"""Serve a model with its heads: OpenAI's API, and at /autodeco a page that shows what was picked for every token."""

import argparse
import socket
import sys
import warnings
from dataclasses import replace

from autodeco.errors import InputError
from autodeco.serve.options import IGNORE, MULTIPLY, OVERRIDE, Listening, Served
from autodeco.settings.given import add_settings, given_settings
from autodeco.settings.machine import Machine

LEFT = 3  # seconds that answers under way have when the server ends
DONE = {
    IGNORE: "ignored (temperature 0 is greedy)",
    MULTIPLY: "multiplied with what the heads pick",
    OVERRIDE: "taken instead of what the heads pick",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``autodeco serve``."""
    add_settings(parser, Served, Listening, Machine)


def run(args: argparse.Namespace) -> None:
    """Serve until an interrupt or SIGTERM."""
    served, listening, machine = given_settings(args, Served, Listening, Machine)
    if served.model is None:
        from autodeco.base.opening import default_model

        served = replace(served, model=default_model())
    has_keys, _ = bool(listening.api_keys()), listening.origins
    import uvicorn

    from autodeco.serve.app import create_app

    listener = _listen(listening)
    try:
        llm, about = open_model(served, machine)
        alias = served.alias or served.model.name.removesuffix(".gguf")
        app = create_app(llm, alias, served.client_sampling, listening, about)
        _announce(listening, listener.getsockname()[1], served.client_sampling, about, has_keys)
        config = uvicorn.Config(app, log_level="warning", server_header=False, timeout_graceful_shutdown=LEFT)
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        listener.close()


def _listen(listening: Listening) -> socket.socket:
    """A socket at the address; raises InputError where there can be none."""
    try:
        found = socket.getaddrinfo(listening.host, listening.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except (OSError, ValueError) as error:  # ValueError: letters that no name of a machine has
        why = error.strerror if isinstance(error, OSError) else "is no name of a machine"
        raise InputError(
            f"{listening.host}:{listening.port}: {why}; give another --port, or an address of this machine"
        ) from None
    return listener


def open_model(served: Served, machine: Machine):
    """The model, and what /props says of its heads."""
    from autodeco.base.opening import check_gguf, loaded
    from autodeco.serve.about import about_heads
    from autodeco.serve.served_llama import ServedLlama

    path = check_gguf(served.model)
    settings = {"n_ctx": served.context, **machine.opening}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of heads for another file, which _announce says
        llm = loaded(lambda: ServedLlama(str(path), served.heads, verbose=False, **settings), path)
    return llm, about_heads(llm)


def _announce(listening: Listening, port: int, policy: str, about: dict | None, has_keys: bool) -> None:
    from autodeco.terminal import say

    host = f"[{listening.host}]" if ":" in listening.host else listening.host
    lines = [f"autodeco serve: API http://{host}:{port}/v1   page http://{host}:{port}/autodeco"]
    if about is None:
        lines.append("no heads: temperature and top_p are those of requests (default 1)")
    else:
        made = "made for this model" if about["fits"] else about["warning"]
        lines += [f"heads: {about['file']}: {made}", f"temperature and top_p of requests are {DONE[policy]}"]
    if about and about["verdict"]:
        lines.append(f"verdict: {about['verdict']}")
    lines.append("one request at a time; autodeco-server, llama.cpp's server with heads, answers many at once")
    for line in lines:
        say(line, file=sys.stderr, flush=True)
    if not (listening.is_local or has_keys):
        warnings.warn("everybody who reaches this address can use the server; give --api-key-file", stacklevel=1)
