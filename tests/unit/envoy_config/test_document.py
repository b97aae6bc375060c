"""docs/envoy.md names every header that is ours, and every reason."""

from __future__ import annotations

import re
from pathlib import Path

from ext_proc.core import headers
from ext_proc.core.errors import Reason
from ext_proc.envoy_config.routes import SERVER_UNAVAILABLE

DOCUMENT = (Path(__file__).parents[3] / "docs/envoy.md").read_text()


def test_each_way_to_own_the_decision_headers_names_all_of_them() -> None:
    (listed,) = re.findall(r"internal_only_headers: \[(.*)\]", DOCUMENT)
    assert tuple(listed.split(", ")) == headers.DECISION
    (names,) = re.findall(r"ipairs\(\{(.*?)\}\)", DOCUMENT, re.DOTALL)
    assert tuple(re.findall(r"[\w-]+", names)) == headers.DECISION


def test_the_table_of_headers_has_every_one() -> None:
    table = DOCUMENT.partition("## Headers")[2].partition("##")[0]
    assert set(headers.DECISION) | set(headers.SESSION_PINS) <= set(re.findall(r"`([\w-]+)`", table))


def test_the_table_of_reasons_has_every_one_and_no_other() -> None:
    table = DOCUMENT.partition("| reason |")[2].partition("##")[0]
    first_cells = "".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`(\w+)`", first_cells)) == {*Reason, SERVER_UNAVAILABLE}
