"""Small words for what protobuf says at length."""

from __future__ import annotations

from datetime import timedelta
from typing import Any as Untyped

import betterproto2
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    Pipe,
    SocketAddress,
)
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatcher, StringMatcher
from envoy_data_plane.google.protobuf import Any
from envoy_data_plane.message_pool import default_message_pool

from ext_proc.core import settings

_APPEND = HeaderValueOptionHeaderAppendAction


def pack(message: betterproto2.Message) -> Any:
    """A message as `Any`. Without the pool its `@type` would come out empty."""
    return Any.pack(message, default_message_pool)


def seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


def address(listen: settings.Address | settings.Pipe) -> Address:
    if isinstance(listen, settings.Pipe):
        return Address(pipe=Pipe(path=listen.path))
    return Address(socket_address=SocketAddress(address=listen.host, port_value=listen.port))


def overwrite(name: str, value: str) -> HeaderValueOption:
    """Set a header, whether it is there or not. A formatter that gives nothing leaves it out."""
    return HeaderValueOption(
        header=HeaderValue(key=name, value=value), append_action=_APPEND.OVERWRITE_IF_EXISTS_OR_ADD
    )


def verbatim(text: str) -> str:
    """Text that Envoy's formatters leave as it is: to them `%` begins a command."""
    return text.replace("%", "%%")


def exactly(text: str) -> StringMatcher:
    return StringMatcher(exact=text)


def regex(pattern: str) -> RegexMatcher:
    """RE2, matched against the whole text."""
    return RegexMatcher(regex=pattern)


def as_dict(message: betterproto2.Message) -> dict[str, Untyped]:
    """Protobuf's JSON form, with the names that Envoy's documentation uses.

    The library's own snake case would write `consecutive_5xx` as `consecutive_5_xx`.
    """
    return message.to_dict(casing=_as_declared)  # type: ignore[arg-type]  # any callable will do


def _as_declared(name: str) -> str:
    """A field's name, less the underscore that keeps it apart from a word of Python's."""
    return name.rstrip("_")
