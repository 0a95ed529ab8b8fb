"""A web configuration file with all that it can name, and who knocks at the door."""

import base64
import ssl
from functools import cache
from pathlib import Path

import bcrypt

from tests.certificates import Authority, names_of_localhost
from tests.clients import Client


class Web:
    """A folder with ``web.yml``, a server's certificate, and authorities."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "web.yml"
        self.servers = Authority(folder, "servers")
        self.clients = Authority(folder, "clients")
        self.certificate, self.key = self.servers.issue("server", *names_of_localhost())

    def write(self, *parts: str) -> Path:
        """Replace the file at once and return its path."""
        new = self.file.with_name("new.yml")
        new.write_text("".join(parts))
        return new.replace(self.file)

    def trusting(
        self,
        pair: tuple[Path, Path] | None = None,
        highest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED,
    ) -> ssl.SSLContext:
        """Return how a client connects: with or without a certificate and its key."""
        context = ssl.create_default_context(cafile=self.servers.file)
        context.maximum_version = highest
        if pair:
            context.load_cert_chain(*pair)
        return context


TLS = """\
tls_server_config:
  cert_file: server.crt
  key_file: server.key
"""
CLIENTS = f"""\
{TLS}\
  client_ca_file: clients.pem
  client_auth_type: RequireAndVerifyClientCert
"""
SOME_CLIENTS = CLIENTS.replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven")
HEADERS = """\
http_server_config:
  headers:
    Strict-Transport-Security: max-age=31536000; includeSubDomains
    X-Content-Type-Options: nosniff
    X-Frame-Options: deny
    X-XSS-Protection: "0"
    Content-Security-Policy: default-src 'self'
"""


@cache
def hash_of(password: str, cost: int = 4) -> str:
    """Return a bcrypt hash, cheap to compare with."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


def users(**passwords: str) -> str:
    """Return the section with these users."""
    lines = [f"  {user}: {hash_of(password)}\n" for user, password in passwords.items()]
    return "".join(["basic_auth_users:\n", *lines])


def basic(user: str, password: str) -> str:
    """Return the Authorization header of a log-in."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def serial(client: Client) -> str:
    """Return which certificate the server has shown."""
    assert isinstance(client.socket, ssl.SSLSocket)
    certificate = client.socket.getpeercert()
    assert certificate
    return str(certificate["serialNumber"])
