"""What `check` says of providers and their base URLs, to the letter."""

from __future__ import annotations

import pytest

from ext_proc.config.load import load_text
from ext_proc.core.errors import ConfigError, Problem


def problems_of(text: str, environ: dict[str, str] | None = None) -> list[str]:
    try:
        problems: tuple[Problem, ...] = load_text(text, "f", environ or {}, lambda: b"").warnings
    except ConfigError as error:
        problems = error.problems
    return [str(problem).removeprefix("f:") for problem in problems]


SALT = "affinity: {salt: 0123456789abcdef}\n"

PROVIDERS = [
    ("", '1:1: there is no "model_providers" — list at least one model, with default: true'),
    ("model_providers: []\n", '2:18: "model_providers" is empty — write at least one entry'),
    (
        "model_providers: [{model: openai/a}]\n",
        '2:18: no provider is the default — write "default: true" at one of them',
    ),
    (
        "model_providers:\n  - model: openai/a\n  - model: openai/b\n",
        '3:3: no provider is the default — write "default: true" at one of them',
    ),
    (
        "model_providers: [{model: openai/a, defualt: true}]\n",
        '2:37: unknown key "defualt" — did you mean "default"?',
    ),
    (
        "model_provider: [{model: openai/a, default: true}]\nmodel_aliases: {x: {target: a}}\n",
        '2:1: unknown key "model_provider" — did you mean "model_providers"?',
    ),
    (
        "model_providers: [{model: vllm/a, default: true, base_ulr: 'http://a'}]\n",
        '2:50: unknown key "base_ulr" — did you mean "base_url"?',
    ),
    (
        "model_providers:\n  - {model: openai/a, default: true}\n  - {model: openai/b, default: true}\n",
        "4:23: a second default provider — keep one: the first is in line 3",
    ),
    (
        "model_providers: [{model: openai/a, default: true}]\nllm_providers: [{model: openai/b}]\n",
        '3:1: "model_providers" and "llm_providers" are the same list — move these entries there',
    ),
    (
        "model_providers:\n  - {model: openai/a, default: true}\n  - {model: openai/a}\n",
        '4:13: two providers are called "openai/a" — give one of them another "name": the first is in line 3',
    ),
    (
        "model_providers: [{model: openai/a, name: default, default: true}]\n",
        '2:43: "default" is reserved for "on_failure" — give the provider another name',
    ),
    (
        "model_providers: [{name: a, default: true}]\n",
        '2:19: this provider has no "model" — write e.g. "model: openai/gpt-4o-mini"',
    ),
    (
        "model_providers: [{model: gpt-4o, default: true}]\n",
        '2:27: "model" has no provider prefix — write "provider/gpt-4o"',
    ),
    (
        "model_providers: [{model: openai/*, default: true}]\n",
        '2:27: "model" is a wildcard — write one entry for each model',
    ),
    (
        "model_providers: [{model: opnai/a, default: true}]\n",
        '2:27: nothing says where "opnai/a" is served'
        ' — write its "base_url", or the Envoy "cluster" that serves it; did you mean "openai"?',
    ),
    (
        "model_providers:\n"
        "  - {model: v/a, default: true, cluster: c, base_url: 'http://a:1'}\n"
        "  - {model: v/b, cluster: c, base_url: 'http://a:2'}\n",
        '4:40: cluster "c" has other hosts here than in line 3'
        " — give each host, port and scheme its own cluster",
    ),
    (
        "model_providers: [{model: openai/a, default: true, access_key: $KEY}]\n",
        "2:64: the environment variable KEY is not set — set it where the server runs",
    ),
    (
        "model_providers: [{model: openai/a, default: true, access_key: $EMPTY}]\n",
        "2:64: warning: the environment variable EMPTY is empty, so no key is sent"
        " — set it, or remove access_key",
    ),
    (
        "model_providers: [{model: openai/a, default: true, access_key: Bearer $KEY}]\n",
        '2:64: "access_key" has a dollar sign that is not a variable alone'
        " — write $VAR, ${VAR} or ${VAR:-default}; a dollar sign is $$",
    ),
    (
        'model_providers: [{model: openai/a, default: true, access_key: "a\\nb"}]\n',
        '2:64: "access_key" has characters that no header can carry — check the key',
    ),
    (
        "model_providers: [{model: openai/a, default: true, access_key: a, passthrough_auth: true}]\n",
        '2:67: "passthrough_auth" and "access_key" exclude each other — remove one of them',
    ),
    (
        "model_providers: [{model: openai/a, default: true, credential_header: api-key}]\n",
        '2:52: "credential_header" has no "access_key" to carry — write access_key, or remove this',
    ),
    (
        "model_providers: [{model: openai/a, default: true, access_key: a, credential_header: x-arch-arm}]\n",
        '2:86: "credential_header" is not a header that can carry a credential'
        " — write e.g. authorization, x-api-key or api-key",
    ),
    (
        'model_providers: [{model: openai/a, default: "true"}]\n',
        '2:46: "default" must be true or false — write it without quotes',
    ),
    (
        "model_providers: [{model: openai/a, default: true, http_host: x}]\n",
        '2:52: "http_host" is a key of archgw or Plano that this server does not have'
        " — remove it and write that host in base_url",
    ),
    (
        "model_providers: [openai/a]\n",
        '2:19: "model_providers" must be a mapping — write "key: value" lines under it',
    ),
    (
        "model_providers:\n"
        "  - model: openai/a\n"
        "    default: true\n"
        "    routing_preferences: [{name: x, description: y}]\n"
        "  - model: openai/b\n"
        "    routing_preferences: [{name: x, description: z}, {name: w}]\n",
        '7:34: two policies are called "x" — merge them, or rename one: the first is in line 5',
        '7:54: this policy has no "description" — write e.g. "description: reviewing existing code"',
    ),
    (
        "model_providers:\n"
        "  - {model: openai/a, name: one, default: true}\n"
        "  - {model: groq/a, name: two}\n"
        "model_aliases: {x: {target: a}}\n",
        '5:29: "a" is the model of several providers — name one: "one" or "two"',
    ),
    (
        "model_providers:\n"
        "  - {model: openai/a, default: true, max_requests: 5}\n"
        "  - {model: openai/b}\n"
        "  - {model: openai/c, max_requests: 6}\n",
        '5:5: cluster "openai" has another max_requests here than in line 3'
        " — the limit is the cluster's: write it once",
    ),
    (
        "model_providers: [{model: openai/a, default: true, supports: {dialects: [chat], context: 1}}]\n",
        '2:74: "dialects" has an unknown value'
        " — write chat_completions or responses or messages or completions or embeddings",
        '2:81: unknown key "context" — did you mean "context_tokens"?',
    ),
    (
        "model_providers:\n"
        "  - {model: openai/a, default: true}\n"
        "  - {model: mesh/b, cluster: b}\n"
        "  - {model: openai/c, passthrough_auth: true}\n"
        "routing_preferences:\n"
        "  - {name: x, description: x, models: [a, b, c]}\n"
        "  - {name: y, description: y, models: [b, a]}\n",
        '7:5: warning: "mesh/b" cannot be a fallback: only the mesh knows its hosts — write its base_url',
        '7:5: warning: "openai/c" cannot be a fallback: the client\'s credential is gone by then'
        " — give it an access_key, or rank it first",
        '8:5: warning: nothing follows "mesh/b" when it fails: only the mesh knows its hosts'
        " — write its base_url",
    ),
    (
        "model_providers:\n"
        "  - {model: openai/a, default: true}\n"
        "  - {model: mesh/b, cluster: b}\n"
        "  - {model: openai/c, passthrough_auth: true}\n"
        "routing: {split: envoy}\n"
        "routing_preferences:\n"
        "  - {name: x, description: x, models: [b]}\n"
        "  - {name: y, description: y, targets: [{model: a, weight: 1}, {model: b, weight: 1}]}\n"
        "  - {name: z, description: z, split: envoy,"
        " targets: [{model: a, weight: 1}, {model: c, weight: 1}]}\n",
        '9:5: Envoy cannot split a policy over "mesh/b": only the mesh knows its hosts'
        ' — write its base_url, or "split: ext_proc"',
        '10:38: Envoy cannot split a policy over "openai/c", which passes on clients\' keys'
        ' — write "split: ext_proc"',
    ),
]

