"""`arch-ext-proc explain` with the router that ships."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from ext_proc.cli import main

TEXT = """\
model_providers:
  - {model: openai/a, default: true}
  - {model: openai/b}
  - {model: mistral/c}
  - {model: mistral/d}
model_aliases: {fast: {target: openai/b}}
affinity: {salt: 0123456789abcdef}
routing_preferences:
  - name: travel planning
    description: planning trips, finding and booking flights, hotels and trains
    targets: [{model: openai/b, weight: 90}, {model: mistral/c, weight: 10}]
    fallbacks: [mistral/d]
    shadow: [{model: mistral/d, percent: 100}]
  - name: code
    description: write a function, script, SQL query or test in Python or another language
    models: [mistral/c]
"""
TRIP = "book me a flight and a hotel in Lisbon"


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "f.yaml"
    path.write_text(TEXT)
    return str(path)


def explained(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["explain", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_person_reads_where_it_goes_and_why(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", file, "-m", TRIP, "--session", "s"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "policy   travel planning  (policy)"
    assert lines[1].startswith("target   openai/b  (cluster openai, model b)")
    scores = lines[lines.index("scores") + 1 : lines.index("scores") + 4]
    assert [line[2:].split("  ")[0] for line in scores] == ["travel planning", "(none of them)", "code"]
    assert [line[0] for line in scores] == ["→", " ", " "]
    assert not any(line.startswith("needed") for line in lines)
    start = next(n for n, line in enumerate(lines) if line.startswith("split    session bucket"))
    assert lines[start + 1].split() == ["canary", "10.00", "%", "0–1000", "mistral/c"]
    assert lines[start + 2].split() == ["→", "baseline", "90.00", "%", "1000–10000", "openai/b"]
    assert "shadow   mistral/d 100 %: this session is copied" in lines
    assert "then     mistral/d" in lines
    assert lines[-1].startswith("time     router ")
    assert lines[-1].endswith(" ms")


def test_what_the_router_said_is_shown_where_it_was_not_sure_enough(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(file).write_text(f"{TEXT}routing: {{confidence: {{threshold: 0.999, margin: 0.5}}}}\n")
    assert main(["explain", file, "-m", TRIP]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "policy   -  (unsure)"
    assert any(line.startswith("→ travel planning") for line in lines)
    assert "needed   0.999, and 0.500 more than the next" in lines
    found = explained(capsys, file, "-m", TRIP)
    assert (found["policy"], found["reason"], found["said"]) == (None, "unsure", "travel planning")
    assert found["needed"] == {"threshold": 0.999, "margin": 0.5}


def test_a_program_reads_the_same(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = explained(capsys, file, "-m", TRIP, "--session", "s")
    assert (found["policy"], found["reason"], found["arm"]) == ("travel planning", "policy", "baseline")
    assert found["target"]["name"] == "openai/b"
    assert found["target"]["authority"] == "api.openai.com"
    assert sum(found["scores"].values()) + found["none"] == pytest.approx(1)
    assert max(found["scores"], key=found["scores"].get) == "travel planning"
    (chosen,) = [arm for arm in found["split"] if arm["chosen"]]
    assert chosen["arm"] == "baseline"
    assert chosen["buckets"][0] <= found["bucket"] < chosen["buckets"][1]
    assert found["shadow"] == "mistral/d"
    assert found["shadows"] == [{"model": "mistral/d", "percent": 100}]
    assert found["fallbacks"] == ["mistral/d"]
    assert 0 < found["timings_ms"]["router"] <= found["timings_ms"]["total"]


def test_a_session_has_one_arm_whatever_it_says(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (
        explained(capsys, file, "-m", text, "--session", "s")["bucket"] for text in (TRIP, f"{TRIP}, now")
    )
    other = explained(capsys, file, "-m", TRIP, "--session", "t")["bucket"]
    assert one == two != other


@pytest.mark.parametrize(("name", "reason"), [("mistral/c", "pinned"), ("fast", "alias")])
def test_a_model_that_is_named_needs_no_router(
    file: str, capsys: pytest.CaptureFixture[str], name: str, reason: str
) -> None:
    found = explained(capsys, file, "-m", TRIP, "--model", name)
    assert (found["reason"], found["policy"], found["timings_ms"]["router"]) == (reason, None, None)
    assert main(["explain", file, "-m", TRIP, "--model", name]) == 0
    assert "time     router not asked, in all" in capsys.readouterr().out


FOLLOW_UP = [
    {"role": "user", "content": "write a Python function that reverses a list"},
    {"role": "assistant", "content": "def f(x): return x[::-1]"},
    {"role": "user", "content": "make it shorter"},
]


@pytest.mark.parametrize("given", [FOLLOW_UP, {"messages": FOLLOW_UP, "model": "x"}, {"input": FOLLOW_UP}])
def test_a_conversation_comes_from_a_file_or_standard_input(
    file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: Any
) -> None:
    path = tmp_path / "conversation.json"
    path.write_text(json.dumps(given))
    assert explained(capsys, file, "--messages", str(path))["policy"] == "code"
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(given)))
    assert explained(capsys, file, "--messages", "-")["policy"] == "code"


def test_a_conversation_without_a_user_says_what_it_lacks(
    file: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "conversation.json"
    path.write_text(json.dumps([{"role": "usr", "content": TRIP}]))
    assert main(["explain", file, "--messages", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "policy   -  (no_conversation)"
    assert (
        "why      no text of a user: where a request has one, its role is user and its content text" in lines
    )


def test_what_cannot_be_read_is_said(file: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "conversation.json"
    path.write_text("{no")
    number = tmp_path / "number.json"
    number.write_text("7")
    other = tmp_path / "other.json"
    other.write_text('{"foo": 1}')
    for arguments, text in (
        ([file], 'give a conversation: -m "text" or --messages FILE'),
        ([file, "--messages", str(path)], "is no JSON in UTF-8"),
        ([file, "--messages", str(tmp_path / "nowhere.json")], "No such file"),
        ([file, "--messages", str(number)], "expected a JSON list of messages or a request body"),
        ([file, "--messages", str(other)], 'the request body has neither "messages" nor "input"'),
        (["nowhere.yaml", "-m", TRIP], "there is no such file"),
    ):
        assert main(["explain", *arguments]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert text in said.err
