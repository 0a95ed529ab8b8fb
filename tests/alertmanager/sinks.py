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

    def find(self, path: str) -> list[Post]:
        return [post for post in self.posts if post.path == path]


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
        user = password = recipient = ""
        self._say("220 sink")
        while line := self.rfile.readline().decode().rstrip("\r\n"):
            match line.split(" ", 1)[0].upper():
                case "EHLO":
                    self._say("250-sink\r\n250 AUTH PLAIN")
                case "AUTH":
                    _, user, password = (
                        base64.b64decode(line.split()[2]).decode().split("\0")
                    )
                    self._say("235 welcome")
                case "RCPT":
                    recipient = line.partition("<")[2].partition(">")[0]
                    self._say("250 ok")
                case "DATA":
                    self._say("354 go on")
                    message = BytesParser(EmailMessage, policy=default).parsebytes(
                        self._read_data()
                    )
                    mail = Mail(user, password, recipient, message)
                    self.server.mails.append(mail)
                    self._say("250 taken")
                case "QUIT":
                    return self._say("221 bye")
                case _:
                    self._say("250 ok")

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())

    def _read_data(self) -> bytes:
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            if not line:
                raise ConnectionError("the client was gone in the middle of a mail")
            lines.append(line.removeprefix(b"."))
        return b"".join(lines)


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
