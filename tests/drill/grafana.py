"""A stand-in for Grafana, which no package brings: a page of metrics, no more."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from tests.servers import find_free_port


class Grafana:
    """Answers on its address while it runs; ``samples`` is the length of its page."""

    def __init__(self) -> None:
        self.port = find_free_port()
        self.samples = 1
        self._server: HTTPServer | None = None

    @property
    def address(self) -> str:
        """Return host and port."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Begin to answer."""
        grafana = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                lines = (f'page{{n="{n}"}} 1\n' for n in range(grafana.samples))
                page = "".join(lines).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                # Who finds a page too long hangs up.
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(page)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", self.port), Handler)
        serve = self._server.serve_forever
        threading.Thread(target=serve, args=[0.05], daemon=True).start()

    def stop(self) -> None:
        """Hang up."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
