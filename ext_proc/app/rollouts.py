"""The rollouts' controller, from the first file on that has a use for one."""

from __future__ import annotations

from collections.abc import Callable

from ext_proc.core.observation import Comparison, Observation
from ext_proc.core.rollout_settings import RolloutSettings
from ext_proc.rollouts import build
from ext_proc.rollouts.controller import Controller, Weights
from ext_proc.rollouts.outside import Outside
from ext_proc.telemetry import Telemetry
from ext_proc.telemetry.rollouts import RolloutTelemetry


class Rollouts:
    """Implements `core.ports.ObservationSink` and `ComparisonSink`: it hands on what it is told.

    `apply` puts weights in force.
    """

    def __init__(self, telemetry: Telemetry, apply: Callable[[Weights], None]) -> None:
        self._telemetry = telemetry
        self._apply = apply
        self.controller: Controller | None = None

    async def begin(self, settings: RolloutSettings) -> None:
        """Start the controller, if this is the first file that needs one. It puts nothing in force yet."""
        if self.controller is not None or not build.has_something(settings):
            return
        told = RolloutTelemetry(self._telemetry.registry)

        def apply(weights: Weights) -> None:
            if self.controller is controller:
                self._apply(weights)

        store = build.open_store(settings)
        controller = Controller(settings, store, Outside(told), told, apply, build.holder())
        try:
            await controller.start()
        except BaseException:
            await controller.stop()
            raise
        self.controller = controller

    def configure(self, settings: RolloutSettings) -> Weights:
        """Take another file's rollouts: the weights that are to come into force with it."""
        if self.controller is None:
            return {}
        self.controller.configure(settings)
        return self.controller.weights()

    def observed(self, observation: Observation) -> None:
        if self.controller is not None:
            self.controller.observed(observation)

    def compared(self, comparison: Comparison) -> None:
        if self.controller is not None:
            self.controller.compared(comparison)

    async def close(self) -> None:
        if self.controller is not None:
            await self.controller.stop()
