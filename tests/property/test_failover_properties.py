"""Every chain that a decision can name has a cluster in Envoy's configuration."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ext_proc.core.failover import capable, chain_of, chains_of
from ext_proc.core.types import Arm, Dialect, Needs, Policy, Route, Supports, Target

SUPPORTS = st.builds(
    Supports,
    dialects=st.none() | st.frozensets(st.sampled_from(Dialect), min_size=1),
    images=st.booleans(),
    tools=st.booleans(),
    context_tokens=st.none() | st.integers(1, 50),
)
NEEDED = st.builds(Needs, st.sampled_from(Dialect), st.booleans(), st.booleans(), st.integers(0, 60))


@given(st.lists(SUPPORTS, min_size=1, max_size=4), st.integers(1, 2), NEEDED)
def test_every_chain_that_a_call_can_need_is_rendered(
    supports: list[Supports], arm_count: int, needs: Needs
) -> None:
    targets = [Target(f"p/{index}", str(index), "p", supports=each) for index, each in enumerate(supports)]
    arms = tuple(Arm(f"arm-{index}", target, 0) for index, target in enumerate(targets[:arm_count]))
    route = Route(Policy("p", "d"), arms, fallbacks=tuple(targets[arm_count:]))
    rendered = chains_of([route])
    for each in arms:
        chain = chain_of(capable(each, route.fallbacks, needs), route.retry)
        assert chain is None or rendered[chain.cluster] == chain
