"""Receive notifications without mail, Slack or any secret.

``python3 alertmanager/inbox.py`` receives what Alertmanager posts to its webhook,
prints it, and shows the last 100 on http://localhost:9099/. It needs only the standard
library, writes nothing to disk, and by default only this machine can reach it.
"""

import argparse
import json
import re
import signal
import socket
import sys
import threading
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote

DEFAULT_ADDRESS = "127.0.0.1:9099"
KEPT = 100  # notifications; HAK/GAL's own monitor kept 100 alerts
ALERTS_SHOWN = 50  # of one notification
VALUE_LIMIT = 2000  # characters of one annotation or label
TEXT_LIMIT = 100_000  # characters of one notification
BODY_LIMIT = 1 << 20  # bytes; 1,000 alerts are half of it
SOCKET_TIMEOUT_SECONDS = 10.0

_HEARTBEAT = "Watchdog"
_RUNBOOK, _DASHBOARD = "runbook_url", "dashboard_url"
# The other labels of an alert say where it is.
_LABELS_ELSEWHERE = ("alertname", "severity", "job", "instance")
# Terminals obey control characters: only line feeds stay. Lone surrogates cannot print.
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_NAMED_ADDRESS = re.compile(r"^(.+): (https?://\S+)$", re.MULTILINE)
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
)
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="refresh" content="10">
<title>HAK/GAL notifications</title>
<style>
body {{ font: 16px/1.4 sans-serif; max-width: 46em; margin: auto; padding: 1em }}
pre {{ font: inherit; white-space: pre-wrap; overflow-wrap: anywhere;
  padding-left: 1em; border-left: 6px solid gray }}
