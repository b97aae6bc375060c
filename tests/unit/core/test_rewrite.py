"""A decision to headers and bytes."""

from __future__ import annotations

import pytest

from ext_proc.core import rewrite
from ext_proc.core.errors import Reason
from ext_proc.core.rewrite import AUTH_HEADERS, Mutation
from ext_proc.core.types import Decision, Dialect, InlinePolicy, LlmCall, Policy, Shadow, Target
from tests.support.builders import a_credential, a_target

PATH = "/v1/chat/completions"


def a_call(model: str | None = "gpt", *, inline: bool = False) -> LlmCall:
    policies = (InlinePolicy(Policy("p", "d"), ("m",)),) if inline else None
    return LlmCall(Dialect.CHAT_COMPLETIONS, model, (), inline_policies=policies)


def test_a_decision_of_a_policy_says_all_of_itself_in_headers() -> None:
    shadow = Shadow(a_target("next/n"), 100)
    decision = Decision(a_target("openai/small"), Reason.POLICY, "code", "canary", 42, shadow)
    assert rewrite.for_decision(decision, PATH).set == (
        ("x-arch-cluster", b"openai"),
        ("x-arch-model", b"openai/small"),
        ("x-arch-reason", b"policy"),
        ("x-arch-policy", b"code"),
        ("x-arch-arm", b"canary"),
        ("x-arch-bucket", b"42"),
        ("x-arch-shadow", b"arch-shadow/next/n"),
    )


def test_bucket_zero_is_a_bucket() -> None:
    decision = Decision(a_target(), Reason.POLICY, "code", "baseline", 0)
    assert ("x-arch-bucket", b"0") in rewrite.for_decision(decision, PATH).set


def test_a_decision_without_a_policy_names_none() -> None:
    names = [name for name, _ in rewrite.for_decision(Decision(a_target(), Reason.PINNED), PATH).set]
    assert names == ["x-arch-cluster", "x-arch-model", "x-arch-reason"]


def test_a_policys_name_may_have_any_letters() -> None:
    decision = Decision(a_target(), Reason.POLICY, "größe")
    assert ("x-arch-policy", "größe".encode()) in rewrite.for_decision(decision, PATH).set


@pytest.mark.parametrize("header", AUTH_HEADERS)
def test_a_targets_key_replaces_whatever_keys_the_client_sent(header: str) -> None:
    mutation = rewrite.for_target(a_target(credential=a_credential("k", header)), PATH)
    assert mutation.set == ((header, b"k"),)
    assert set(mutation.remove) | {header} == set(AUTH_HEADERS)
    assert header not in mutation.remove


def test_a_key_in_a_header_of_its_own_leaves_no_client_key_beside_it() -> None:
    mutation = rewrite.for_target(a_target(credential=a_credential("k", "x-litellm-key")), PATH)
    assert mutation == Mutation((("x-litellm-key", b"k"),), AUTH_HEADERS)


def test_a_target_without_a_key_gets_none() -> None:
    assert rewrite.for_target(a_target(), PATH) == Mutation((), AUTH_HEADERS)


def test_the_clients_key_goes_on_only_where_the_configuration_says_so() -> None:
    assert rewrite.for_target(a_target(passthrough_auth=True), PATH) == Mutation(())


def test_host_and_path_become_the_providers() -> None:
    target = a_target(authority="api.groq.com", path_prefix="/openai/v1", passthrough_auth=True)
    assert rewrite.for_target(target, f"/team{PATH}?a=b").set == (
        (":authority", b"api.groq.com"),
        (":path", b"/openai/v1/chat/completions?a=b"),
    )


def test_a_path_that_is_right_already_is_not_set() -> None:
    assert rewrite.for_target(a_target(path_prefix="/v1"), PATH).set == ()


def test_a_new_body_comes_with_its_exact_length_and_no_encoding() -> None:
    mutation = Mutation((("a", b"b"),), ("c",))
    body = '{"ü":1}'.encode()
    assert rewrite.with_body(mutation, body, was_encoded=False) == Mutation(
        (("a", b"b"), ("content-length", b"8")), ("c",), body
    )
    assert rewrite.with_body(mutation, body, was_encoded=True).remove == ("c", "content-encoding")


@pytest.mark.parametrize(
    ("body", "read", "expected"),
    [
        (b'{"model":"gpt"}', "gpt", b'{"model":"new"}'),
        (
            b'{"messages":[{"model":"a"}],"model" : "gpt"}',
            "gpt",
            b'{"messages":[{"model":"a"}],"model" : "new"}',
        ),
        (b'{"model":"gpt","mod\\u0065l":"b"}', "b", b'{"model":"new","mod\\u0065l":"new"}'),
        (b'{"model":{"a":[1]},"model":"b"}', "b", b'{"model":"new","model":"new"}'),
        (b'{"model":null}', None, b'{"model":"new"}'),
        (b"{}", None, b'{"model":"new"}'),
        (b'{ "a":1}', None, b'{"model":"new", "a":1}'),
        (b'{"a":{"model":"b"}}', None, b'{"model":"new","a":{"model":"b"}}'),
        (b'{"model":"new","model":"b"}', "b", b'{"model":"new","model":"new"}'),
        (b'{"model":"a","model":"new"}', "new", b'{"model":"new","model":"new"}'),
    ],
)
def test_the_model_is_replaced_wherever_a_provider_may_read_it(
    body: bytes, read: str | None, expected: bytes
) -> None:
    assert rewrite.rewrite_body(body, a_call(read), "new") == expected
    assert rewrite.set_model(body, "new") == expected


def test_a_body_that_is_right_already_is_the_very_same() -> None:
    body = b'{"model":"new"}'
    assert rewrite.rewrite_body(body, a_call("new"), "new") is body


def test_a_models_name_is_quoted_as_json() -> None:
    assert rewrite.set_model(b'{"model":1}', 'a"b\\ü') == '{"model":"a\\"b\\\\ü"}'.encode()


@pytest.mark.parametrize(
    ("body", "read", "expected"),
    [
        (b'{"routing_preferences":[]}', None, b'{"model":"new"}'),
        (b'{"model":"gpt","routing_preferences":[{"model":"a"}]}', "gpt", b'{"model":"new"}'),
        (
            b'{"metadata":{"archgw_preference_config":"x"},"a":1}',
            None,
            b'{"model":"new","metadata":{},"a":1}',
        ),
    ],
)
def test_policies_that_a_request_brought_are_taken_out(
    body: bytes, read: str | None, expected: bytes
) -> None:
    assert rewrite.rewrite_body(body, a_call(read, inline=True), "new") == expected


def test_what_looks_like_policies_stays_when_none_were_read() -> None:
    body = b'{"model":"new","x":{"routing_preferences":[]}}'
    assert rewrite.rewrite_body(body, a_call("new"), "new") is body


def test_a_mutation_shows_neither_key_nor_words() -> None:
    target: Target = a_target(credential=a_credential("Bearer sk-hidden"))
    mutation = rewrite.with_body(rewrite.for_target(target, PATH), b'{"w":"words"}', was_encoded=False)
    assert "sk-hidden" not in repr(mutation)
    assert "words" not in repr(mutation)
    assert "sk-hidden" not in repr(target)
