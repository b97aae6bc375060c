"""What counts as an error of a provider."""

from __future__ import annotations

import pytest

from ext_proc.core.observation import Comparison, Observation, Role


def an_observation(status: int = 200, *, broken: bool = False, target: str = "a/one") -> Observation:
    return Observation("id", "coding", "baseline", target, Role.PRIMARY, status, 1.0, 0.0, broken=broken)


@pytest.mark.parametrize("status", [0, 429, 500, 503, 529])
def test_no_answer_a_refusal_for_load_and_a_server_error_are_errors(status: int) -> None:
    assert an_observation(status).is_error


@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 404, 422])
def test_what_the_client_caused_is_none(status: int) -> None:
    assert not an_observation(status).is_error


def test_an_answer_that_broke_off_is_an_error_whatever_its_status() -> None:
    assert an_observation(200, broken=True).is_error


def test_a_comparison_names_its_policy_and_the_shadows_target() -> None:
    comparison = Comparison(an_observation(target="a/one"), an_observation(target="b/two"), at=0.0)
    assert (comparison.policy, comparison.shadow_target) == ("coding", "b/two")
