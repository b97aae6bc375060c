"""Every test that SECURITY.md names is there, and every line of its tables names one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| who sends what"))
]
NAMED = re.findall(r"`(tests/[^`]+)`", TEXT)


def names_in(file: Path) -> set[str]:
    """The tests of a file, those in classes as `Class::test`."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign):
            # How hypothesis' state machines become tests.
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        found |= {
            prefix + each.name for each in inside if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
        }
    return found


def test_every_line_names_its_test() -> None:
    assert len(ROWS) >= 40
    for sends, gains, stops, test in ROWS:
        assert all((sends, gains, stops))
        assert re.fullmatch(r"`tests/[\w/.:]+`", test), sends
    assert len(NAMED) == len(ROWS)


@pytest.mark.parametrize("name", sorted(set(NAMED)))
def test_every_test_that_is_named_is_there(name: str) -> None:
    file, separator, test = name.partition("::")
    tests = names_in(ROOT / file)
    if separator:
        assert test in tests
    else:
        assert any(each.rpartition("::")[2].startswith(("test_", "Test")) for each in tests)


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)]+)\)", TEXT))
def test_every_link_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
