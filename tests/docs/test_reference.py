"""The tables of docs/configuration.md are the schema's: `make render` writes them."""

from __future__ import annotations

from tests.support.reference import load

reference = load()
PAGE = reference.PAGE.read_text()


def test_the_tables_are_as_the_schema_has_them() -> None:
    assert reference.written(PAGE) == PAGE


def test_every_key_is_in_a_table_and_explained() -> None:
    assert reference.undescribed(PAGE) == []


def test_what_the_page_has_wrong_or_not_is_found() -> None:
    ours = "| `workers` | 1–64 | `1` | Processes"
    assert ours in PAGE
    assert reference.written(PAGE.replace(ours, "| `workers` | any | `2` | Processes")) == PAGE
    (row,) = [line for line in PAGE.splitlines() if line.startswith(ours)]
    without = PAGE.replace(row + "\n", "")
    assert reference.undescribed(reference.written(without)) == ["Server: workers"]
    begin = PAGE.index("<!-- keys: Rollouts -->")
    end = PAGE.index("<!-- end -->", begin)
    found = reference.undescribed(reference.written(PAGE[:begin] + PAGE[end:]))
    assert found == [f"ArchConfig: rollouts.{key}" for key in ("store", "namespace", "lease")]
