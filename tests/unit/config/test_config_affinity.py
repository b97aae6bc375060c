"""What the file says of who gets which arm."""

from __future__ import annotations

from ext_proc.config.load import load_text
from ext_proc.core.types import Route, Secret, Snapshot, Sticky
from tests.unit.config.test_config_provider_problems import problems_of

PROVIDERS = "model_providers: [{model: openai/a, default: true}, {model: groq/b}]\n"
SALT = "salt: 0123456789abcdef"
TARGETS = "targets: [{model: a, weight: 1}, {model: b, weight: 0}]"


def snapshot_of(affinity: str, *policies: str) -> Snapshot:
    listed = "".join(
        f"  - {{name: p{number}, description: d, {TARGETS}{policy}}}\n"
        for number, policy in enumerate(policies)
    )
    text = f"{PROVIDERS}affinity: {{{SALT}{affinity}}}\nrouting_preferences:\n{listed}"
    return load_text(text, "f", {"KEY": " 0123456789abcdef\n"}, lambda: b"").configuration.snapshot


def routes_of(affinity: str, *policies: str) -> list[Route]:
    return list(snapshot_of(affinity, *policies).routes.values())


def test_stickiness_is_the_files_unless_a_policy_has_its_own() -> None:
    assert [route.sticky for route in routes_of("", "", ", sticky: user")] == [Sticky.SESSION, Sticky.USER]
    own = routes_of(", sticky: request", "", ", sticky: session")
    assert [route.sticky for route in own] == [Sticky.REQUEST, Sticky.SESSION]


def test_lists_of_ids_are_the_policys() -> None:
    (listed, plain) = routes_of("", ", canary: {always: [a, b], never: [c]}", "")
    assert (listed.always, listed.never) == (frozenset("ab"), frozenset("c"))
    assert (plain.always, plain.never) == (frozenset(), frozenset())


def test_the_testers_key_comes_from_a_variable_and_does_not_show_itself() -> None:
    snapshot = snapshot_of(", tester_key: $KEY", "")
    assert snapshot.tester_key == Secret("0123456789abcdef")
    assert "0123456789abcdef" not in repr(snapshot.tester_key)
    assert snapshot_of("", "").tester_key is None


def test_a_testers_key_that_could_be_guessed_is_a_problem() -> None:
    assert problems_of(f"{PROVIDERS}affinity: {{{SALT}, tester_key: short}}\n", {}) == [
        '2:48: "tester_key" must have at least 16 printable ASCII characters'
        " — write e.g. the output of: openssl rand -hex 32"
    ]


def test_stickiness_and_lists_change_the_revision() -> None:
    variants = ["", ", sticky: user", ", canary: {always: [a]}", ", canary: {never: [a]}", ", split: envoy"]
    assert len({snapshot_of("", variant).revision for variant in variants}) == len(variants)
