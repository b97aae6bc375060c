"""What several workers' `/config` add up to. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def joined_configs(parts: Sequence[tuple[int, Mapping[str, Any]]]) -> dict[str, Any]:
    """One answer of `GET /config` from those of all workers, by number: the worst one's, since that is what
    somebody has to know, beside how each of them fared, the worst first.
    """
    ranked = sorted(parts, key=lambda part: (_rank(part[1]), part[0]))
    _, worst = ranked[0]
    return {
        **worst,
        "envoy_lacks": sorted({name for _, part in parts for name in part["envoy_lacks"]}),
        "revisions": list(dict.fromkeys(part["revision"] for _, part in sorted(parts, key=_number))),
        "workers": [
            {
                "worker": number,
                "revision": part["revision"],
                "in_force_since": part["in_force_since"],
                "last_reload": part["last_reload"],
            }
            for number, part in ranked
        ],
    }


def _number(part: tuple[int, object]) -> int:
    return part[0]


def _rank(part: Mapping[str, Any]) -> int:
    """0 for a file that is not in force, 1 for one of which something waits."""
    last = part["last_reload"]
    if last is None:
        return 2
    if last["outcome"] != "ok":
        return 0
    return 1 if last["waits_for_restart"] or last["waits_for_envoy"] else 2
