"""The page's own files, and what a browser may do with whatever this port serves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files

from aiohttp import web

MODULES = (
    "configuration",
    "decisions",
    "elements",
    "page",
    "policies",
    "rollouts",
    "router",
    "server",
    "shadows",
    "trial",
)
"""The page's script, a module for each panel; `page.js` is the one that the page names."""

FILES = {
    "/": ("index.html", "text/html"),
    "/page/page.css": ("page.css", "text/css"),
    **{f"/page/{name}.js": (f"{name}.js", "text/javascript") for name in MODULES},
    "/page/icon.svg": ("icon.svg", "image/svg+xml"),
}
HEADERS = {
    # Only this origin's own files, no text that becomes code or markup, and no page around this one.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def routes() -> list[web.RouteDef]:
    """The files, read once."""
    return [web.get(path, _served(*file)) for path, file in FILES.items()]


async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """A signal handler for every response; what an endpoint says itself stays."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("cache-control", "no-store")


def _served(name: str, kind: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    content = (files("ext_proc.admin") / "page" / name).read_bytes()

    async def serve(_: web.Request) -> web.Response:
        # A newer version's page asks for a newer version's endpoints.
        return web.Response(
            body=content, content_type=kind, charset="utf-8", headers={"cache-control": "no-cache"}
        )

    return serve
