"""What docs/runbook.md tells a tired person to type is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from ext_proc.cli.main import _parser
from ext_proc.core.errors import Reason
from tests.support.metrics import parse, registered, unknown

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "runbook.md").read_text()
CODE = [re.sub(r"\s+", " ", code) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", TEXT)]
BLOCKS = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]
COMMANDS = {line.partition(" #")[0].strip() for line in (*CODE, *BLOCKS) if line.startswith("arch-ext-proc ")}
QUERIES = [code for code in CODE if "arch_ext_proc_" in code and re.search(r"[({]", code)]
MEASURES = set(re.findall(r"arch_ext_proc_\w+", TEXT))


def test_the_sections_that_one_looks_for_are_there() -> None:
    assert len(QUERIES) > 8
    assert len(COMMANDS) > 8
    for title in (
        "A canary looks wrong",
        "The router is slow",
        "Everything goes to the default",
        "A provider is down",
        "A reload was refused",
        "Rotate a key",
        "Upgrade without losing requests",
        "The store is gone",
    ):
        assert f"\n### {title}\n" in TEXT


@pytest.mark.parametrize("line", sorted(COMMANDS))
def test_a_command_is_one(line: str) -> None:
    _, name, *arguments = shlex.split(line)
    if arguments:
        assert _parser(name).parse_args([name, *arguments])
    else:  # in a sentence, to say which is meant
        assert re.search(rf"^ +{name}( |$)", _parser("").format_help(), re.MULTILINE)


@pytest.mark.parametrize("name", sorted(MEASURES))
def test_a_metric_is_one(name: str) -> None:
    assert re.sub("_(bucket|sum|count)$", "", name) in registered()


def test_prometheus_takes_the_queries(tmp_path: Path) -> None:
    assert [query for query in QUERIES if unknown(query)] == []
    done = parse(QUERIES, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_log_lines_that_are_named_are_written() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "ext_proc").rglob("*.py"))
    named = {
        code for code in CODE if re.fullmatch(r"reload_\w+|router_failed|certificate_not_reloaded", code)
    }
    assert {"reload_refused", "reload_waits_for_envoy"} <= named
    for name in named - {"reload_refused", "reload_failed"}:  # one f-string, by the outcome
        assert f'"{name}"' in source, name
    assert 'f"reload_{outcome}"' in source


def test_the_reasons_that_are_named_are_reasons() -> None:
    begin = TEXT.index("### Everything goes to the default")
    rows = re.findall(r"^\| (`.*?) \|", TEXT[begin : TEXT.index("###", begin + 3)], re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(named) > 8
    assert named <= {reason.value for reason in Reason} | {"server_unavailable"}
