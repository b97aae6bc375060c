"""What must hold between the server's ports, its workers, and what these cannot share."""

from __future__ import annotations

from ext_proc.config.document import Path, Report
from ext_proc.config.draft import Draft
from ext_proc.core.rollout_settings import MEMORY_STORE

_LAST_PORT = (1 << 16) - 1
_PORT: Path = ("server", "port")
_WORKERS: Path = ("server", "workers")


def check_servers(draft: Draft, report: Report) -> None:
    """Report ports that collide or are none, and what each of several workers would have for itself."""
    server, admin = draft.config.server, draft.config.admin
    document = draft.document
    has_ports = server.socket is None
    last = server.port + server.workers - 1
    is_same = server.address == admin.address and admin.port != 0 and server.port <= admin.port <= last
    if has_ports and is_same:
        mark = document.mark(("admin", "port") if draft.was_written(("admin", "port")) else _PORT)
        text = f'"server" and "admin" both listen on port {admin.port}'
        report.add(mark, text, "give one another port")
    if server.workers == 1:
        return
    mark = document.mark(_WORKERS)
    if has_ports and server.port == 0:
        text = 'several "workers" need a port that Envoy knows: each takes the next one'
        report.add(mark, text, "write server.port")
    elif has_ports and last > _LAST_PORT:
        report.add(mark, f"the last worker's port would be {last}", "write a lower server.port")
    if draft.config.rollouts.store == MEMORY_STORE and any(
        preference is not None and preference.rollout is not None
        for preference in draft.config.routing_preferences or []
    ):
        report.add(
            document.mark(("rollouts", "store")),
            f'rollouts need a "store" that all workers share, and {MEMORY_STORE} is each one\'s own',
            "name a file",
        )
    router = draft.config.routing.router
    if router.type == "transformers" and router.engine is None:
        text = f"each of the {server.workers} workers would hold the routing model's weights"
        hint = "write routing.router.engine and start arch-ext-proc engine"
        report.add(document.mark(("routing", "router")), text, hint, is_warning=True)
