"""What people were sent, by mail and by webhook, alert by alert."""

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.alertmanager.sinks import HttpSink, Mail, Post, SmtpSink

MAIL, WEBHOOK = "mail", "webhook"
# What the shipped mail says of an alert: its name and place, and then since when, or,
# if it is over, from when to when.
_IN_MAIL = re.compile(r"^(\w+) on (.+)\n(Since )?", re.MULTILINE)

# Channel, receiver, alert, the labels that the message tells, whether it is over.
Content = tuple[str, str, str, frozenset[str], bool]


@dataclass(frozen=True)
class Notice:
    """One alert in one message, which came after ``since`` and not after ``moment``."""

    since: float
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
    """What has arrived at a mail server and a web server."""

    def __init__(self, mail: SmtpSink, web: HttpSink) -> None:
        self.notices: list[Notice] = []
        self.unread: list[str] = []  # messages in which no alert was found
        self.mail_address = f"127.0.0.1:{mail.server_address[1]}"
        self.web_url = f"http://127.0.0.1:{web.server_address[1]}"  # Slack's, too
        self._mail, self._web = mail, web
        self._looked = time.monotonic()

    def look(self) -> None:
        """Note what has come since the last look."""
        started = time.monotonic()
        while self._mail.mails:
            mail = self._mail.mails.pop(0)
            self._note(_in_mail(mail), f"mail: {mail.message['Subject']}")
        while self._web.posts:
            post = self._web.posts.pop(0)
            if post.path.startswith(f"/{WEBHOOK}/"):
                self._note(_in_post(post), f"webhook: {post.body!r}")
        self._looked = started

    def _note(self, found: Iterator[Content], message: str) -> None:
        since, now, before = self._looked, time.monotonic(), len(self.notices)
        self.notices += [Notice(since, now, *content) for content in found]
        if len(self.notices) == before:
            self.unread.append(message)


def _in_mail(mail: Mail) -> Iterator[Content]:
    body = mail.message.get_body(("plain",))
    text = body.get_content().replace("\r\n", "\n") if body else ""
    receiver, _, _ = mail.recipient.partition("@")
    for alert, place, since in _IN_MAIL.findall(text):
        yield MAIL, receiver, alert, frozenset(place.split(", ")), not since


def _in_post(post: Post) -> Iterator[Content]:
    receiver = post.path.rpartition("/")[2]
    for alert in json.loads(post.body)["alerts"]:
        labels, is_over = alert["labels"], alert["status"] == "resolved"
        place = frozenset(_place(labels))
        yield WEBHOOK, receiver, labels["alertname"], place, is_over


def _place(labels: Mapping[str, str]) -> set[str]:
    """Return labels as the shipped mail words them: localhost:8000, table facts."""
    left_out = ("alertname", "severity", "job")
    rest = {name: value for name, value in labels.items() if name not in left_out}
    return {v if n == "instance" else f"{n} {v}" for n, v in rest.items()}
