"""What several workers say of the file: the worst of it first."""

from __future__ import annotations

from typing import Any

from ext_proc.workers.configs import joined_configs


def a_reload(outcome: str = "ok", **changes: Any) -> dict[str, Any]:
    nothing: dict[str, Any] = {"problems": [], "warnings": [], "waits_for_restart": [], "waits_for_envoy": []}
    return {"at": 2.0, "outcome": outcome, **nothing, **changes}


def a_config(revision: str = "r1", last: Any = None, lacks: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "file": "f.yaml",
        "revision": revision,
        "in_force_since": 1.0,
        "last_reload": last,
        "envoy_lacks": list(lacks),
        "configuration": {"of": revision},
    }


def test_workers_that_agree_are_as_one() -> None:
    found = joined_configs([(0, a_config(lacks=("b",))), (1, a_config(lacks=("a", "b")))])
    assert found["revisions"] == ["r1"]
    assert (found["envoy_lacks"], found["configuration"]) == (["a", "b"], {"of": "r1"})
    assert [worker["worker"] for worker in found["workers"]] == [0, 1]


def test_one_that_refused_the_file_is_what_is_seen() -> None:
    refused = a_reload("refused", problems=["f.yaml:1:1: no"])
    waits = a_reload(waits_for_restart=["server.port"])
    parts = [
        (0, a_config("r2", a_reload())),
        (1, a_config("r2", waits)),
        (2, a_config("r1", refused)),
        (3, a_config("r2")),
        (4, a_config("r1", a_reload("failed"))),
    ]
    found = joined_configs(parts)
    assert (found["revision"], found["last_reload"], found["revisions"]) == ("r1", refused, ["r2", "r1"])
    assert [worker["worker"] for worker in found["workers"]] == [2, 4, 1, 0, 3]
    assert found["workers"][0] == {
        "worker": 2,
        "revision": "r1",
        "in_force_since": 1.0,
        "last_reload": refused,
    }
