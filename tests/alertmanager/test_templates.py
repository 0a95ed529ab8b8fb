"""What people read, rendered by amtool and compared as a whole.

After a change that is meant: ``make test ARGS='--renew-golden -k golden'``, then read
the diff of ``tests/alertmanager/golden``.
"""

from pathlib import Path

import pytest

from tests.alertmanager.running import FOLDER
from tests.servers import Servers

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
    code, rendered = servers.run(
        "amtool",
        "template",
        "render",
        f"--template.glob={FOLDER}/templates/*.tmpl",
        f"--template.data={case}",
        f"--template.type={kind}",
        f"--template.text={template}",
    )

    golden = GOLDEN / f"{case.stem}.{'txt' if kind == 'text' else 'html'}"
    assert code == 0, rendered
    if request.config.getoption("--renew-golden"):
        golden.write_text(rendered)
    assert rendered == golden.read_text()