OTHERS = """\
model_aliases: {x: {target: nord/clerk-9b}}
routing: {split: envoy}
routing_preferences:
  - {name: x, description: x, models: [nord/clerk-9b, openai/a]}
  - {name: y, description: y, targets: [{model: openai/a, weight: 1}, {model: nord/clerk-9b, weight: 1}]}
model_providers:
  - {model: openai/a, default: true}
"""
LOST = [
    ("{model: clerk-9b}", '9:13: "model" has no provider prefix — write "provider/clerk-9b"'),
    (
        "{model: clerk-9b, name: nord/clerk-9b}",
        '9:13: "model" has no provider prefix — write "provider/clerk-9b"',
    ),
    ("{model: nord/*}", '9:13: "model" is a wildcard — write one entry for each model'),
    (
        "{model: nord/clerk-9b, base_url: clerk:8000/v1}",
        '9:38: "base_url" must begin with http:// or https:// — write e.g. https://api.openai.com/v1',
    ),
    (
        "{model: nord/clerk-9b, base_url: clerk:8000/v1, cluster: clerk}",
        '9:38: "base_url" must begin with http:// or https:// — write e.g. https://api.openai.com/v1',
    ),
    (
        "{model: nord/clerk-9b}",
        '9:13: nothing says where "nord/clerk-9b" is served'
        ' — write its "base_url", or the Envoy "cluster" that serves it',
    ),
    (
        "nord/clerk-9b",
        '9:5: "model_providers" must be a mapping — write "key: value" lines under it',
    ),
]


