"""What two ends of a connection say to each other: a relay between them that counts."""

import contextlib
import socket
import threading
from collections.abc import Iterator


class Relay:
    """An endpoint that passes every connection on to another one; counts the bytes of each direction."""

    def __init__(self, target: str):
        self.to_server = self.from_server = 0
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(self._target.split(":"))
                for one in (client, server):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for ends in ((client, server, "to_server"), (server, client, "from_server")):
                    threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source: socket.socket, to: socket.socket, count: str) -> None:
        with contextlib.suppress(OSError):
            while part := source.recv(1 << 20):
                setattr(self, count, getattr(self, count) + len(part))
                to.sendall(part)
        with contextlib.suppress(OSError):
            to.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Take no further connection."""
        self._listening.close()


@contextlib.contextmanager
def relayed(*endpoints: str) -> Iterator[list[Relay]]:
    """A relay to each of ``endpoints``."""
    relays = [Relay(endpoint) for endpoint in endpoints]
    try:
        yield relays
    finally:
        for relay in relays:
            relay.close()
