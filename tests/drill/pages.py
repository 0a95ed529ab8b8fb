"""A server of one page of metrics, whatever is asked for."""

import contextlib
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class PageServer(ThreadingHTTPServer):
    """Answers with what a function returns, on a loopback port."""

    request_queue_size = 128

    def __init__(self, page: Callable[[], bytes], **headers: str) -> None:
        self.page = page
        self.headers = {name.replace("_", "-"): text for name, text in headers.items()}
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: PageServer

    def do_GET(self) -> None:
        self.send_response(200)
        for name, text in self.server.headers.items():
            self.send_header(name, text)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # who finds it too long hangs up
            self.wfile.write(self.server.page())

    def log_message(self, *_: object) -> None:
        pass
