"""What people read, rendered by amtool and compared as a whole.

After a change that is meant: ``make test ARGS='--renew-golden -k golden'``, then read
the diff of ``tests/alertmanager/golden``.
"""

import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.alertmanager.running import (
    DEFAULT,
    FOLDER,
    adapt,
    post_json,
    start_alertmanager,
    start_inbox,
)
from tests.servers import Processes, Servers, find_free_port

CASES = sorted(Path(__file__).parent.glob("cases/*.json"))
GOLDEN = Path(__file__).parent / "golden"
TEXT_BLOCKS = (
    "hakgal.mail.subject",
    "hakgal.mail.text",
    "hakgal.compact",
    "hakgal.slack.title",
    "hakgal.slack.title_link",
    "hakgal.slack.color",
    "hakgal.slack.fallback",
    "hakgal.slack.text",
)
TEXT = "".join(f'== {b}\n{{{{ template "{b}" . }}}}\n' for b in TEXT_BLOCKS)
MATCHER = re.compile(r'\w+="(?:[^"\\]|\\.)*"')
HTML = '{{ template "hakgal.mail.html" . }}'


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
@pytest.mark.parametrize(("kind", "template"), [("text", TEXT), ("html", HTML)])
def test_message_is_the_golden_message(
    servers: Servers,
    case: Path,
    kind: str,
    template: str,
    request: pytest.FixtureRequest,
) -> None:
    rendered = render(servers, case, kind, template)

    golden = GOLDEN / f"{case.stem}.{'txt' if kind == 'text' else 'html'}"
    if request.config.getoption("--renew-golden"):
        golden.write_text(rendered)
    assert rendered == golden.read_text()


@pytest.mark.parametrize("name", ["single", "hostile"])
def test_silence_link_means_this_alert_and_no_other(
    servers: Servers, processes: Processes, tmp_path: Path, name: str
) -> None:
    case = Path(__file__).parent / "cases" / f"{name}.json"
    labels = json.loads(case.read_text())["alerts"][0]["labels"]
    config = adapt(DEFAULT, tmp_path, {":9099/": f":{find_free_port()}/"})
    alertmanager = start_alertmanager(servers, processes, config, tmp_path)
    alertmanager.post(labels)
    alertmanager.post(labels | {"severity": "worse"})
    inbox = start_inbox(processes)
    post_json(inbox.url, json.loads(case.read_text()))

    for message in (
        render(servers, case, "text", '{{ template "hakgal.mail.text" . }}'),
        render(servers, case, "text", '{{ template "hakgal.slack.text" . }}'),
        render(servers, case, "html", HTML),
        inbox.page(),
    ):
        (link,) = re.findall(r"silences/new\?filter=([^\s\"|>]+)", message)
        matchers = [m[0] for m in MATCHER.finditer(unquote(link))]
        assert unquote(link) == f"{{{','.join(matchers)}}}"
        amtool = ("amtool", f"--alertmanager.url={alertmanager.url}", "silence")
        code, output = servers.run(*amtool, "add", "-c=test", *matchers)
        assert code == 0, output
        alerts = alertmanager.alerts()
        silenced = [a["labels"] for a in alerts if a["status"]["silencedBy"]]
        assert silenced == [labels]
        servers.run(*amtool, "expire", output.splitlines()[-1])
        assert not any(a["status"]["silencedBy"] for a in alertmanager.alerts())


def render(servers: Servers, case: Path, kind: str, template: str) -> str:
    """Return a message as amtool makes it of a case."""
    code, rendered = servers.run(
        *("amtool", "template", "render"),
        f"--template.glob={FOLDER}/templates/*.tmpl",
        f"--template.data={case}",
        f"--template.type={kind}",
        f"--template.text={template}",
    )
    assert code == 0, rendered
    return rendered
