"""What people read, rendered by amtool and compared as a whole.

After a change that is meant: ``make test ARGS='--renew-golden -k golden'``, then read
the diff of ``tests/alertmanager/golden``.
"""

from pathlib import Path

import pytest

from tests.alertmanager.running import FOLDER
from tests.servers import Servers

HERE = Path(__file__).parent
CASES = sorted(HERE.glob("cases/*.json"))
TEXT_BLOCKS = (
    *("hakgal.mail.subject", "hakgal.mail.text", "hakgal.compact"),
    *("hakgal.slack.title", "hakgal.slack.title_link", "hakgal.slack.color"),
    *("hakgal.slack.fallback", "hakgal.slack.text"),
)
TEXT = "".join(f'== {b}\n{{{{ template "{b}" . }}}}\n' for b in TEXT_BLOCKS)
HTML = '{{ template "hakgal.mail.html" . }}'
KINDS = {"txt": ("text", TEXT), "html": ("html", HTML)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_message_is_the_golden_message(
    servers: Servers, case: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    template_type, template = KINDS[kind]
    code, rendered = servers.run(
        *("amtool", "template", "render"),
        f"--template.glob={FOLDER}/templates/*.tmpl",
        f"--template.data={case}",
        f"--template.type={template_type}",
        f"--template.text={template}",
    )
    golden = HERE / "golden" / f"{case.stem}.{kind}"
    if request.config.getoption("--renew-golden"):
        golden.write_text(rendered)

    assert (code, rendered) == (0, golden.read_text())
