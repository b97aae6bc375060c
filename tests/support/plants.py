"""Keys, cookies and texts that the suite's clients and configurations send, and that no output may hold."""

from __future__ import annotations

PROVIDER_KEYS = {
    "OPENAI_KEY": "sk-the-key-of-openai",
    "CODER_KEY": "sk-the-key-of-coder",
    "NEXT_KEY": "sk-the-key-of-next",
    "ANTHROPIC_KEY": "sk-the-key-of-anthropic",
}
"""What the configurations under e2e/configs name, for the server and for Envoy."""

CLIENT_KEY = "sk-the-key-of-the-client"
COOKIE = "the-cookie-of-the-client"

CODING = "write a function in code, a script or a query from this description"
TRAVELLING = "plan a trip: find and book flights, hotels and trains, and things to see"
"""Near enough to the policies of the configurations for any router."""

TEXTS = frozenset({CODING, TRAVELLING})
NAMES = {
    **{key: f"the value of {name}" for name, key in PROVIDER_KEYS.items()},
    CLIENT_KEY: "the client's key",
    COOKIE: "the client's cookie",
    CODING: "a client's text about coding",
    TRAVELLING: "a client's text about travelling",
}
"""What to call each where it is found: the report shall not hold it either."""
ALL = tuple(NAMES)
