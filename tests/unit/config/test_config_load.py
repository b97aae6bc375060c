"""Files to configurations: every published shape, and every default."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import pytest

from ext_proc.config.load import Loaded, check, load_text
from ext_proc.config.store import Store
from ext_proc.core.settings import Address, Configuration, Upstream
from ext_proc.core.types import Credential, Policy, Secret, Snapshot, Target

SALT = "affinity: {salt: 0123456789abcdef}\n"
PROVIDERS = """\
model_providers:
  - {model: openai/gpt-4o-mini, default: true}
  - {model: openai/gpt-4o}
  - {model: groq/llama}
"""


def loaded(text: str, environ: Mapping[str, str] | None = None) -> Loaded:
    return load_text(text, "f", environ or {}, lambda: b"random")


def configured(text: str, environ: Mapping[str, str] | None = None) -> Configuration:
    return loaded(text, environ).configuration


def decisions(text: str, environ: Mapping[str, str] | None = None) -> Snapshot:
    return configured(text, environ).snapshot


def outline(
    snapshot: Snapshot,
) -> dict[str, tuple[list[tuple[str, str, int]], list[str], list[tuple[str, int]]]]:
    return {
        name: (
            [(arm.name, arm.target.name, arm.weight_per_10k) for arm in route.arms],
            [target.name for target in route.fallbacks],
            [(shadow.target.name, shadow.percent_per_10k) for shadow in route.shadows],
        )
        for name, route in snapshot.routes.items()
    }


def test_the_shape_of_2025() -> None:
    configuration = configured(
        """\
version: v0.1.0
listeners:
  egress_traffic: {address: 0.0.0.0, port: 12000, message_format: openai, timeout: 30s}
llm_providers:
  - {model: openai/gpt-4o-mini, access_key: $OPENAI_API_KEY, default: true}
  - model: openai/gpt-4o
    access_key: $OPENAI_API_KEY
    routing_preferences:
      - {name: code understanding, description: understand and explain existing code snippets}
model_aliases: {fast: {target: gpt-4o-mini}}
""",
        {"OPENAI_API_KEY": "sk-1\n"},
    )
    snapshot = configuration.snapshot
    mini, large = snapshot.targets["openai/gpt-4o-mini"], snapshot.targets["openai/gpt-4o"]
    assert large == Target(
        name="openai/gpt-4o",
        model="gpt-4o",
        cluster="openai",
        authority="api.openai.com",
        path_prefix="/v1",
        credential=Credential("authorization", Secret("Bearer sk-1")),
        origin="https://api.openai.com:443",
    )
    assert outline(snapshot) == {"code understanding": ([("baseline", "openai/gpt-4o", 10_000)], [], [])}
    assert snapshot.policies == (
        Policy("code understanding", "understand and explain existing code snippets"),
    )
    assert snapshot.aliases == {"fast": mini}
    assert snapshot.models == {"gpt-4o-mini": mini, "gpt-4o": large}
    assert snapshot.default is snapshot.on_failure is mini
    assert snapshot.salt == b"random"
    assert configuration.envoy.listener == Address("0.0.0.0", 12_000)
    assert configuration.envoy.request_timeout_s == 30
    assert configuration.envoy.failure_credential_env == "OPENAI_API_KEY"
    assert configuration.upstreams == (Upstream("openai", "api.openai.com", 443, tls=True),)


def test_the_shape_of_2026() -> None:
    result = loaded(
        """\
version: v0.4.0
listeners:
  - {type: model, name: model_1, address: 0.0.0.0, port: 12001, timeout: 2m}
model_providers:
  - {model: openai/gpt-4o-mini, default: true, access_key: $KEY}
  - {model: anthropic/claude-sonnet-4-5, access_key: $KEY}
  - {model: groq/llama-3.3-70b, access_key: $KEY}
routing_preferences:
  - name: code review
    description: reviewing and suggesting improvements to existing code
    models: [anthropic/claude-sonnet-4-5, groq/llama-3.3-70b]
    selection_policy: {prefer: cheapest}
"""
        + SALT,
        {"KEY": "k"},
    )
    snapshot = result.configuration.snapshot
    assert outline(snapshot) == {
        "code review": ([("baseline", "anthropic/claude-sonnet-4-5", 10_000)], ["groq/llama-3.3-70b"], [])
    }
    claude = snapshot.targets["anthropic/claude-sonnet-4-5"]
    assert claude.credential == Credential("x-api-key", Secret("k"))
    assert snapshot.targets["groq/llama-3.3-70b"].path_prefix == "/openai/v1"
    assert result.configuration.envoy.listener == Address("0.0.0.0", 12_001)
    assert result.configuration.envoy.request_timeout_s == 120
    assert [warning.line for warning in result.warnings] == [12]


def test_weights_shadows_and_domains() -> None:
    snapshot = decisions(
        PROVIDERS
        + SALT
        + """\
