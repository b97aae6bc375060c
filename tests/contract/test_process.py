"""Real protobuf messages through the servicer, in memory: whole answers, in order."""

from __future__ import annotations

import gzip
import logging
from dataclasses import replace
from typing import Any

import grpc
import pytest
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from google.protobuf import json_format

from ext_proc.core.errors import Reason
from ext_proc.core.exchange import Decide, Part, RequestBody, RequestHeaders
from ext_proc.core.failover import chains_of
from ext_proc.core.parse import parse_call
from ext_proc.core.rewrite import Mutation, for_decision, with_body
from ext_proc.core.types import (
    Arm,
    Credential,
    Decision,
    Dialect,
    Message,
    Policy,
    Route,
    Secret,
    Shadow,
    Snapshot,
    Target,
    Verdict,
)
from ext_proc.server import wire
from ext_proc.server.routing import Live
from ext_proc.server.servicer import Servicer
from ext_proc.telemetry import Telemetry

SMALL = Target(
    "openai/small", "small", "openai", credential=Credential("authorization", Secret("Bearer s3cret"))
)
LARGE = Target("openai/large", "large", "large-cluster")
CODE = Policy("code", "writing code")
SNAPSHOT = Snapshot(
    revision="r",
    policies=(CODE,),
    routes={"code": Route(CODE, (Arm("baseline", LARGE, 10_000),))},
    targets={"openai/small": SMALL, "openai/large": LARGE},
    models={},
    aliases={},
    default=SMALL,
    on_failure=SMALL,
    salt=b"salt",
)
BODY = b'{"messages":[{"role":"user","content":"pl4nted"}],"model":"gpt"}'


