"""The trace that a request belongs to, as its header says.

Source: W3C Trace Context, https://www.w3.org/TR/trace-context/#traceparent-header
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_SHAPE = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True, slots=True)
class Parent:
    """Whose child the next span is. `flags` has the bit 1 where the parent is recorded."""

    trace_id: int
    span_id: int
    flags: int


def parse_traceparent(header: str) -> Parent | None:
    """None for a header that is none, or that names no trace. Of later versions what this one has is read."""
    if not header:
        return None
    match = _SHAPE.fullmatch(header)
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None
    parent = Parent(int(trace_id, 16), int(span_id, 16), int(flags, 16))
    return parent if parent.trace_id and parent.span_id else None
