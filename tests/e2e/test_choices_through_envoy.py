"""What a client may choose for itself: a provider, an alias, its own policies, its session."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ext_proc.core import headers
from tests.support.mesh import CODING, PROVIDER_KEYS, Mesh, chat

pytestmark = pytest.mark.asyncio(loop_scope="session")

MINE = [
    {"name": "mine", "description": "writing functions in code", "models": ["local/keyless", "vllm/coder"]},
    {"name": "other", "description": "planning trips and hotels", "models": ["anthropic/claude"]},
]

PUBLISHED_FORMS: dict[str, dict[str, Any]] = {
    "routing_preferences of 2026": {"routing_preferences": MINE},
    "metadata of 2025, nested": {
        "metadata": {
            "archgw_preference_config": (
                "- model: local/keyless\n"
                "  routing_preferences:\n"
                "    - {name: mine, description: writing functions in code}\n"
                "- model: anthropic/claude\n"
                "  routing_preferences: [{name: other, description: planning trips and hotels}]\n"
            )
        }
    },
    "metadata of 2025, flat": {
        "metadata": {
            "archgw_preference_config": (
                "- {name: mine, model: local/keyless, usage: writing functions in code}\n"
                "- {name: other, model: anthropic/claude, usage: planning trips and hotels}\n"
            )
        }
    },
}


@pytest.mark.parametrize(
    ("name", "at", "model"),
    [
        ("openai/gpt-4o", "openai", "gpt-4o"),
        ("vllm/coder", "coder", "coder"),
        ("anthropic/claude", "anthropic", "claude"),
        ("local/keyless", "local", "keyless"),
    ],
)
async def test_a_request_that_names_a_provider_of_the_file_gets_that_one(
    mesh: Mesh, name: str, at: str, model: str
) -> None:
    reply = await mesh.send(chat("plan a trip and write the code for it", model=name))
    assert (reply.reason, reply.model, reply.policy) == ("pinned", name, None)
    assert mesh.only(at).model == model


async def test_an_alias_stands_for_its_target(mesh: Mesh) -> None:
    reply = await mesh.ask(CODING, model="fast")
    assert (reply.reason, reply.model) == ("alias", "local/keyless")
    assert mesh.only("local").model == "keyless"


@pytest.mark.parametrize("name", ["gpt-4o", "claude", "openai/gpt-5", "no such model", ""])
async def test_any_other_model_name_is_no_pin(mesh: Mesh, name: str) -> None:
    reply = await mesh.ask(CODING, model=name)
    assert (reply.reason, reply.model) == ("policy", "vllm/coder")
    assert mesh.only("coder").model == "coder"


@pytest.mark.parametrize("form", PUBLISHED_FORMS.values(), ids=PUBLISHED_FORMS)
async def test_a_request_may_bring_its_own_policies_and_no_provider_sees_them(
    mesh: Mesh, form: dict[str, Any]
) -> None:
    counted = await mesh.decisions(policy="(inline)")
    reply = await mesh.send(chat(CODING) | form | {"n": 1})
    assert (reply.reason, reply.policy, reply.model) == ("policy", "mine", "local/keyless")
    fields = json.loads(mesh.only("local").body)
    assert fields.pop("metadata", {}) == {}
    assert fields == chat(CODING) | {"model": "keyless", "n": 1}
    assert await mesh.decisions(policy="(inline)") == counted + 1


async def test_other_metadata_of_a_request_stays(mesh: Mesh) -> None:
    form = PUBLISHED_FORMS["metadata of 2025, flat"]["metadata"]
    await mesh.send(chat(CODING) | {"metadata": {"a": "1", **form, "z": "2"}})
    assert json.loads(mesh.only("local").body)["metadata"] == {"a": "1", "z": "2"}


@pytest.mark.parametrize(
    "given",
    [
        "no list",
        [],
        [{"name": "mine", "description": "code", "models": ["https://evil.example/v1", "nobody/knows"]}],
        [{"name": "mine\r\nx-arch-cluster: anthropic", "description": "code", "models": ["local/keyless"]}],
    ],
    ids=["no list", "empty", "unknown models", "a header in the name"],
)
async def test_policies_that_cannot_be_used_leave_the_files_own_in_force(mesh: Mesh, given: Any) -> None:
    reply = await mesh.send(chat(CODING) | {"routing_preferences": given})
    assert (reply.status, reply.policy, reply.model) == (200, "code generation", "vllm/coder")
    assert "routing_preferences" not in json.loads(mesh.only("coder").body)


async def test_a_policy_name_in_any_script_arrives_as_utf8(mesh: Mesh) -> None:
    mine = [
        {"name": "código – 代码", "description": "writing functions in code", "models": ["local/keyless"]}
    ]
    reply = await mesh.send(chat(CODING) | {"routing_preferences": mine})
    assert (reply.status, reply.reason) == (200, "policy")
    assert reply.policy is not None
    assert reply.policy.encode("utf-8", "surrogateescape").decode() == "código – 代码"


@pytest.mark.parametrize("header", ["x-arch-session", "x-model-affinity"])
async def test_a_session_keeps_its_bucket_whatever_it_says(mesh: Mesh, header: str) -> None:
    for text in (CODING, f"{CODING} and another", f"{CODING}, in Rust"):
        await mesh.send(chat(text), headers=[(header, "session-1")])
    await mesh.send(chat(CODING), headers=[(header, "session-2")])
    *one, two = (seen.headers[headers.BUCKET] for seen in mesh.providers["coder"].seen)
    assert len({*one}) == 1
    assert two not in one


async def test_a_conversation_without_a_pin_keeps_its_bucket_as_it_grows(mesh: Mesh) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": CODING}]
    for _ in range(3):
        await mesh.send({"model": "x", "messages": turns})
        turns += [
            {"role": "assistant", "content": "def f(): ..."},
            {"role": "user", "content": "now that function of the code without recursion"},
        ]
    buckets = {seen.headers[headers.BUCKET] for seen in mesh.providers["coder"].seen}
    assert len(mesh.providers["coder"].seen) == 3
    assert len(buckets) == 1


async def test_the_session_pin_stays_a_header_that_providers_may_use(mesh: Mesh) -> None:
    await mesh.ask(session="session-1")
    seen = mesh.only("coder")
    assert seen.headers["x-arch-session"] == "session-1"
    assert seen.headers["authorization"] == f"Bearer {PROVIDER_KEYS['CODER_KEY']}"
