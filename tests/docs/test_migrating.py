"""Published files load as docs/migrating.md says, and what is a problem is told in its words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ext_proc.config.foreign import FOREIGN
from ext_proc.config.load import load_text
from ext_proc.core.errors import ConfigError
from tests.support.reference import load

TEXT = (Path(__file__).parents[2] / "docs" / "migrating.md").read_text()
*PUBLISHED, SALT = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
ENVIRON = {
    "OPENAI_API_KEY": "k",
    "ANTHROPIC_API_KEY": "k",
    "GROQ_API_KEY": "k",
    "ARCH_SALT": "0123456789abcdef",
}


@pytest.mark.parametrize("text", PUBLISHED)
def test_a_published_file_loads_as_it_is(text: str) -> None:
    (warning,) = load_text(text, "f", ENVIRON, lambda: b"").warnings
    assert "affinity.salt" in warning.text
    assert load_text(text + SALT, "f", ENVIRON, lambda: b"").warnings == ()


def test_the_policies_of_both_shapes_are_read() -> None:
    old, new = (load_text(text + SALT, "f", ENVIRON, lambda: b"").configuration for text in PUBLISHED)
    assert {name: route.arms[0].target.name for name, route in old.snapshot.routes.items()} == {
        "code understanding": "openai/gpt-4o",
        "code generation": "anthropic/claude-sonnet-4-20250514",
    }
    assert set(new.snapshot.routes) == {"code review"}
    assert {each.envoy.listener.port for each in (old, new)} == {12_000}
    assert (old.envoy.request_timeout_s, new.envoy.request_timeout_s) == (30, 120)


def test_the_table_of_problems_is_what_check_says() -> None:
    assert load().migrating(TEXT) == TEXT
    for keys in FOREIGN.values():
        for key in keys:
            assert re.search(rf"^\| [a-z_: ]*`{key}` \| .", TEXT, re.MULTILINE), key


def test_a_listener_for_agents_is_a_problem() -> None:
    with pytest.raises(ConfigError, match="only calls to models are"):
        load_text(PUBLISHED[1].replace("type: model", "type: agent"), "f", ENVIRON, lambda: b"")
