"""Taking out of a text what identifies or opens something, by its form. Pure.

What has a form is found: addresses of mail, keys, numbers. Names of people, and what a message tells in
prose, have none and stay. docs/evaluation.md says so to whoever records.
"""

from __future__ import annotations

import re

MAX_CHARS = 4_000
"""Of one text: a router reads less. A longer one keeps its head and its tail."""
_HEAD_CHARS = 2_500
_CUT = " … "

_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "<private key>",
        re.compile(r"-----BEGIN [A-Z ]{0,30}KEY-----[\s\S]{0,8000}?(?:-----END [A-Z ]{0,30}KEY-----|\Z)"),
    ),
    ("<email>", re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}")),
    ("<url>", re.compile(r"\b[a-zA-Z][a-zA-Z+.-]{1,15}://[^\s<>\"')\]]{1,2000}")),
    # What stands after these words, as in "password: x", "api_key=x" and "Authorization: Bearer x".
    (
        r"\1<secret>",
        re.compile(
            r"((?:pass(?:word|wd|phrase)?|secret|token|api[_-]?key|authorization|bearer)\b"
            r"[\"']?\s{0,3}(?:[:=]|\bis\b)\s{0,3}[\"']?(?:bearer\s{1,3})?)(?![\s\"'<])[^\s\"',;]{1,500}",
            re.IGNORECASE,
        ),
    ),
    # Long runs of letters, digits and their like with at least two digits: keys, tokens, hashes, ids.
    (
        "<secret>",
        re.compile(r"(?<![\w-])(?=[\w-]{0,400}\d[\w-]{0,400}\d)[\w-]{24,400}(?:\.[\w-]{10,400}){0,2}"),
    ),
    ("<iban>", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")),
    # Six digits or more, as telephone, card, account and order numbers are grouped.
    ("<number>", re.compile(r"(?<![\w.])\+?\(?\d(?:[ ()./-]{0,2}\d){5,30}(?!\w)")),
)


def shorten(text: str) -> str:
    """The text, or its head and tail with `MAX_CHARS` together."""
    if len(text) <= MAX_CHARS:
        return text
    return f"{text[:_HEAD_CHARS]}{_CUT}{text[_HEAD_CHARS + len(_CUT) - MAX_CHARS :]}"


def redact(text: str) -> str:
    """The text, shortened, with placeholders. Errors: none."""
    text = shorten(text)
    for placeholder, pattern in _PATTERNS:
        text = pattern.sub(placeholder, text)
    return text
