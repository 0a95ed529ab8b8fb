"""The audit collector: operations by name."""

from pathlib import Path

from tests.databases import Files
from tests.exporters import Page, make_config, make_exporter, scrape

NAME = "hakgal_audit_events_total"
KNOWN = {"add_fact": 0, "delete_fact": 0, "update_fact": 0}


def page_after(files: Files, folder: Path, *operations: object, limit: int = 9) -> Page:
    for operation in operations:
        files.add_audit(operation)
    return scrape(make_exporter(make_config(folder, label_limit=limit)))


def test_known_operations_are_zero_in_an_empty_table(
    files: Files, tmp_path: Path
) -> None:
    assert page_after(files, tmp_path).by("operation", NAME) == KNOWN


def test_operations_are_counted_by_name(files: Files, tmp_path: Path) -> None:
    names = ["add_fact"] * 3 + ["delete_fact"] * 2 + ["Übertrag"]

    page = page_after(files, tmp_path, *names)

    counts = {"add_fact": 3, "delete_fact": 2, "update_fact": 0, "Übertrag": 1}
    assert page.by("operation", NAME) == counts


def test_operations_above_the_limit_become_other(files: Files, tmp_path: Path) -> None:
    names = ["import", "import", "export", "export", "merge"]

    page = page_after(files, tmp_path, *names, limit=4)

    assert page.by("operation", NAME) == KNOWN | {"import": 2, "other": 3}
    assert page("hakgal_exporter_label_overflows_total", metric=NAME) == 3


def test_limit_outlives_a_restart(files: Files, tmp_path: Path) -> None:
    page_after(files, tmp_path, "import", "export", limit=4)

    page = page_after(files, tmp_path, "import", "split", limit=4)

    assert page.by("operation", NAME) == KNOWN | {"import": 2, "other": 2}
    assert page("hakgal_exporter_label_overflows_total", metric=NAME) == 2


def test_operation_that_is_no_proper_text_is_still_one_label(
    files: Files, tmp_path: Path
) -> None:
    names = [7, b"\xff\x00", 'a"b\\c\nd', "", "x" * 1000]

    counts = page_after(files, tmp_path, *names).by("operation", NAME)

    shown = {"7": 1, "\ufffd\ufffd": 1, 'a"b\\c\ufffdd': 1, "unknown": 1, "x" * 128: 1}
    assert counts == KNOWN | shown


def test_audit_row_without_operation_is_unknown(files: Files, tmp_path: Path) -> None:
    files.knowledge_base.run("DROP TABLE audit_log")
    files.knowledge_base.run(
        "CREATE TABLE audit_log (id INTEGER PRIMARY KEY AUTOINCREMENT,"
        " timestamp TEXT, operation TEXT, details TEXT)"
    )

    page = page_after(files, tmp_path, None, None)

    assert page.by("operation", NAME) == KNOWN | {"unknown": 2}
