"""The scalar kinds of the file: names, durations, sizes, addresses, shares, header names."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable
from typing import Annotated

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from ext_proc.config.weights import exact
from ext_proc.core.headers import DECISION
from ext_proc.transport.unix import MAX_PATH_BYTES

MAX_NAME = 128
SERVER_ERRORS = "5xx"
MAX_IDENTITY = 256
MAX_DESCRIPTION = 4_000
MAX_EXAMPLE = 2_000

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
_SIZE = re.compile(r"(\d{1,9})(B|KiB|MiB|GiB)")
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?\.?")
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")
_MODE = re.compile(r"0?[0-7]{3}")
_HEADER = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,64}")

_NO_CREDENTIAL = {*DECISION, "host", "connection", "te", "transfer-encoding", "upgrade", "cookie"}


def wrong(text: str, hint: str) -> PydanticCustomError:
    """The error that a validator raises: `text` follows the key's name in the problem."""
    return PydanticCustomError("arch", "{text}", {"text": text, "hint": hint})


def text_of(value: object) -> str:
    if not isinstance(value, str):
        raise wrong(
            f"must be text, not {kind_of(value)}", "write text" if value is None else "put it in quotes"
        )
    return value


def kind_of(value: object) -> str:
    """How a message calls a value's type, the value itself left out: it may be a secret."""
    kinds: tuple[tuple[type, str], ...] = (
        (bool, "true or false"),
        (int, "a number"),
        (float, "a number"),
        (str, "text"),
        (list, "a list"),
        (dict, "a mapping"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), "nothing")


def name(value: object) -> str:
    """A name that travels in an HTTP header, so printable ASCII only.

    Envoy would pass other bytes on, but clients read header values as Latin-1, ASCII or UTF-8.
    """
    text = text_of(value)
    if not text or text != text.strip() or len(text) > MAX_NAME:
        raise wrong(
            f"must have 1 to {MAX_NAME} characters and no space at its ends",
            "shorten it" if len(text) > MAX_NAME else "write a name",
        )
    if not (text.isascii() and text.isprintable()):
        raise wrong(
            "travels in an HTTP header, so it must be plain ASCII on one line",
            "write it in ASCII; a description may use any script",
        )
    return text


def cluster(value: object) -> str:
    text = name(value)
    if " " in text:
        raise wrong("must have no spaces", "write the name that Envoy's own configuration has")
    return text


def model(value: object) -> str:
    text = name(value)
    if " " in text:
        raise wrong("must have no spaces", "write it as the provider's documentation spells it")
    prefix, slash, model_id = text.partition("/")
    if not (prefix and slash and model_id):
        raise wrong("has no provider prefix", f'write "provider/{prefix or model_id or "model"}"')
    if "*" in text:
        raise wrong("is a wildcard", "write one entry for each model")
    return text


def description(value: object) -> str:
    return _prose(
        value,
        MAX_DESCRIPTION,
        "say in a sentence what the user wants",
        "shorten it to what tells it from the others",
    )


def example(value: object) -> str:
    return _prose(value, MAX_EXAMPLE, "write a message as a user would", "keep the part that shows the task")


def _prose(value: object, most: int, hint_empty: str, hint_long: str) -> str:
    written = text_of(value)
    text = written.strip()
    if not text.isascii() and any(0xD800 <= ord(char) <= 0xDFFF for char in text):
        raise wrong("holds half a character (a surrogate)", "write the character itself")
    control = _CONTROL.search(written)
    if control is not None:
        raise wrong(f"holds the control character U+{ord(control.group()):04X}", "remove it")
    if not text or len(text) > most:
        raise wrong(f"must have 1 to {most} characters", hint_long if text else hint_empty)
    return text


def duration(least: str, most: str) -> Callable[[object], float]:
    """A validator of `150ms`, `2s`, `1m`, `1h`; gives seconds."""

    def is_possible(seconds: float) -> bool:
        return (_seconds(least) or 0) <= seconds <= (_seconds(most) or math.inf)

    def fits(text: str) -> bool:
        seconds = _seconds(text)
        return seconds is not None and is_possible(seconds)

    def parse(value: object) -> float:
        seconds = _seconds(value) if isinstance(value, str) else None
        if seconds is None:
            meant = next(filter(fits, _with_units(value)), least)
            raise wrong("is not a duration", f"write a number and its unit (ms, s, m or h), e.g. {meant}")
        if not is_possible(seconds):
            raise wrong(f"must be from {least} to {most}", f"write e.g. {least}")
        return seconds

    return parse


def _with_units(value: object) -> tuple[str, ...]:
    """What a number without its unit may stand for, seconds first."""
    if isinstance(value, str):
        return (f"{value}s", f"{value}ms")
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9
    return (f"{value}s", f"{value}ms") if is_number else ()


def _seconds(text: str) -> float | None:
    match = _DURATION.fullmatch(text)
    return None if match is None else round(float(match[1]) * _SECONDS[match[2]], 6)


def size(least: str, most: str) -> Callable[[object], int]:
    """A validator of `512KiB`, `32MiB`; gives bytes."""

    def parse(value: object) -> int:
        count = _count(value) if isinstance(value, str) else None
        if count is None:
            raise wrong("is not a size", "write a whole number and its unit (B, KiB, MiB or GiB), e.g. 32MiB")
        if not (_count(least) or 0) <= count <= (_count(most) or 0):
            raise wrong(f"must be from {least} to {most}", "write e.g. 32MiB")
        return count

    return parse


def _count(text: str) -> int | None:
    match = _SIZE.fullmatch(text)
    return None if match is None else int(match[1]) * _BYTES[match[2]]


