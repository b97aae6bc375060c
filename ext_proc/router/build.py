"""From the `routing` section to the router it names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ext_proc.core.errors import Reason, RouterError
from ext_proc.core.ports import Router
from ext_proc.core.settings import CausalLmSettings, MemorySettings, RouterSettings
from ext_proc.router.embedded import EmbeddedRouter
from ext_proc.router.endpoint import EndpointRouter
from ext_proc.router.engine_socket import EngineClient


def build_router(
    settings: RouterSettings, fell_back: Callable[[Reason], None] = lambda reason: None
) -> Router:
    """Construct the router. It loads in the background: `prepare` waits for it.

    `fell_back` is told why, whenever a router's fallback is asked in its place.
    Errors: RouterError when the type is unknown, or its weights or libraries are not there.
    """
    if settings.type == "embedded":
        return EmbeddedRouter(threshold=settings.threshold)
    if settings.causal_lm is not None:
        if settings.causal_lm.engine is not None:
            return EngineClient(settings.causal_lm.engine)
        return build_causal_lm(settings.causal_lm, settings.max_waiting)
    if settings.endpoint is not None:
        fallback = EmbeddedRouter() if settings.endpoint.fallback == "embedded" else None
        return EndpointRouter(settings.endpoint, settings.deadline_s, fallback, fell_back)
    raise RouterError(Reason.ROUTER_ERROR, f"there is no router of type {settings.type!r}")


def is_made_alike(one: RouterSettings, other: RouterSettings) -> bool:
    """Whether two settings make the same router: they may differ in what is done around it."""
    return _made_of(one) == _made_of(other)


def _made_of(settings: RouterSettings) -> RouterSettings:
    deadline_s = settings.deadline_s if settings.endpoint is not None else 0.0
    return replace(settings, cache=MemorySettings(size=0, ttl_s=0), deadline_s=deadline_s)


def build_causal_lm(settings: CausalLmSettings, max_queue: int) -> Router:
    """A language model in this process. Errors: RouterError without the extra that brings torch."""
    try:
        # Here, because torch takes seconds and hundreds of megabytes that no other router needs.
        from ext_proc.router.causal_lm.loading import load  # noqa: PLC0415
        from ext_proc.router.causal_lm.router import CausalLmRouter, Limits  # noqa: PLC0415
    except ModuleNotFoundError as error:
        text = f"the router transformers needs {error.name}: pip install 'arch-ext-proc[arch-router]'"
        raise RouterError(Reason.ROUTER_ERROR, text) from error
    limits = Limits(settings.max_batch, max_queue, settings.budget_tokens)
    return CausalLmRouter(
        lambda: load(settings.model, settings.device, settings.dtype), settings.prompt, limits
    )
