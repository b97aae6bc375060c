"""An agent's loop stays where its user's message went."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from ext_proc.core.copying import CopyBounds
from ext_proc.core.errors import Reason
from ext_proc.core.exchange import Decide, Part, RequestHeaders
from ext_proc.core.ports import Kept
from ext_proc.core.settings import MemorySettings
from ext_proc.core.types import Dialect, Message, Outcome, Policy, Verdict
from ext_proc.server.routing import Live, route_request
from ext_proc.server.sessions import MemorySessions
from tests.support.builders import a_route, a_snapshot, a_target

SMALL, LARGE, OTHER = a_target("openai/small"), a_target("openai/large"), a_target("openai/default")
ROUTES = (a_route(SMALL, policy="code"), a_route(LARGE, policy="law"))
SETTINGS = MemorySettings(size=2, ttl_s=60.0)
ROOMY = MemorySettings(size=100, ttl_s=60.0)


@dataclass
class FakeAsker:
    """Says what it is told to, and counts."""

    says: Verdict = field(default_factory=lambda: Verdict("code", (("code", 1.0), ("law", 0.0))))
    asked: int = 0

    async def ask(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Verdict:
        self.asked += 1
        return self.says


USER = {"role": "user", "content": "fix the tests"}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]}
RESULT = {"role": "tool", "tool_call_id": "1", "content": "2 failed"}


async def decided(live: Live, *messages: dict[str, Any], pin: str | None = "s", **fields: str) -> Outcome:
    body = json.dumps({"model": "m", "messages": messages, **fields}).encode()
    headers = RequestHeaders(path="/v1/chat/completions", session_pin=pin, request_id="r")
    request = Decide(Part.REQUEST_BODY, Dialect.CHAT_COMPLETIONS, headers, body)
    _, outcome = await route_request(live, request, CopyBounds(60.0))
    return outcome


def a_live(asker: FakeAsker) -> Live:
    return Live(a_snapshot(OTHER, ROUTES), asker, 1 << 20, sessions=MemorySessions(ROOMY, lambda: 0.0))


@pytest.mark.parametrize("pin", ["s", None])
async def test_a_tools_result_goes_where_the_users_message_went(pin: str | None) -> None:
    asker = FakeAsker()
    live = a_live(asker)
    first = await decided(live, USER, pin=pin)
    asker.says = Verdict("law", (("code", 0.0), ("law", 1.0)))
    for messages in ((USER, CALL, RESULT), (USER, CALL, RESULT, CALL, RESULT)):
        outcome = await decided(live, *messages, pin=pin)
        assert (outcome.decision.policy, outcome.decision.reason) == ("code", Reason.SESSION)
        assert (outcome.decision.target, outcome.decision.arm) == (first.decision.target, first.decision.arm)
        assert outcome.verdict is None
    assert asker.asked == 1


async def test_a_new_message_of_the_user_is_decided_anew() -> None:
    asker = FakeAsker()
    live = a_live(asker)
    await decided(live, USER)
    asker.says = Verdict("law", (("code", 0.0), ("law", 1.0)))
    again = await decided(live, USER, CALL, RESULT, {"role": "user", "content": "fix the tests"})
    assert (again.decision.policy, again.decision.reason) == ("law", Reason.POLICY)
    loop = await decided(live, USER, CALL, RESULT, USER, CALL, RESULT)
    assert (loop.decision.policy, loop.decision.reason) == ("law", Reason.SESSION)
    assert asker.asked == 2


async def test_none_of_them_stays_too() -> None:
    asker = FakeAsker(Verdict(None, (), 1.0))
    live = a_live(asker)
    await decided(live, USER)
    outcome = await decided(live, USER, CALL, RESULT)
    assert (outcome.decision.target, outcome.decision.reason) == (OTHER, Reason.SESSION)
    assert asker.asked == 1


async def test_outputs_of_tools_alone_go_where_the_named_session_went() -> None:
    asker = FakeAsker()
    live = a_live(asker)
    await decided(live, USER)
    named = await decided(live, RESULT)
    assert (named.decision.policy, named.decision.reason) == ("code", Reason.SESSION)
    nameless = await decided(live, RESULT, pin=None)
    assert (nameless.decision.target, nameless.decision.reason) == (OTHER, Reason.NO_CONVERSATION)
    other = await decided(live, RESULT, pin="another")
    assert other.decision.reason is Reason.NO_CONVERSATION
    assert asker.asked == 1


async def test_two_conversations_of_one_user_do_not_get_in_each_others_way() -> None:
    asker = FakeAsker()
    live = a_live(asker)
    other = {"role": "user", "content": "review my lease"}
    await decided(live, USER, pin=None, user="jane")
    asker.says = Verdict("law", (("code", 0.0), ("law", 1.0)))
    await decided(live, other, pin=None, user="jane")
    for message, policy in ((USER, "code"), (other, "law")):
        loop = await decided(live, message, CALL, RESULT, pin=None, user="jane")
        assert (loop.decision.policy, loop.decision.reason) == (policy, Reason.SESSION)
    assert asker.asked == 2


async def test_a_loop_that_is_not_known_or_is_anothers_is_asked_about() -> None:
    asker = FakeAsker()
    live = a_live(asker)
    assert (await decided(live, USER, CALL, RESULT)).decision.reason is Reason.POLICY
    await decided(live, USER, CALL, RESULT, pin="another")
    await decided(live, {"role": "user", "content": "something else"}, CALL, RESULT)
    assert asker.asked == 3


async def test_a_failure_is_not_kept() -> None:
    asker = FakeAsker(Verdict(failure=Reason.ROUTER_TIMEOUT))
    live = a_live(asker)
    await decided(live, USER)
    assert (await decided(live, USER, CALL, RESULT)).decision.reason is Reason.ROUTER_TIMEOUT
    assert asker.asked == 2


async def test_without_a_memory_the_router_is_asked_each_time() -> None:
    asker = FakeAsker()
    live = Live(a_snapshot(OTHER, ROUTES), asker, 1 << 20)
    for messages in ((USER,), (USER, CALL, RESULT)):
        assert (await decided(live, *messages)).decision.reason is Reason.POLICY
    assert asker.asked == 2


def test_sessions_are_kept_for_a_while_after_their_last_request_and_so_many_of_them() -> None:
    now = 0.0
    sessions = MemorySessions(SETTINGS, lambda: now)
    kept = Kept("code")
    for session in (b"a", b"b"):
        sessions.keep(session, kept)
    now = 59.0
    assert sessions.recall(b"a") == kept
    sessions.keep(b"c", kept)
    assert sessions.recall(b"b") is None
    now = 118.0
    assert sessions.recall(b"a") == kept
    now = 119.5
    assert sessions.recall(b"c") is None
