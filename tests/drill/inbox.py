"""What people were sent, by mail and by webhook, alert by alert."""

import json
import re
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

from tests.alertmanager.sinks import HttpSink, Mail, Post, SmtpSink, running

MAIL, WEBHOOK = "mail", "webhook"
# What the shipped mail says of an alert: its name and place, and then since when, or,
# if it is over, from when to when.
_IN_MAIL = re.compile(r"^(\w+) on (.+)\n(Since )?", re.MULTILINE)


@dataclass(frozen=True)
class Notice:
    """One alert in one message; ``place`` is the labels that the message tells."""

    moment: float
    channel: str
    receiver: str
    alert: str
    place: frozenset[str]
    is_over: bool

    def tells(self, labels: Mapping[str, str]) -> bool:
        """Say whether it is about an alert that has these labels."""
        return (
            self.alert == labels["alertname"]
            and self.receiver in (labels["severity"], labels["alertname"].lower())
            and _place(labels) <= self.place
        )


class Inbox:
    """A mail server and a web server on loopback."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []
        self.unread: list[str] = []  # messages in which no alert was found
        self.mail, self.web = SmtpSink(), HttpSink()
        self._seen = [0, 0]
        self._running = ExitStack()

    def __enter__(self) -> Self:
        self._running.enter_context(running(self.mail))
        self._running.enter_context(running(self.web))
        return self

    def __exit__(self, *exception: object) -> None:
        self._running.close()

    @property
    def mail_address(self) -> str:
        """Return where mail is taken."""
        return f"127.0.0.1:{self.mail.server_address[1]}"

    @property
    def web_url(self) -> str:
        """Return where webhooks and Slack's messages are taken."""
        return f"http://127.0.0.1:{self.web.server_address[1]}"

    def look(self) -> None:
        """Note what has come since the last look."""
        now = time.monotonic()
        mails, posts = self.mail.mails[self._seen[0] :], self.web.posts[self._seen[1] :]
        self._seen = [self._seen[0] + len(mails), self._seen[1] + len(posts)]
        for mail in mails:
            self._note(_in_mail(mail, now), f"mail: {mail.message['Subject']}")
        for post in posts:
            if post.path.startswith(f"/{WEBHOOK}/"):
                self._note(_in_post(post, now), f"webhook: {post.body!r}")

    def _note(self, notices: list[Notice], message: str) -> None:
        self.notices += notices
        if not notices:
            self.unread.append(message)


def _in_mail(mail: Mail, now: float) -> list[Notice]:
    body = mail.message.get_body(("plain",))
    text = body.get_content().replace("\r\n", "\n") if body else ""
    receiver, _, _ = mail.recipient.partition("@")
    return [
        Notice(now, MAIL, receiver, alert, frozenset(place.split(", ")), not since)
        for alert, place, since in _IN_MAIL.findall(text)
    ]


def _in_post(post: Post, now: float) -> list[Notice]:
    message: dict[str, Any] = json.loads(post.body)
    receiver = post.path.rpartition("/")[2]
    return [
        Notice(
            now,
            WEBHOOK,
            receiver,
            alert["labels"]["alertname"],
            frozenset(_place(alert["labels"])),
            alert["status"] == "resolved",
        )
        for alert in message["alerts"]
    ]


def _place(labels: Mapping[str, str]) -> set[str]:
    """Return labels as the shipped mail words them: localhost:8000, table facts."""
    rest = {
        n: v for n, v in labels.items() if n not in ("alertname", "severity", "job")
    }
    return {
        value if name == "instance" else f"{name} {value}"
        for name, value in rest.items()
    }
