"""What replicas tell each other through the store, and what a store that holds something else is told."""

from __future__ import annotations

import json

import pytest

from ext_proc.core.rollout_json import StateError
from ext_proc.core.rollout_plan import MetricKind
from ext_proc.core.rollout_types import Counts, WindowCounts
from ext_proc.core.window import GROUPS
from ext_proc.rollouts import messages
from ext_proc.rollouts.messages import Message

WINDOW = WindowCounts(
    epoch=2,
    requests=3,
    counts={MetricKind.COST: Counts(n_canary=(9.0,) * GROUPS, bad_canary=(0.25,) * GROUPS)},
    histograms={"cost/canary": {-40: 3}},
)


def test_a_message_comes_back_as_it_was() -> None:
    message = Message("coding", run=1, exposed=3, window=WINDOW)
    assert messages.read(messages.write(message)) == message


@pytest.mark.parametrize(
    ("counts", "complaint"),
    [
        ([1.0], f"message.window.counts.cost.n_canary: expected {GROUPS} numbers or none, found 1"),
        ([-1.0] * GROUPS, "message.window.counts.cost.n_canary: a count is negative"),
    ],
)
def test_a_window_that_could_not_be_added_up_is_named(counts: list[float], complaint: str) -> None:
    plain = json.loads(messages.write(Message("coding", window=WINDOW)))
    plain["window"]["counts"]["cost"]["n_canary"] = counts
    with pytest.raises(StateError) as raised:
        messages.read(json.dumps(plain))
    assert str(raised.value) == complaint


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, '{"policy": 1}', '{"policy": "p", "later": 1}'])
def test_what_is_no_message_is_a_clear_error(text: str) -> None:
    with pytest.raises(StateError, match="message"):
        messages.read(text)