@pytest.mark.parametrize(("entry", "expected"), LOST)
def test_a_bad_provider_is_one_problem_however_often_it_is_named(entry: str, expected: str) -> None:
    assert problems_of(f"{SALT}{OTHERS}  - {entry}\n") == [expected]


@pytest.mark.parametrize(("text", "expected"), [(text, expected) for text, *expected in PROVIDERS])
def test_what_is_wrong_with_providers(text: str, expected: list[str]) -> None:
    assert problems_of(SALT + text, {"EMPTY": " "}) == expected


BASE_URLS = [
    ("ftp://a/v1", "must begin with http:// or https:// — write e.g. https://api.openai.com/v1"),
    ("api.openai.com/v1", "must begin with http:// or https:// — write e.g. https://api.openai.com/v1"),
    ("https:///v1", "names no host — write e.g. https://api.openai.com/v1"),
    ("https://a_b!/v1", "names no host — write e.g. https://api.openai.com/v1"),
    ("https://a:0/v1", "names no host — write e.g. https://api.openai.com/v1"),
    (
        "https://a:x/v1",
        "is not a URL: its host or port cannot be read — write e.g. https://api.openai.com/v1",
    ),
    (
        "https://[::1/v1",
        "is not a URL: its host or port cannot be read — write e.g. https://api.openai.com/v1",
    ),
    ("https://u:p@a/v1", "holds a user name or a password — give the credential in access_key"),
    (
        "https://a/v1?key=x",
        "has a query or a fragment — write the host and the path before /chat/completions only",
    ),
    ("https://a/v 1", "has a path with characters that need escaping — percent-encode them"),
    ("https://a/v1/chat/completions", "ends in an endpoint — leave out what follows /v1"),
]


@pytest.mark.parametrize(("url", "expected"), BASE_URLS)
def test_what_is_wrong_with_a_base_url(url: str, expected: str) -> None:
    text = f"model_providers: [{{model: v/a, default: true, base_url: '{url}'}}]\n"
    assert problems_of(SALT + text) == [f'2:57: "base_url" {expected}']