routing_preferences:
  - name: a
    domain: letters
    description: the first
    targets:
      - {model: gpt-4o, weight: 1}
      - {model: groq/llama, weight: 1}
      - {model: openai/gpt-4o-mini, weight: 1}
    shadow: [{model: llama, percent: 12.34}, {model: gpt-4o, percent: 0}]
  - name: b
    description: the second
    targets: [{model: gpt-4o, weight: 95}, {model: llama, weight: 5}]
  - name: c
    description: the third
    targets: [{model: gpt-4o, weight: 0.5}, {model: llama, weight: 0}]
"""
    )
    assert outline(snapshot) == {
        "a": (
            [
                ("baseline", "openai/gpt-4o", 3334),
                ("canary", "groq/llama", 3333),
                ("canary-2", "openai/gpt-4o-mini", 3333),
            ],
            [],
            [("groq/llama", 1234), ("openai/gpt-4o", 0)],
        ),
        "b": ([("baseline", "openai/gpt-4o", 9500), ("canary", "groq/llama", 500)], [], []),
        "c": ([("baseline", "openai/gpt-4o", 10_000), ("canary", "groq/llama", 0)], [], []),
    }
    assert [policy.domain for policy in snapshot.policies] == ["letters", None, None]


def test_a_policy_carries_its_examples_wherever_it_stands() -> None:
    inline = "routing_preferences: [{name: b, description: d, examples: [do b]}]"
    top = "{name: t, description: d, not_examples: [' undo t '], models: [a]}"
    snapshot = decisions(
        f"model_providers: [{{model: openai/a, default: true, {inline}}}]\nrouting_preferences: [{top}]"
    )
    assert snapshot.policies == (
        Policy("b", "d", examples=("do b",)),
        Policy("t", "d", not_examples=("undo t",)),
    )


def test_inline_and_top_level_policies_mix_in_the_order_of_the_file() -> None:
    top = "routing_preferences: [{name: top, description: d, models: [b]}]\n"
    inline = """\
model_providers:
  - {model: openai/a, default: true, routing_preferences: [{name: in-1, description: d}]}
  - {model: openai/b, routing_preferences: [{name: in-2, description: d}]}
"""
    assert list(decisions(SALT + inline + top).routes) == ["in-1", "in-2", "top"]
    assert list(decisions(SALT + top + inline).routes) == ["top", "in-1", "in-2"]


def test_defaults() -> None:
    configuration = configured("model_providers: [{model: openai/a, default: true}]\n")
    assert configuration.server.listen == Address("127.0.0.1", 50_051)
    assert configuration.server.drain_s == 10
    assert configuration.admin == Address("127.0.0.1", 9_902)
    router, envoy = configuration.router, configuration.envoy
    assert (router.type, router.deadline_s, router.threshold, router.max_waiting) == (
        "embedded",
        0.2,
        None,
        64,
    )
    assert (envoy.listener, envoy.admin) == (Address("127.0.0.1", 10_000), Address("127.0.0.1", 9_901))
    assert (envoy.ext_proc_cluster, envoy.message_timeout_s) == ("arch_ext_proc", 0.5)
    assert (envoy.request_timeout_s, envoy.body_limit_bytes) == (600, 32 << 20)
    assert (envoy.streams_bodies, envoy.decision_window_bytes) == (False, 32 << 20)
    assert envoy.failure_credential_env is None


def test_every_setting_is_read() -> None:
    configuration = configured(
        """\
model_providers: [{model: openai/a, default: true}, {model: openai/b, name: second}]
routing:
  router: {type: embedded, threshold: 0.3, max_waiting: 7}
  deadline: 1.5s
  on_failure: second
affinity: {salt: "${SALT:-a default for the salt}"}
server: {address: "::1", port: $PORT, drain: 1m}
admin: {address: admin.local, port: "1${PORT}"}
envoy:
  listener: {address: 0.0.0.0, port: 0}
  admin: null
  ext_proc_cluster: mine
  message_timeout: 2s
  request_timeout: 1h
  body_limit: 64MiB
