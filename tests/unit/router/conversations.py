"""Conversations with the policy that must win, for the shipped weights: what a demo or a first try sends."""

from __future__ import annotations

from ext_proc.core.types import Message, Policy

POLICIES = (
    Policy(
        "code generation",
        "write a function, script, SQL query, test or API endpoint in Python, Rust, Go or another language",
        domain="programming",
    ),
    Policy(
        "code understanding",
        "explain, review or debug a piece of code, a regex or an error message",
        domain="programming",
    ),
    Policy("legal", "contracts, leases, terms and conditions, employment and privacy law"),
    Policy("travel planning", "planning trips, booking flights, hotels and trains, things to see"),
    Policy("customer_support", "help with an order, a refund, a delivery, an invoice or an account problem"),
    Policy("creative writing", "writing stories, poems, song lyrics, slogans and other imaginative texts"),
)

_CODE = "def add(a, b):\n    return a + b"

TURNS: tuple[tuple[str | None, tuple[str, ...]], ...] = (
    ("code generation", ("Write a Python function that reverses a linked list",)),
    ("code generation", ("create a REST endpoint in Rust with actix-web",)),
    ("code generation", ("Write a Python rate limiter with the token bucket algorithm",)),
    ("code understanding", (f"Explain what this function does:\n{_CODE}",)),
    ("code understanding", ("what does this regex match? ^\\d{3}-\\d{4}$",)),
    ("legal", ("Can my landlord raise the rent in the middle of the lease?",)),
    ("legal", ("Review this employment contract and point out risky clauses",)),
    ("travel planning", ("Find me a flight from Berlin to Rome next Friday",)),
    ("travel planning", ("Plan a three day trip to Kyoto",)),
    ("customer_support", ("Where is my order? It should have arrived on Monday",)),
    ("customer_support", ("I want to return these shoes and get a refund",)),
    ("creative writing", ("Write a poem about the sea",)),
    ("creative writing", ("Tell me a bedtime story about a dragon",)),
    # The last message alone says little.
    (
        "code generation",
        ("Write a Python function that parses dates", "def parse(s): ...", "make it shorter"),
    ),
    (
        "code generation",
        ("Write a Python function that parses dates", "def parse(s): ...", "now add type hints"),
    ),
    ("creative writing", ("Write a poem about the sea", "The waves roll in ...", "make it shorter")),
    ("creative writing", ("Write a poem about the sea", "The waves ...", "now one about the mountains")),
    (
        "travel planning",
        ("Plan a three day trip to Kyoto", "Day 1: Fushimi Inari ...", "what about with kids?"),
    ),
    (
        "travel planning",
        ("Find me a flight from Berlin to Rome", "One at 8:45 for 120 euros", "is there anything cheaper?"),
    ),
    ("customer_support", ("I want a refund for my order", "What is the order number?", "48213")),
    # A new topic outweighs the old one.
    ("travel planning", ("Write a poem about the sea", "The waves ...", "Book me a hotel in Lisbon for May")),
    ("legal", ("Plan a trip to Kyoto", "Day 1: ...", "Is a verbal contract with an employer binding?")),
    # None of them.
    (None, ("What is the capital of France?",)),
    (None, ("Who won the world cup in 1998?",)),
    (None, ("How long do I boil an egg?",)),
    (None, ("What's the weather like today?",)),
    (None, ("Recommend me a workout for my back",)),
    (None, ("what's the best way to invest 1000 dollars",)),
    (None, ("hi",)),
    # Nothing more is asked.
    (None, ("Write a poem about the sea", "The waves roll in ...", "thank you, that's lovely!")),
    (None, ("Find me a flight to Rome", "It is booked. Anything else?", "No, that's all. Thanks!")),
)


def conversation(*texts: str) -> tuple[Message, ...]:
    """Turns of a user and an assistant, the user first."""
    roles = ("user", "assistant")
    return tuple(Message(roles[index % 2], text) for index, text in enumerate(texts))
