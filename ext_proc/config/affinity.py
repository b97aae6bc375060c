"""What the file says of who gets which arm: the salt, what is sticky, testers, and lists of ids."""

from __future__ import annotations

from collections.abc import Mapping

from ext_proc.config.document import Path, Report, shown
from ext_proc.config.draft import Draft
from ext_proc.config.environment import read_secret
from ext_proc.config.schema import Preference
from ext_proc.core.types import Arm, Secret, Sticky

MIN_TESTER_KEY_CHARS = 16

_TESTER_KEY: Path = ("affinity", "tester_key")


def read_tester_key(draft: Draft, environ: Mapping[str, str], report: Report) -> Secret | None:
    """The key of testers. A short one could be guessed, and is a problem."""
    document, written = draft.document, draft.config.affinity.tester_key
    if written is None:
        return None
    value = read_secret(written, environ, document, _TESTER_KEY, report)
    if value is None:
        return None
    key = value.text.strip()
    if len(key) < MIN_TESTER_KEY_CHARS or not (key.isascii() and key.isprintable()):
        text = f'"tester_key" must have at least {MIN_TESTER_KEY_CHARS} printable ASCII characters'
        report.add(document.mark(_TESTER_KEY), text, "write e.g. the output of: openssl rand -hex 32")
        return None
    return Secret(key)


def stickiness(draft: Draft, preference: Preference) -> Sticky:
    return Sticky(preference.sticky or draft.config.affinity.sticky)


def listed_ids(
    draft: Draft, preference: Preference, arms: tuple[Arm, ...], path: Path, report: Report
) -> tuple[frozenset[str], frozenset[str]]:
    """The ids that always and that never get the canary."""
    document, canary = draft.document, preference.canary
    always, never = (frozenset(name for name in ids or () if name) for ids in (canary.always, canary.never))
    if always and len(arms) == 1:
        mark = document.mark((*path, "canary", "always"), of_key=True)
        report.add(mark, "this policy has no canary to get always", "write a second target, or remove this")
    for index, name in enumerate(canary.never or ()):
        if name in always:
            mark = document.mark((*path, "canary", "never", index))
            report.add(mark, f'"{shown(name)}" is in "always" as well', "keep one of them")
    return always, never
