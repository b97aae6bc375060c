"""docs/metrics.md has every metric that there is and no other; Prometheus takes its queries."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.metrics import parse, registered, unknown

TEXT = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
ROWS = re.findall(r"^\| `(arch_ext_proc_\w+)` \| (.*?) \| (.+?) \| (.+) \| `(.+)` \|$", TEXT, re.MULTILINE)


def test_every_metric_is_documented_with_its_labels_and_no_other_is() -> None:
    documented = {name: tuple(re.findall(r"`(\w+)`", labels)) for name, labels, *_ in ROWS}
    assert documented == registered()
    assert len(documented) == len(ROWS)


def test_the_queries_are_about_their_metrics(tmp_path: Path) -> None:
    for name, _, unit, _, query in ROWS:
        assert name in query
        assert unknown(query) == []
        assert unit
    done = parse([query for *_, query in ROWS], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
