"""Loopback servers that take mail and webhooks and remember them."""

import base64
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, TypeVar

from tests.servers import wait_until

WAIT_SECONDS = 20.0  # nothing here takes that long unless it is broken
ANSWERS = {
    "EHLO": b"250-sink\r\n250 AUTH PLAIN\r\n",
    "AUTH": b"235 welcome\r\n",
    "DATA": b"354 go on\r\n",
    "QUIT": b"221 bye\r\n",
}
Server = TypeVar("Server", bound=socketserver.TCPServer)


class Post(NamedTuple):
    """A request that arrived."""

    path: str
    authorization: str | None
    body: bytes


class HttpSink(ThreadingHTTPServer):
    """Answers every POST with 200."""

    def __init__(self) -> None:
        self.posts: list[Post] = []
        super().__init__(("127.0.0.1", 0), _HttpHandler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"

    @property
    def text(self) -> str:
        """Return the bodies of all that arrived."""
        return "".join(post.body.decode() for post in self.posts)

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.text, WAIT_SECONDS)


class _HttpHandler(BaseHTTPRequestHandler):
    server: HttpSink

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        post = Post(self.path, self.headers["Authorization"], body)
        self.server.posts.append(post)
        # Slack's own answer, which newer Alertmanagers look at.
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


class Mail(NamedTuple):
    """A mail that arrived, and with which credentials."""

    user: str
    password: str
    recipient: str
    message: EmailMessage


class SmtpSink(socketserver.ThreadingTCPServer):
    """As much of SMTP as Alertmanager needs, with AUTH PLAIN."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []
        super().__init__(("127.0.0.1", 0), _SmtpHandler)


class _SmtpHandler(socketserver.StreamRequestHandler):
    server: SmtpSink

    def handle(self) -> None:
        said = {"AUTH": "AUTH PLAIN AAA="}  # nobody
        self.wfile.write(b"220 sink\r\n")
        while line := self.rfile.readline().decode().rstrip("\r\n"):
            verb = line.split()[0].upper()
            said[verb] = line
            self.wfile.write(ANSWERS.get(verb, b"250 ok\r\n"))
            if verb == "DATA":
                self._take(said)
            elif verb == "QUIT":
                return

    def _take(self, said: dict[str, str]) -> None:
        data = b""
        while (line := self.rfile.readline()) not in (b"", b".\r\n"):
            data += line.removeprefix(b".")
        _, user, password = (
            base64.b64decode(said["AUTH"].split()[2]).decode().split("\0")
        )
        recipient = said["RCPT"].partition("<")[2].partition(">")[0]
        message = BytesParser(EmailMessage, policy=default).parsebytes(data)
        self.server.mails.append(Mail(user, password, recipient, message))
        self.wfile.write(b"250 taken\r\n")


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Serve in a thread."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
