"""What holds for the whole suite. Hypothesis looks shortly, so that people run it while they think."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.support.secret_grep"]

settings.register_profile(
    "short",
    max_examples=40,
    deadline=None,  # a busy machine is no bug
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("long", parent=settings.get_profile("short"), max_examples=2_000)
settings.load_profile("short")
