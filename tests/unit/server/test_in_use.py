"""When what was replaced is let go."""

from __future__ import annotations

from ext_proc.server.in_use import InUse


def test_the_last_stream_lets_go_of_what_was_replaced() -> None:
    told: list[str] = []
    use = InUse()
    use.begin()
    use.begin()
    use.end()
    use.replaced(lambda: told.append("freed"))
    assert told == []
    use.end()
    assert told == ["freed"]


def test_what_no_stream_has_is_let_go_at_once_and_only_once() -> None:
    told: list[str] = []
    use = InUse()
    use.replaced(lambda: told.append("freed"))
    use.begin()
    use.end()
    assert told == ["freed"]


def test_what_is_in_force_is_kept() -> None:
    use = InUse()
    use.begin()
    use.end()
    assert use.streams == 0
