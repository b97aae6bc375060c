"""Reading the header that names a request's trace."""

from __future__ import annotations

import pytest

from ext_proc.core.traceparent import Parent, parse_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = Parent(int(TRACE, 16), int(SPAN, 16), 1)


@pytest.mark.parametrize(
    "header", [f"00-{TRACE}-{SPAN}-01", f"01-{TRACE}-{SPAN}-01", f"01-{TRACE}-{SPAN}-01-x"]
)
def test_it_names_a_span(header: str) -> None:
    assert parse_traceparent(header) == PARENT


@pytest.mark.parametrize(
    "header",
    [
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-x",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
    ],
)
def test_anything_else_names_none(header: str) -> None:
    assert parse_traceparent(header) is None
