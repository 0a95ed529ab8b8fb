"""A real Prometheus scrapes over TLS, with a certificate and a password."""

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from exporter.web.access import Access
from exporter.web.pages import Pages
from exporter.web.server import Server
from tests.certificates import names_of_localhost
from tests.clients import Client
from tests.exporters import make_config, make_exporter
from tests.servers import (
    Processes,
    Prometheus,
    Servers,
    adapt_config,
    start_prometheus,
    wait_until,
)
from tests.webs import CLIENTS, Web, serial, users

PATIENCE_SECONDS = 30
UP = 'up{job="hakgal"}'


def uncomment_example(config: Path) -> None:
    """Make the commented lines of a copy of the shipped configuration count."""
    text = config.read_text()
    # Examples have no blank behind the sign, or two; comments have one.
    text, count = re.subn(r"(?m)^    #((?:  )?\w+:)", r"    \1", text)
    assert count == 9
    config.write_text(text.replace("hakgal.example.org", "localhost"))


def put_secrets(config: Path, web: Web, password: str = "secret") -> Path:
    """Write what the example names; return the file of the password."""
    secrets = config.parent / "secrets"
    secrets.mkdir()
    certificate, key = web.clients.issue("prometheus")
    shutil.copy(web.servers.file, secrets / "hakgal-ca.pem")
    shutil.copy(certificate, secrets / "prometheus.crt")
    shutil.copy(key, secrets / "prometheus.key")
    file = secrets / "hakgal-password"
    file.write_text(password)
    return file


def test_promtool_accepts_the_example(
    servers: Servers, web: Web, tmp_path: Path
) -> None:
    config = adapt_config(tmp_path, "localhost:8000", scrape_interval="1s")
    uncomment_example(config)
    put_secrets(config, web)

    code, output = servers.run("promtool", "check", "config", config)

    assert code == 0, output


@dataclass(frozen=True)
class Scraped:
    """A protected exporter, and a Prometheus that comes each second."""

    web: Web
    prometheus: Prometheus
    password: Path
    address: tuple[str, int]

    def wait_until_up_is(self, value: float) -> None:
        wait_until(
            lambda: [v for _, v in self.prometheus.query(UP)] == [value],
            PATIENCE_SECONDS,
        )

    def last_error(self) -> str:
        """Return what Prometheus said of its last scrape."""
        targets = self.prometheus.api("targets")["activeTargets"]
        (target,) = (t for t in targets if t["labels"]["job"] == "hakgal")
        return str(target["lastError"])

    def shown(self) -> str:
        """Return which certificate is shown to who connects now."""
        folder = self.password.parent
        pair = folder / "prometheus.crt", folder / "prometheus.key"
        with Client(self.address, self.web.trusting(pair)) as client:
            return serial(client)

    def shows_another_than(self, certificate: str) -> bool:
        """Tell whether another certificate is shown now."""
        with suppress(ConnectionError):  # cut off when the new one is read
            return self.shown() != certificate
        return False

    def wait_for_a_scrape(self) -> None:
        """Wait for one that has begun after now."""
        now = time.time()
        expression = f"timestamp({UP}) > {now}"
        wait_until(lambda: self.prometheus.query(expression), PATIENCE_SECONDS)


@pytest.fixture
def scraped(
    servers: Servers, processes: Processes, web: Web, folder: Path
) -> Iterator[Scraped]:
    access = Access(web.write(CLIENTS, users(prometheus="secret")))
    exporter = make_exporter(make_config(folder))
    server = Server(Pages(exporter, "/metrics", 40), ["127.0.0.1:0"], access)
    server.idle_seconds = 0.3  # so that each scrape is a connection of its own
    exporter.start()
    server.start()
    host, port = server.addresses[0]
    config = adapt_config(folder, f"{host}:{port}", scrape_interval="1s")
    uncomment_example(config)
    password = put_secrets(config, web)
    prometheus = start_prometheus(servers, processes, config)
    yield Scraped(web, prometheus, password, (host, port))
    server.stop()


def test_prometheus_scrapes_what_is_protected(scraped: Scraped) -> None:
    scraped.wait_until_up_is(1)
    assert len(scraped.prometheus.query("hakgal_up == 1")) == 2

    old = scraped.shown()
    scraped.web.servers.issue("server", *names_of_localhost())
    wait_until(lambda: scraped.shows_another_than(old), PATIENCE_SECONDS)
    scraped.wait_for_a_scrape()

    ((_, lowest),) = scraped.prometheus.query(f"min_over_time({UP}[1m])")
    assert lowest == 1, scraped.last_error()

    scraped.web.write(CLIENTS, users(prometheus="another"))
    scraped.wait_until_up_is(0)
    assert "401 Unauthorized" in scraped.last_error()
    scraped.web.write(CLIENTS, users(prometheus="secret"))
    scraped.wait_until_up_is(1)
