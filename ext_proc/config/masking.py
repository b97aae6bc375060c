"""A file's data as it may be shown: without its secrets, with the variables and files that hold them."""

from __future__ import annotations

import re
from typing import Any

SECRET_KEYS = frozenset({"access_key", "salt", "store", "tester_key", "token", "url"})
"""What may be or hold a secret, wherever it stands. A test holds this to the schema."""

MASK = "***"

_HOOKS = "hooks"
_URLS = frozenset({_HOOKS, "webhook"})
"""Texts that stand here are URLs, which may hold a key in their path."""

_VARIABLE = re.compile(r"\$([A-Za-z_]\w*|\{[A-Za-z_]\w*\})", re.ASCII)
_WITH_DEFAULT = re.compile(r"(\$\{[A-Za-z_]\w*:-)[^}$]*\}", re.ASCII)


def masked(data: dict[str, Any]) -> dict[str, Any]:
    """A copy of a file's data with every secret masked."""
    return {key: _masked(key, value, key in SECRET_KEYS or key in _URLS) for key, value in data.items()}


def _masked(key: str, value: Any, is_secret: bool) -> Any:
    if isinstance(value, dict):
        # Of a secret's mapping there is only `file`, which is none. Under `hooks` are lists of URLs.
        inherited = is_secret and key == _HOOKS
        return {
            name: _masked(name, inner, inherited or name in SECRET_KEYS or name in _URLS)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [_masked(key, inner, is_secret) for inner in value]
    if not is_secret or not isinstance(value, str) or (key == "store" and "://" not in value):
        return value
    if _VARIABLE.fullmatch(value):
        return value
    return _WITH_DEFAULT.sub(rf"\1{MASK}}}", value) if _WITH_DEFAULT.fullmatch(value) else MASK