class FakeAsker:
    async def ask(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Verdict:
        if messages[-1].text == "break":
            raise ZeroDivisionError(messages[-1].text)
        return Verdict("code", (("code", 0.9),), 0.1)


class FakeContext:
    """Gives the messages of a list, then the end; keeps the answers."""

    def __init__(self, messages: list[Any], metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self._messages = list(messages)
        self._metadata = metadata
        self.answers: list[Any] = []

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    async def read(self) -> Any:
        return self._messages.pop(0) if self._messages else grpc.aio.EOF

    async def write(self, data: bytes) -> None:
        self.answers.append(pb.ProcessingResponse.FromString(data))


def headers(method: str = "POST", path: str = "/v1/chat/completions", **more: str) -> Any:
    message = pb.ProcessingRequest()
    values = {":method": method, ":path": path, "content-type": "application/json"}
    for key, value in {**values, **{name.replace("_", "-"): text for name, text in more.items()}}.items():
        message.request_headers.headers.headers.add(key=key, raw_value=value.encode())
    return message


def body(data: bytes) -> Any:
    message = pb.ProcessingRequest()
    message.request_body.body = data
    message.request_body.end_of_stream = True
    return message


async def dialogue(
    *messages: Any, metadata: tuple[tuple[str, str], ...] = (), snapshot: Snapshot = SNAPSHOT
) -> list[Any]:
    context = FakeContext(list(messages), metadata)
    servicer = Servicer(lambda: Live(snapshot, FakeAsker(), 1 << 20), Telemetry())
    await servicer.process(None, context)
    return context.answers


def set_headers(common: Any) -> dict[str, str]:
    return {
        option.header.key: option.header.raw_value.decode() for option in common.header_mutation.set_headers
    }


async def test_an_llm_call_waits_for_its_body_and_is_then_decided() -> None:
    first, second = await dialogue(headers(x_arch_session="s"), body(BODY))
    assert first.WhichOneof("response") == "request_headers"
    assert not first.HasField("mode_override")
    common = second.request_body.response
    assert common.clear_route_cache
    new_body = BODY.replace(b'"gpt"', b'"large"')
    assert common.body_mutation.body == new_body
    changed = set_headers(common)
    bucket = int(changed.pop("x-arch-bucket"))
    assert 0 <= bucket < 10_000
    assert changed == {
        "x-arch-cluster": "large-cluster",
        "x-arch-model": "openai/large",
        "x-arch-reason": "policy",
        "x-arch-policy": "code",
        "x-arch-arm": "baseline",
        "content-length": str(len(new_body)),
    }
    assert "authorization" in common.header_mutation.remove_headers
    metadata = dict(second.dynamic_metadata.fields["arch_ext_proc"].struct_value.fields)
    assert metadata.pop("bucket").number_value == bucket
    assert {name: value.string_value for name, value in metadata.items()} == {
        "reason": "policy",
        "policy": "code",
        "model": "openai/large",
        "cluster": "large-cluster",
        "arm": "baseline",
    }


async def test_what_is_no_llm_call_passes_without_its_body() -> None:
    (answer,) = await dialogue(headers("GET"))
    assert answer.HasField("mode_override")
    assert not answer.request_headers.response.HasField("header_mutation")


@pytest.mark.parametrize(
    ("sent", "more", "reason"),
    [
        (b"{bad", {}, "body_unreadable"),
        (b"", {}, "body_empty"),
        (BODY, {"content_encoding": "exotic"}, "encoding_unsupported"),
        (b"\x1f\x8bno", {"content_encoding": "gzip"}, "body_unreadable"),
        (BODY[:-1] + b',"x":[' + b"{}," * 500_000 + b"0]}", {}, "body_too_intricate"),
    ],
)
async def test_a_body_that_cannot_be_read_goes_unchanged_to_the_default(
    sent: bytes, more: dict[str, str], reason: str
) -> None:
    _, answer = await dialogue(headers(**more), body(sent))
    common = answer.request_body.response
    assert not common.HasField("body_mutation")
    changed = set_headers(common)
    assert (changed["x-arch-cluster"], changed["x-arch-reason"]) == ("openai", reason)
    assert changed["authorization"] == "Bearer s3cret"


async def test_a_body_of_another_type_than_json_stays_unread_and_goes_to_the_default() -> None:
    (answer,) = await dialogue(headers(content_type="multipart/form-data; boundary=x"))
    changed = set_headers(answer.request_headers.response)
    assert (changed["x-arch-cluster"], changed["x-arch-reason"]) == ("openai", "content_type_unsupported")
    assert changed["authorization"] == "Bearer s3cret"
    assert answer.mode_override == pb.ProcessingResponse.FromString(wire.PASS).mode_override


async def test_a_path_keeps_its_bytes_when_its_prefix_changes() -> None:
    sent = headers()
    (path,) = [header for header in sent.request_headers.headers.headers if header.key == ":path"]
    path.raw_value = b"/team/v1/chat/completions?q=\xff\xc3\xa9"
    snapshot = replace(SNAPSHOT, policies=(), default=replace(SMALL, path_prefix="/openai/v1"))
    _, answer = await dialogue(sent, body(BODY), snapshot=snapshot)
    changed = {
        option.header.key: option.header.raw_value
        for option in answer.request_body.response.header_mutation.set_headers
    }
    assert changed[":path"] == b"/openai/v1/chat/completions?q=\xff\xc3\xa9"


async def test_a_request_id_of_any_length_costs_a_short_log_line() -> None:
    event = wire.read(headers(x_request_id="r" * 60_000))
    assert isinstance(event, RequestHeaders)
    assert event.request_id == "r" * 128


def test_what_holds_a_clients_words_does_not_show_them() -> None:
    request = Decide(Part.REQUEST_BODY, Dialect.CHAT_COMPLETIONS, RequestHeaders(), BODY)
    call = parse_call(Dialect.CHAT_COMPLETIONS, BODY)
    assert "pl4nted" not in f"{request!r} {RequestBody(BODY)!r} {call!r}"


async def test_a_bug_costs_no_request_and_quotes_no_content(capsys: pytest.CaptureFixture[str]) -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger("ext_proc")
    logger.addHandler(handler)
    try:
        _, answer = await dialogue(headers(), body(BODY.replace(b"pl4nted", b"break")))
    finally:
        logger.removeHandler(handler)
    assert set_headers(answer.request_body.response)["x-arch-reason"] == "internal_error"
    assert any(record.getMessage() == "bug" for record in records)
    said = "".join(str(record.__dict__) for record in records)
    assert "break" not in said
    assert "s3cret" not in said


async def test_other_parts_are_acknowledged_in_order() -> None:
    names = ("request_trailers", "response_headers", "response_body", "response_trailers")
    messages = []
    for name in names:
        message = pb.ProcessingRequest()
        getattr(message, name).SetInParent()
        messages.append(message)
    answers = await dialogue(*messages)
    assert tuple(answer.WhichOneof("response") for answer in answers) == names


@pytest.mark.parametrize("role", ["route", "attempt"])
async def test_a_stream_of_requests_alone_ends_with_the_decision(role: str) -> None:
    metadata = (("x-arch-role", role), ("x-arch-sends", "request"))
    messages = [headers(x_arch_attempt="openai/large"), body(BODY), pb.ProcessingRequest(request_trailers={})]
    answers = await dialogue(*messages, metadata=metadata)
    assert [answer.WhichOneof("response") for answer in answers][:1] == ["request_headers"]
    assert len(answers) == 2
    assert len(await dialogue(*messages, metadata=metadata[:1])) == 3


async def test_a_stream_of_requests_alone_ends_with_the_headers_of_what_is_no_llm_call() -> None:
    metadata = (("x-arch-sends", "request"),)
    assert len(await dialogue(headers(path="/healthz"), body(BODY), metadata=metadata)) == 1


async def test_a_copys_stream_goes_on_whatever_it_says_of_itself() -> None:
    metadata = (("x-arch-role", "shadow"), ("x-arch-target", "openai/large"), ("x-arch-sends", "request"))
    answer = pb.ProcessingRequest(response_headers={})
    assert len(await dialogue(headers(), body(BODY), answer, metadata=metadata)) == 3


DECISIONS = (
    Decision(SMALL, Reason.PINNED),
    Decision(LARGE, Reason.PINNED),
    Decision(SMALL, Reason.ALIAS),
    Decision(LARGE, Reason.POLICY, "code", "canary", 7),
    Decision(LARGE, Reason.POLICY, "code", "canary", 8),
    Decision(LARGE, Reason.POLICY, "code", "canary", 8, Shadow(SMALL, 100)),
)


@pytest.mark.parametrize("part", [Part.REQUEST_HEADERS, Part.REQUEST_BODY])
@pytest.mark.parametrize("is_streamed", [False, True])
def test_what_answers_share_mixes_none_up(part: Part, is_streamed: bool) -> None:
    request = Decide(part, Dialect.CHAT_COMPLETIONS, RequestHeaders(), b"", is_streamed=is_streamed)
    for _ in range(2):
        for number, decision in enumerate(DECISIONS):
            mutation = for_decision(decision, f"/{number}")
            if number % 2:
                mutation = with_body(mutation, b"x" * number, was_encoded=number > 2)
            answer = pb.ProcessingResponse.FromString(wire.write(request, mutation, decision))
            response = answer.request_headers if part is Part.REQUEST_HEADERS else answer.request_body
            common = response.response
            changes = common.header_mutation
            options = changes.set_headers
            assert {(each.header.key, each.header.raw_value) for each in options} == set(mutation.set)
            assert len(options) == len(mutation.set)
            assert {each.append_action for each in options} == {2}
            assert tuple(changes.remove_headers) == mutation.remove
            has_body = mutation.body is not None and not is_streamed
            assert common.HasField("body_mutation") == has_body
            assert common.body_mutation.body == (mutation.body if has_body else b"")
            assert common.clear_route_cache
            assert answer.HasField("mode_override") == (part is Part.REQUEST_HEADERS and not is_streamed)
            told = {
                "reason": decision.reason.value,
                "model": decision.target.name,
                "cluster": decision.target.cluster,
                "policy": decision.policy,
                "arm": decision.arm,
                "bucket": decision.bucket,
                "shadow": decision.shadow and decision.shadow.target.name,
            }
            known = {name: value for name, value in told.items() if value is not None}
            assert json_format.MessageToDict(answer.dynamic_metadata)["arch_ext_proc"] == known


@pytest.mark.parametrize("size", [0, 1 << 10, (64 << 10) - 1, 64 << 10, 2 << 20, 3 << 20])
def test_a_body_of_any_size_is_written_as_protobuf_would(size: int) -> None:
    request = Decide(Part.REQUEST_BODY, Dialect.CHAT_COMPLETIONS, RequestHeaders(), b"")
    decision = Decision(SMALL, Reason.PINNED)
    mutation = Mutation((("a", b"b"),), ("c",), b"x" * size)
    answer = pb.ProcessingResponse.FromString(wire.write(request, mutation, decision))
    expected = pb.ProcessingResponse.FromString(wire.write(request, replace(mutation, body=b""), decision))
    expected.request_body.response.body_mutation.body = b"x" * size
    assert answer == expected


async def test_an_unknown_message_ends_the_stream_without_an_error() -> None:
    assert await dialogue(pb.ProcessingRequest(), headers()) == []


async def test_a_copy_gets_its_targets_model_and_key_and_loses_the_primarys() -> None:
    role = (("x-arch-role", "shadow"), ("x-arch-target", "openai/large"))
    _, answer = await dialogue(headers(path="/openai/chat/completions"), body(BODY), metadata=role)
    common = answer.request_body.response
    assert common.body_mutation.body == BODY.replace(b'"gpt"', b'"large"')
    assert "authorization" in common.header_mutation.remove_headers
    assert not common.clear_route_cache


@pytest.mark.parametrize("target", ["openai/large", "nobody"])
async def test_a_copy_that_cannot_be_rewritten_is_dropped(target: str) -> None:
    role = (("x-arch-role", "shadow"), ("x-arch-target", target))
    sent = b"{bad" if target == "openai/large" else BODY
    _, answer = await dialogue(headers(), body(sent), metadata=role)
    assert answer.WhichOneof("response") == "immediate_response"


FIRST = Target(
    "first/one", "one", "first", "first.example", "/v1", Credential("x-first-key", Secret("key-of-first"))
)
SECOND = Target(
    "second/two",
    "two",
    "second",
    "second.example",
    "/own/v2",
    Credential("authorization", Secret("Bearer 2")),
)
RANKED = Route(CODE, (Arm("baseline", FIRST, 10_000),), fallbacks=(SECOND,))
FAILING_OVER = replace(
    SNAPSHOT,
    routes={"code": RANKED},
    targets={target.name: target for target in (SMALL, FIRST, SECOND)},
    chains=chains_of([RANKED]),
)
ATTEMPT = (("x-arch-role", "attempt"),)


async def test_a_request_for_a_chain_is_made_fit_for_its_first_target_and_says_so() -> None:
    _, answer = await dialogue(headers(), body(BODY), snapshot=FAILING_OVER)
    changed = set_headers(answer.request_body.response)
    (cluster,) = FAILING_OVER.chains
    assert (changed["x-arch-cluster"], changed["x-arch-model"]) == (cluster, "first/one")
    assert (changed["x-arch-written-for"], changed["x-arch-failover"]) == ("first/one", "120000")
    assert changed["x-first-key"] == "key-of-first"


@pytest.mark.parametrize("model", [b"gpt", b"one"])
async def test_a_compressed_request_for_a_chain_goes_on_unpacked_whatever_its_model(model: bytes) -> None:
    sent = BODY.replace(b"gpt", model)
    asked = headers(content_encoding="gzip"), body(gzip.compress(sent))
    _, answer = await dialogue(*asked, snapshot=FAILING_OVER)
    common = answer.request_body.response
    assert common.body_mutation.body == BODY.replace(b"gpt", b"one")
    assert "content-encoding" in common.header_mutation.remove_headers


async def test_an_attempt_elsewhere_gets_that_targets_model_path_host_and_key_and_no_other() -> None:
    sent = headers(path="/v1/chat/completions?a=1", x_arch_attempt="second/two", x_arch_model="first/one")
    first, answer = await dialogue(sent, body(BODY), metadata=ATTEMPT, snapshot=FAILING_OVER)
    assert not first.request_headers.response.HasField("header_mutation")
    common = answer.request_body.response
    new_body = BODY.replace(b'"gpt"', b'"two"')
    assert common.body_mutation.body == new_body
    assert set_headers(common) == {
        ":path": "/own/v2/chat/completions?a=1",
        ":authority": "second.example",
        "x-arch-model": "second/two",
        "authorization": "Bearer 2",
        "content-length": str(len(new_body)),
    }
    removed = set(common.header_mutation.remove_headers)
    assert {"x-arch-written-for", "x-first-key", "x-api-key", "api-key"} <= removed
    assert "authorization" not in removed
    assert not common.clear_route_cache


@pytest.mark.parametrize(
    ("target", "path", "sent"),
    [
        ("nobody", "/v1/chat/completions", BODY),
        ("", "/v1/chat/completions", BODY),
        ("second/two", "/v1/chat/completions", b"{bad"),
        ("second/two", "/v1/files", BODY),
        ("openai/small", "/v1/chat/completions", BODY),
    ],
)
async def test_an_attempt_that_cannot_be_made_fit_is_refused(target: str, path: str, sent: bytes) -> None:
    asked = headers(path=path, x_arch_attempt=target)
    _, answer = await dialogue(asked, body(sent), metadata=ATTEMPT, snapshot=FAILING_OVER)
    assert answer.immediate_response.status.code == 503
    assert not answer.immediate_response.HasField("headers")


async def test_what_cannot_be_counted_is_decided_all_the_same() -> None:
    class Uncounting(Telemetry):
        def decided(self, *_: Any) -> None:
            raise ZeroDivisionError

    context = FakeContext([headers(), body(BODY)])
    await Servicer(lambda: Live(SNAPSHOT, FakeAsker(), 1 << 20), Uncounting()).process(None, context)
    assert set_headers(context.answers[1].request_body.response)["x-arch-reason"] == "policy"