.critical {{ border-color: #c22d1c }}
.warning {{ border-color: #d98c00 }}
.resolved {{ border-color: #2e8540 }}
</style>
</head>
<body>
<h1>HAK/GAL notifications</h1>
<p>{heartbeat}</p>
{notifications}
</body>
</html>
"""


@dataclass(frozen=True)
class Notification:
    """A message as text."""

    text: str
    style: str


class Inbox:
    """The last notifications, and the time of the last heartbeat."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._notifications: deque[Notification] = deque(maxlen=KEPT)
        self._heartbeat: datetime | None = None

    def receive(self, message: dict[str, Any]) -> None:
        """Keep and print a webhook message of Alertmanager.

        Raises:
            TypeError, ValueError, LookupError, AttributeError: not such a message.
        """
        now = datetime.now(UTC)
        if message["commonLabels"].get("alertname") == _HEARTBEAT:
            self._hear_heartbeat(now)
            return
        notification = read_message(message, now)
        with self._lock:
            self._notifications.append(notification)
            print(notification.text, end="\n\n", flush=True)

    def page(self) -> str:
        """Return the notifications as HTML, newest first."""
        with self._lock:
            notifications = list(self._notifications)
            heartbeat = self._heartbeat
        status = "No heartbeat of Alertmanager's Watchdog yet."
        if heartbeat:
            status = f"Last heartbeat of the Watchdog: {_format_time(heartbeat)}."
        shown = [
            f'<pre class="{n.style}">{_link(escape(n.text))}</pre>'
            for n in reversed(notifications)
        ]
        return _PAGE.format(
            heartbeat=status,
            notifications="\n".join(shown) or "<p>Nothing has arrived yet.</p>",
        )

    def _hear_heartbeat(self, now: datetime) -> None:
        with self._lock:
            if self._heartbeat is None:
                print(f"{_format_time(now)}: first heartbeat", end="\n\n", flush=True)
            self._heartbeat = now


def read_message(message: dict[str, Any], now: datetime) -> Notification:
    """Return a webhook message (version 4) as text."""
    alerts = message["alerts"]
    # Alertmanager's own address; a trailing slash would become a double one.
    url = str(message["externalURL"]).rstrip("/")
    severity = message["commonLabels"].get("severity", "alert")
    state = "resolved" if message["status"] == "resolved" else str(severity)
    firing = sum(alert["status"] == "firing" for alert in alerts)
    counts = f"{firing} firing, {len(alerts) - firing} resolved"
    parts = [f"{_format_time(now)}: {state.upper()}: {counts}"]
    parts += [_read_alert(alert, url) for alert in alerts[:ALERTS_SHOWN]]
    if len(alerts) > ALERTS_SHOWN:
        parts.append(f"… and {len(alerts) - ALERTS_SHOWN} more: {url}/#/alerts")
    style = state if state in ("critical", "warning", "resolved") else "other"
    text = _CONTROL_CHARACTERS.sub(" ", "\n\n".join(parts))
    return Notification(text[:TEXT_LIMIT], style)


def _read_alert(alert: dict[str, Any], url: str) -> str:
    labels = {name: _shorten(value) for name, value in alert["labels"].items()}
    annotations = {k: _shorten(v) for k, v in alert["annotations"].items()}
    is_firing = alert["status"] == "firing"
    name = labels.get("alertname", "An alert without a name")
    title = annotations.get("summary", name)
    lines = [title if is_firing else f"Resolved: {title}"]
    if is_firing and "description" in annotations:
        lines.append(annotations["description"])
    lines.append(f"{name} on {_place(labels)}")
    lines.append(_format_period(alert))
    if is_firing and _RUNBOOK in annotations:
        lines.append(f"What to do: {annotations[_RUNBOOK]}")
    if _DASHBOARD in annotations:
        lines.append(f"Dashboard: {annotations[_DASHBOARD]}")
    if is_firing:
        lines.append(f"Silence: {url}/#/silences/new?filter={_filter(labels)}")
    return "\n".join(lines)


def _place(labels: dict[str, str]) -> str:
    """Return labels as ``localhost:8000, database performance``."""
    place = labels.get("instance") or labels.get("job") or "the monitoring"
    others = (f"{k} {v}" for k, v in labels.items() if k not in _LABELS_ELSEWHERE)
    return ", ".join([place, *others])


def _filter(labels: dict[str, str]) -> str:
    """Return labels as matchers for the address of Alertmanager's silence form."""
    matchers = (f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in labels.items())
    return quote("{" + ",".join(matchers) + "}", safe="")


def _shorten(text: str) -> str:
    return text if len(text) <= VALUE_LIMIT else f"{text[:VALUE_LIMIT]}…"


def _format_period(alert: dict[str, Any]) -> str:
    start = datetime.fromisoformat(alert["startsAt"]).astimezone(UTC)
    if alert["status"] == "firing":
        return f"Since {_format_time(start)}"
    end = datetime.fromisoformat(alert["endsAt"]).astimezone(UTC)
    return f"{_format_time(start)} to {_format_time(end)}"


def _format_time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def _link(text: str) -> str:
    """Turn each line ``name: address`` of an escaped text into a link."""
    return _NAMED_ADDRESS.sub(r'<a href="\2">\1</a>', text)


class Server(ThreadingHTTPServer):
    """The inbox over HTTP."""

    def __init__(self, host: str, port: int) -> None:
        self.inbox = Inbox()
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), Handler)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    timeout = SOCKET_TIMEOUT_SECONDS

    def do_GET(self) -> None:
        """Show the page, or that the inbox works."""
        match self.path:
            case "/":
                self._answer(HTTPStatus.OK, self.server.inbox.page(), "text/html")
            case "/-/healthy":
                self._answer(HTTPStatus.OK, "The inbox is healthy.\n")
            case _:
                self._answer(HTTPStatus.NOT_FOUND, "not found\n")

    def do_POST(self) -> None:
        """Receive a notification."""
        # A page of another site in a browser on this machine cannot send this type.
        if self.headers.get_content_type() != "application/json":
            status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
            return self._answer(status, "send application/json\n")
        length = self.headers.get("Content-Length", "")
        if not (length.isdecimal() and int(length) <= BODY_LIMIT):
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            return self._answer(status, f"send a length of at most {BODY_LIMIT}\n")
        try:
            self.server.inbox.receive(json.loads(self.rfile.read(int(length))))
        except (TypeError, ValueError, LookupError, AttributeError):
            status = HTTPStatus.BAD_REQUEST
            return self._answer(status, "not a webhook message from Alertmanager\n")
        self._answer(HTTPStatus.OK, "received\n")

    def _answer(self, status: int, text: str, kind: str = "text/plain") -> None:
        body = text.encode(errors="replace")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", _CONTENT_SECURITY_POLICY)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing: the output is only for notifications."""


def main() -> int:
    """Run until SIGINT or SIGTERM."""
    summary, _, _ = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument(
        "--web.listen-address",
        dest="address",
        metavar="HOST:PORT",
        default=DEFAULT_ADDRESS,
        help="Receive and show notifications here. (default: %(default)s)",
    )
    address = parser.parse_args().address
    host, colon, port = address.rpartition(":")
    if not (colon and port.isdecimal() and int(port) < 1 << 16):
        parser.error(f"{address} is not an address: write host:port")
    # SIGINT too: a shell starts its background commands with it ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with Server(host.strip("[]"), int(port)) as server:
            print(f"Waiting for notifications, shown on http://{address}/", flush=True)
            server.serve_forever()
    except KeyboardInterrupt:
        return 0
    except OSError as error:
        print(f"inbox: cannot listen on {address}: {error.strerror}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
