"""From the `routing` section to the router it names."""

from __future__ import annotations

from ext_proc.core.errors import Reason, RouterError
from ext_proc.core.ports import Router
from ext_proc.core.settings import RouterSettings
from ext_proc.router.embedded import EmbeddedRouter


def build_router(settings: RouterSettings) -> Router:
    """Construct the router. It loads in the background: `prepare` waits for it.

    Errors: RouterError when the type is unknown or the weights are not there.
    """
    match settings.type:
        case "embedded":
            return EmbeddedRouter(threshold=settings.threshold)
        case unknown:
            raise RouterError(Reason.ROUTER_ERROR, f"there is no router of type {unknown!r}")