""",
        {"PORT": "443"},
    )
    snapshot, router, envoy = configuration.snapshot, configuration.router, configuration.envoy
    assert (router.threshold, router.max_waiting, router.deadline_s) == (0.3, 7, 1.5)
    assert snapshot.on_failure.name == "second"
    assert snapshot.salt == sha256(b"a default for the salt").digest()
    assert (configuration.server.listen, configuration.server.drain_s) == (Address("::1", 443), 60)
    assert configuration.admin == Address("admin.local", 1443)
    assert (envoy.listener, envoy.admin, envoy.ext_proc_cluster) == (Address("0.0.0.0", 0), None, "mine")
    assert (envoy.message_timeout_s, envoy.request_timeout_s, envoy.body_limit_bytes) == (2, 3600, 64 << 20)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("model: openai/a", ("openai", "api.openai.com", "/v1")),
        ("model: gemini/a", ("gemini", "generativelanguage.googleapis.com", "/v1beta/openai")),
        ("model: openai/a, cluster: 'outbound|443||api.openai.com'", None),
        ("model: openai/a, base_url: 'https://llm.corp'", ("llm.corp", "llm.corp", None)),
        ("model: v/a, base_url: 'http://llm.corp:80/x/v1/'", ("llm.corp", "llm.corp", "/x/v1")),
        ("model: v/a, base_url: 'https://LLM.corp:80/v1'", ("llm.corp_80", "llm.corp:80", "/v1")),
        ("model: v/a, base_url: 'http://[::1]:8000/v1'", ("__1_8000", "[::1]:8000", "/v1")),
        ("model: v/a, base_url: 'http://${H}:${P:-81}/v1'", ("h_81", "h:81", "/v1")),
        ("model: v/a, cluster: mine", ("mine", None, None)),
        ("model: v/a/b, cluster: mine, base_url: 'https://a'", ("mine", "a", None)),
    ],
)
def test_where_a_provider_is(entry: str, expected: tuple[str, str | None, str | None] | None) -> None:
    target = decisions(f"model_providers: [{{{entry}, default: true}}]", {"H": "h"}).default
    expected = expected or ("outbound|443||api.openai.com", "api.openai.com", "/v1")
    assert (target.cluster, target.authority, target.path_prefix) == expected


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("model: openai/a", "outbound|443||api.openai.com"),
        ("model: v/a, base_url: 'http://llm.corp:8000/v1'", "outbound|8000||llm.corp"),
        ("model: v/a, base_url: 'http://llm.corp', cluster: mine", "mine"),
    ],
)
def test_clusters_are_named_as_istio_names_them(entry: str, expected: str) -> None:
    text = f"model_providers: [{{{entry}, default: true}}]\nenvoy: {{cluster_naming: istio}}"
    assert decisions(text).default.cluster == expected


def test_upstreams_are_the_clusters_whose_hosts_are_known() -> None:
    configuration = configured(
        """\
model_providers:
  - {model: v/a, cluster: one, default: true}
  - {model: v/b, cluster: two, base_url: "http://two:8080/v1"}
  - {model: v/c, cluster: one, base_url: "https://one/v1"}
  - {model: v/d, cluster: two, base_url: "http://two:8080/v2"}
  - {model: v/e, cluster: three}
"""
    )
    assert configuration.upstreams == (
        Upstream("two", "two", 8080, tls=False),
        Upstream("one", "one", 443, tls=True),
    )


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("model: openai/a, access_key: sk", ("authorization", "Bearer sk")),
        ("model: openai/a, access_key: 'Bearer sk'", ("authorization", "Bearer sk")),
        ("model: openai/a, access_key: sk, credential_header: Api-Key", ("api-key", "sk")),
        ("model: anthropic/a, access_key: $K", ("x-api-key", "from-env")),
        (
            "model: anthropic/a, access_key: $K, credential_header: authorization",
            ("authorization", "Bearer from-env"),
        ),
        ("model: v/a, cluster: c, access_key: $K, provider_interface: claude", ("x-api-key", "from-env")),
        ("model: v/a, cluster: c, access_key: '${E:-other}'", ("authorization", "Bearer other")),
        ("model: v/a, cluster: c, access_key: 'a$$b'", ("authorization", "Bearer a$b")),
        ("model: openai/a, access_key: ''", None),
        ("model: openai/a", None),
    ],
)
def test_credentials(entry: str, expected: tuple[str, str] | None) -> None:
    target = decisions(f"model_providers: [{{{entry}, default: true}}]", {"K": "from-env", "E": ""}).default
    found = target.credential and (target.credential.header, target.credential.value.reveal())
    assert found == expected


@pytest.mark.parametrize(
    ("key", "expected"),
    [("$K", "K"), ("'${K}'", "K"), ("'${K:-x}'", None), ("literal", None), ("''", None)],
)
def test_the_variable_that_envoy_may_use_itself(key: str, expected: str | None) -> None:
    text = f"model_providers: [{{model: openai/a, default: true, access_key: {key}}}]"
    assert configured(text, {"K": "k"}).envoy.failure_credential_env == expected


def test_passthrough() -> None:
    configuration = configured("model_providers: [{model: openai/a, default: true, passthrough_auth: true}]")
    assert configuration.snapshot.default.passthrough_auth
    assert configuration.snapshot.default.credential is None
    assert configuration.envoy.failure_credential_env is None


def test_how_models_are_found() -> None:
    snapshot = decisions(
        """\
