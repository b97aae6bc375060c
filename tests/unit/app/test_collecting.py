"""The collector leaves alone what was there when the server began."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from ext_proc.app.collecting import keep_what_is_there


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_what_is_there_is_no_longer_looked_at() -> None:
    there = [[] for _ in range(1000)]
    keep_what_is_there()
    looked_at = {id(each) for each in gc.get_objects()}
    assert not any(id(each) in looked_at for each in there)


def test_what_comes_later_is_collected() -> None:
    keep_what_is_there()
    ring: list[object] = []
    ring.append(ring)
    del ring
    assert gc.collect() >= 1
