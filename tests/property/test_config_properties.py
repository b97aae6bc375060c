"""No file, however broken, makes `load` fail in another way than its own; weights always fill the whole."""

from __future__ import annotations

import re

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from ext_proc.config.load import load_text
from ext_proc.config.weights import normalise
from ext_proc.core.errors import ConfigError, Problem
from ext_proc.core.types import WHOLE_PER_10K
from tests.support import reference

KEYS = st.sampled_from(
    sorted(
        {
            "tracing",
            *(key for section in reference.load().sections().values() for key in section.model_fields),
        }
    )
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        [
            "openai/a",
            "a",
            "default",
            "$A",
            "${A:-1}",
            "${",
            "100ms",
            "32MiB",
            "http://a/v1",
            "embedded",
            "none",
            "::1",
        ]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=25,
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=8)
YAMLISH = st.text(
    alphabet=st.sampled_from(list("ab:-[]{}&*<!|>'\"#%@`\\$\n\t ,?~0.1é\x00\ufeff\U0001f600")), max_size=80
)


def problems_of(text: str) -> tuple[Problem, ...]:
    try:
        return load_text(text, "f", {"A": "1"}, lambda: b"").warnings
    except ConfigError as error:
        return error.problems


def outcome(text: str) -> None:
    problems = problems_of(text)
    lines = len(re.split("[\n\r\x85\u2028\u2029]", text))
    assert list(problems) == sorted(problems)
    for problem in problems:
        assert 1 <= problem.line <= lines + 1
        assert problem.column >= 1
        assert "\n" not in str(problem)


@given(YAMLISH | st.text(max_size=80))
@example("a: !!float .\n")
@example("a: !!bool x\n")
@example("a: !!null x\n")
@example("? &a {<<: *a}\n: b\n")
@example("=: 1\n")
def test_any_text_loads_or_is_reported(text: str) -> None:
    outcome(text)


@given(DOCUMENTS)
def test_any_data_loads_or_is_reported(data: dict[str, object]) -> None:
    outcome(yaml.safe_dump(data, allow_unicode=True))


@given(
    st.lists(VALUES, max_size=3),
    st.lists(VALUES, max_size=3),
    st.dictionaries(KEYS, VALUES, max_size=4),
)
def test_any_data_beside_a_sound_provider_loads_or_is_reported(
    providers: list[object], preferences: list[object], rest: dict[str, object]
) -> None:
    sound = {"model": "openai/a", "default": True}
    outcome(
        yaml.safe_dump(
            {**rest, "model_providers": [sound, *providers], "routing_preferences": preferences},
            allow_unicode=True,
        )
    )


WEIGHT = st.integers(0, 10**9).map(float) | st.floats(0, 1e9) | st.decimals(0, 100, places=2).map(float)


@given(st.lists(WEIGHT, min_size=1, max_size=32).filter(any))
@example([1.0, 1.0, 1.0])
@example([5e-324, 1e9])
def test_normalised_weights_fill_the_whole(weights: list[float]) -> None:
    shares = normalise(weights)
    assert sum(shares) == WHOLE_PER_10K
    assert len(shares) == len(weights)
    total = sum(weights)
    for weight, share in zip(weights, shares, strict=True):
        assert abs(share - weight / total * WHOLE_PER_10K) < 1 + 1e-6
        assert weight > 0 or share == 0


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([90, 10], (9000, 1000)),
        ([1], (10_000,)),
        ([0.1, 0.2, 0.7], (1000, 2000, 7000)),
        ([1, 1, 1], (3334, 3333, 3333)),
        ([2, 1], (6667, 3333)),
        ([33.33, 33.33, 33.34], (3333, 3333, 3334)),
        ([1, 0], (10_000, 0)),
        ([0.01, 99.99], (1, 9999)),
    ],
)
def test_weights_as_people_write_them(weights: list[float], expected: tuple[int, ...]) -> None:
    assert normalise(weights) == expected