model_providers:
  - {model: openai/a, name: one, default: true}
  - {model: groq/a}
  - {model: openai/b, name: two}
  - {model: v/org/c, cluster: c}
  - {model: openai/d, name: b}
"""
    )
    one, two, b = (snapshot.targets[name] for name in ("one", "two", "b"))
    assert snapshot.models == {
        "openai/a": one,
        "openai/b": two,
        "org/c": snapshot.targets["v/org/c"],
        "d": b,
        "openai/d": b,
    }


CHANGES = [
    ("gpt-4o-mini, default", "gpt-4o-max, default"),
    ("groq/llama}", "groq/llama, cluster: x}"),
    ("groq/llama}", "groq/llama, base_url: 'https://api.groq.com/v1'}"),
    ("groq/llama}", "groq/llama, passthrough_auth: true}"),
    ("groq/llama}", "groq/llama, access_key: k}"),
    ("weight: 10", "weight: 11"),
    ("percent: 5", "percent: 6"),
    ("about x", "about y"),
    ("about x", "about x\n    examples: [do x]"),
    ("about x", "about x\n    not_examples: [undo x]"),
    ("salt: 0", "salt: 1"),
    ("target: llama", "target: gpt-4o"),
    ("deadline: 100ms", "deadline: 101ms"),
    ("on_failure: default", "on_failure: llama"),
    ("on_failure: default", "on_failure: default, confidence: {margin: 0.1}"),
    ("on_failure: default", "on_failure: default, cache: {size: 0}"),
]
REVISED = (
    PROVIDERS
    + SALT
    + """\
model_aliases: {fast: {target: llama}}
routing: {deadline: 100ms, on_failure: default}
routing_preferences:
  - name: x
    description: about x
    targets: [{model: llama, weight: 90}, {model: gpt-4o, weight: 10}]
    shadow: [{model: gpt-4o, percent: 5}]
"""
)


@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_the_revision_changes_with_whatever_can_change_a_decision(old: str, new: str) -> None:
    assert old in REVISED
    assert decisions(REVISED).revision != decisions(REVISED.replace(old, new)).revision


def test_the_revision_stays_when_no_decision_can_change() -> None:
    before = decisions(REVISED).revision
    assert decisions("# a comment\n" + REVISED + "server: {port: 1}\n").revision == before
    without = REVISED.replace(SALT, "")
    first = load_text(without, "f", {}, lambda: b"1").configuration.snapshot
    second = load_text(without, "g", {}, lambda: b"2").configuration.snapshot
    assert first.revision == second.revision
    assert (first.salt, second.salt) == (b"1", b"2")


def test_the_revision_does_not_follow_a_key() -> None:
    text = "model_providers: [{model: openai/a, default: true, access_key: $K}]"
    assert decisions(text, {"K": "1"}).revision == decisions(text, {"K": "2"}).revision


def test_check_gives_warnings_and_errors_in_file_order(tmp_path: Path) -> None:
    path = tmp_path / "arch.yaml"
    path.write_text("model_providers: [{model: openai/a, default: true}]\nrouting: {on_failure: b}\n")
    assert [str(problem).removeprefix(f"{path}:").split(" ")[0] for problem in check(path, {})] == [
        "1:1:",
        "2:23:",
    ]
    assert [problem.is_warning for problem in check(path, {})] == [True, False]
    assert check(tmp_path / "none", {})[0].text == "there is no such file"


def test_a_store_swaps_whole_values() -> None:
    store = Store("old")
    taken = store.current()
    assert store.swap("new") == "old"
    assert (taken, store.current()) == ("old", "new")