def _number(value: object) -> float:
    """A finite number. A whole one stays an int, so that no digit of it is lost."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(f"must be a number, not {kind_of(value)}", "write e.g. 10 or 2.5")
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong("must be a finite number", "write e.g. 10 or 2.5")
    return value


def weight(value: object) -> float:
    number = _number(value)
    if not 0 <= number <= 1_000_000_000:
        raise wrong("must be from 0 to 1000000000", "write percent, e.g. 10 or 2.5")
    return float(number)


def percent(value: object) -> int:
    """A percentage with at most two decimals, as one of 10,000."""
    number = _number(value)
    if not 0 <= number <= 100:
        raise wrong("must be from 0 to 100", "write percent, e.g. 20 or 0.5")
    per_10k = exact(number) * 100
    if per_10k.denominator != 1:
        raise wrong("has more than two decimals", "0.01 is the smallest share")
    return int(per_10k)


def money(value: object) -> float:
    number = _number(value)
    if not 0 <= number <= 1_000_000_000:
        raise wrong("must be from 0 to 1000000000", "write the price of a million tokens, e.g. 2.5")
    return float(number)


def number(value: object) -> float:
    return float(_number(value))


def share(value: object) -> float:
    found = _number(value)
    if not 0 < found < 1:
        raise wrong("must be above 0 and below 1", "write a share, e.g. 0.05")
    return float(found)


def threshold(value: object) -> float:
    number = _number(value)
    if not 0 <= number <= 1:
        raise wrong("must be from 0 to 1", "write a probability, e.g. 0.3")
    return float(number)


def whole(least: int, most: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong(
                f"must be a whole number, not {kind_of(value)}", f"write a number from {least} to {most}"
            )
        if not least <= value <= most:
            raise wrong(f"must be from {least} to {most}", "write a number in that range")
        return value

    return parse


def identity(value: object) -> str:
    """A session's or a user's id, as it comes in a header or in a body."""
    text = text_of(value)
    if not text or len(text) > MAX_IDENTITY:
        raise wrong(f"must have 1 to {MAX_IDENTITY} characters", "write an id as the client sends it")
    return text


def status(value: object) -> int | str:
    """A status at which the next target is tried; `5xx` stands for all of these."""
    if value == SERVER_ERRORS:
        return SERVER_ERRORS
    if isinstance(value, bool) or not isinstance(value, int) or not 400 <= value <= 599:
        raise wrong("must be an error's status", f"write 400 to 599, or {SERVER_ERRORS}")
    return value


def host(value: object) -> str:
    """A host name or an IP address."""
    text = text_of(value)
    if not (_HOST.fullmatch(text) or is_ip(text)):
        raise wrong("is not a host name or an IP address", "write e.g. 127.0.0.1; the port has its own key")
    return text


def ip(value: object) -> str:
    """An IP address: Envoy resolves no names for what it listens on."""
    text = text_of(value)
    if not is_ip(text):
        raise wrong("is not an IP address", "write e.g. 127.0.0.1, or 0.0.0.0 for every interface")
    return text


def is_ip(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return getattr(address, "scope_id", None) is None


def file(value: object) -> str:
    """A file's path."""
    text = text_of(value)
    if not text or not text.isprintable():
        raise wrong("is no path", "write e.g. /etc/arch/tls/tls.crt")
    return text


def socket(value: object) -> str:
    """A Unix socket's path. Envoy and this server begin in different folders, so it starts at the root."""
    text = file(value)
    if not text.startswith("/"):
        raise wrong("must begin with a slash", "write e.g. /run/arch/ext-proc.sock")
    if len(text.encode("utf-8", "replace")) > MAX_PATH_BYTES:
        raise wrong(f"is longer than the {MAX_PATH_BYTES} bytes that a socket's path may have", "shorten it")
    return text


def mode(value: object) -> int:
    """A file's mode. YAML reads 0660 as 432, and 660 as itself, so only text is plain."""
    if not isinstance(value, str) or not _MODE.fullmatch(value):
        raise wrong("is no file mode", 'write it in quotes, e.g. "0660"')
    return int(value, 8)


def credential_header(value: object) -> str:
    text = text_of(value).lower()
    if not _HEADER.fullmatch(text) or text in _NO_CREDENTIAL or text.startswith("content-"):
        raise wrong(
            "is not a header that can carry a credential", "write e.g. authorization, x-api-key or api-key"
        )
    return text


def device(value: object) -> str:
    text = text_of(value)
    if not _DEVICE.fullmatch(text):
        raise wrong("is not a device", "write auto, cpu, cuda or cuda:0")
    return text


Name = Annotated[str, BeforeValidator(name)]
Device = Annotated[str, BeforeValidator(device)]
Money = Annotated[float, BeforeValidator(money)]
Model = Annotated[str, BeforeValidator(model)]
Cluster = Annotated[str, BeforeValidator(cluster)]
Description = Annotated[str, BeforeValidator(description)]
Example = Annotated[str, BeforeValidator(example)]
Weight = Annotated[float, BeforeValidator(weight)]
Percent = Annotated[int, BeforeValidator(percent)]
Number = Annotated[float, BeforeValidator(number)]
Share = Annotated[float, BeforeValidator(share)]
Threshold = Annotated[float, BeforeValidator(threshold)]
Identity = Annotated[str, BeforeValidator(identity)]
Status = Annotated[int | str, BeforeValidator(status)]
Port = Annotated[int, BeforeValidator(whole(0, 65_535))]
Host = Annotated[str, BeforeValidator(host)]
Ip = Annotated[str, BeforeValidator(ip)]
File = Annotated[str, BeforeValidator(file)]
Socket = Annotated[str, BeforeValidator(socket)]
Mode = Annotated[int, BeforeValidator(mode)]
CredentialHeader = Annotated[str, BeforeValidator(credential_header)]
Text = Annotated[str, BeforeValidator(text_of)]
