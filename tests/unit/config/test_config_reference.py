"""docs/configuration.md stays true: its example uses every key, and loads. So does arch_config.yaml."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from ext_proc.config.base_url import WELL_KNOWN
from ext_proc.config.envoy_schema import ArchListener, ArchListeners
from ext_proc.config.foreign import FOREIGN
from ext_proc.config.load import check, load, load_text
from ext_proc.core.types import Retry
from tests.support import reference

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "configuration.md").read_text()
EXAMPLE, *FRAGMENTS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
"""A whole file, and parts of files that have what the first can have only one of."""
REST = "model_providers: [{model: openai/a, default: true}]\naffinity: {salt: 0123456789abcdef}\n"
SECTIONS = reference.load().sections().values()


def test_the_example_is_sound() -> None:
    assert load_text(EXAMPLE, "f", {}, lambda: b"").warnings == ()


@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_every_fragment_is_sound(fragment: str) -> None:
    assert load_text(REST + fragment, "f", {}, lambda: b"").warnings == ()


def keys_in(data: object) -> set[str]:
    if isinstance(data, dict):
        return set(data) | {key for value in data.values() for key in keys_in(value)}
    return {key for value in data for key in keys_in(value)} if isinstance(data, list) else set()


def test_the_example_has_every_key() -> None:
    of_archgw = {ArchListener, ArchListeners}
    keys = {key for kind in SECTIONS if kind not in of_archgw for key in kind.model_fields}
    written = set().union(*(keys_in(yaml.safe_load(text)) for text in (EXAMPLE, *FRAGMENTS)))
    assert keys - written == {"llm_providers", "listeners"}


@pytest.mark.parametrize("prefix", WELL_KNOWN)
def test_every_known_prefix_is_listed(prefix: str) -> None:
    assert f"`{prefix}`" in TEXT


def test_no_key_is_both_ours_and_foreign() -> None:
    for section, keys in FOREIGN.items():
        assert not keys.keys() & section.model_fields.keys()


def test_the_defaults_are_those_of_the_schema() -> None:
    defaults = load_text(REST, "f", {}, lambda: b"").configuration
    example = load_text(EXAMPLE, "f", {}, lambda: b"").configuration
    assert (example.envoy, example.server, example.admin) == (defaults.envoy, defaults.server, defaults.admin)
    assert example.router.deadline_s == defaults.router.deadline_s
    assert example.snapshot.retry == defaults.snapshot.retry == Retry()
    assert example.router.max_waiting == defaults.router.max_waiting


def test_the_file_of_the_repository_is_sound_with_nothing_set() -> None:
    path = ROOT / "arch_config.yaml"
    assert check(path, {}) == ()
    configuration = load(path, {}, lambda: b"").configuration
    assert [upstream.port for upstream in configuration.upstreams] == [8101, 8102, 8103, 8104]
    routes = configuration.snapshot.routes.values()
    assert {len(route.arms) for route in routes} == {1, 2}
    assert any(route.shadows for route in routes)
    assert any(route.policy.domain for route in routes)


def test_the_file_of_the_repository_can_be_moved_by_variables() -> None:
    environ = {
        "OPENAI_UPSTREAM": "http://127.0.0.1:1/v1",
        "MISTRAL_UPSTREAM": "http://127.0.0.1:2/v1",
        "VLLM_UPSTREAM": "http://127.0.0.1:3/v1",
        "VLLM_NEXT_UPSTREAM": "http://127.0.0.1:4/v1",
        "ARCH_PORT": "5",
        "ARCH_ADMIN_PORT": "6",
        "ENVOY_PORT": "7",
        "ENVOY_ADMIN_PORT": "8",
    }
    configuration = load(ROOT / "arch_config.yaml", environ, lambda: b"").configuration
    assert [upstream.port for upstream in configuration.upstreams] == [1, 2, 3, 4]
    assert (configuration.server.listen.port, configuration.admin.port) == (5, 6)
    assert configuration.envoy.admin is not None
    assert (configuration.envoy.listener.port, configuration.envoy.admin.port) == (7, 8)
