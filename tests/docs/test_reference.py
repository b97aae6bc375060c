"""The tables of docs/configuration.md are the schema's: `make render` writes them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).parents[2] / "docs" / "reference.py"


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", PATH)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_as_the_schema_has_them(reference: ModuleType) -> None:
    page = reference.PAGE.read_text()
    assert reference.written(page) == page


def test_every_key_is_in_a_table_and_explained(reference: ModuleType) -> None:
    assert reference.undescribed(reference.PAGE.read_text()) == []


def test_what_the_page_has_wrong_or_not_is_found(reference: ModuleType) -> None:
    page = reference.PAGE.read_text()
    ours = "| `workers` | 1–64 | `1` | Processes"
    assert ours in page
    assert reference.written(page.replace(ours, "| `workers` | any | `2` | Processes")) == page
    (row,) = [line for line in page.splitlines() if line.startswith(ours)]
    without = page.replace(row + "\n", "")
    assert reference.undescribed(reference.written(without)) == ["Server: workers"]
    begin = page.index("<!-- keys: Rollouts -->")
    end = page.index("<!-- end -->", begin)
    found = reference.undescribed(reference.written(page[:begin] + page[end:]))
    assert found == [f"ArchConfig: rollouts.{key}" for key in ("store", "namespace", "lease")]
