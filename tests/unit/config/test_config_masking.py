"""What `/config` shows of a file: everything but its secrets."""

from __future__ import annotations

import json

from ext_proc.config.load import load_text
from ext_proc.config.masking import MASK, SECRET_KEYS, masked
from tests.support import reference


def test_every_secret_of_the_schema_is_known() -> None:
    sections = reference.load().sections()
    secret = {key for kind in sections.values() for key, field in kind.model_fields.items() if not field.repr}
    assert secret == SECRET_KEYS


def test_what_holds_a_secret_is_masked_and_where_it_is_from_is_shown() -> None:
    shown = masked(
        {
            "model_providers": [
                {"model": "openai/a", "access_key": "sk-planted"},
                {"model": "openai/b", "access_key": "$OPENAI_KEY"},
                {"model": "openai/c", "access_key": "${KEY:-sk-planted}"},
                {"model": "openai/d", "access_key": {"file": "/run/secrets/d"}},
            ],
            "affinity": {"salt": "planted", "tester_key": "${TESTERS}"},
            "rollouts": {"store": "redis://:planted@redis"},
        }
    )
    assert [provider["access_key"] for provider in shown["model_providers"]] == [
        MASK,
        "$OPENAI_KEY",
        "${KEY:-***}",
        {"file": "/run/secrets/d"},
    ]
    assert shown["affinity"] == {"salt": MASK, "tester_key": "${TESTERS}"}
    assert shown["rollouts"] == {"store": MASK}


def test_urls_of_hooks_and_checks_are_masked_however_they_are_written() -> None:
    rollout = {
        "hooks": {"event": ["https://chat/planted", {"url": "https://chat/planted", "timeout": "5s"}]},
        "checks": [
            {"name": "a", "webhook": "https://evals/planted"},
            {"name": "b", "webhook": {"url": "https://planted", "token": "planted", "timeout": "5s"}},
            {"name": "c", "prometheus": {"url": "http://planted", "query": "up"}},
        ],
    }
    shown = masked({"routing_preferences": [{"name": "code", "rollout": rollout}]})
    assert "planted" not in json.dumps(shown)
    assert json.dumps(shown).count("5s") == 2
    assert '"query": "up"' in json.dumps(shown)


def test_a_stores_path_is_no_secret() -> None:
    assert masked({"rollouts": {"store": "/var/lib/rollouts.sqlite"}}) == {
        "rollouts": {"store": "/var/lib/rollouts.sqlite"}
    }


def test_a_loaded_file_is_shown_as_it_was_written() -> None:
    text = 'model_providers: [{model: openai/a, base_url: "http://${HOST:-h}:1/v1", default: true}]'
    shown = load_text(text, "f", {}, lambda: b"").shown
    assert shown["model_providers"][0]["base_url"] == "http://${HOST:-h}:1/v1"
