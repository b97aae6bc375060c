"""The attempt role: a request made fit for the next target of its chain.

Envoy asks only for an attempt that goes elsewhere than where the route role sent the request: the first
one is fit already. What comes here was written for another provider, with that one's path, model and key,
and maybe for another one since. A request that cannot be rewritten is refused, so that no provider ever
sees another one's key.
"""

from __future__ import annotations

import re
from dataclasses import replace

from ext_proc.core import headers, rewrite
from ext_proc.core.exchange import Decide
from ext_proc.core.paths import upstream_path
from ext_proc.core.rewrite import Mutation
from ext_proc.core.types import Target
from ext_proc.server.copies import json_of

_ENDPOINT = re.compile(headers.ENDPOINT)


async def rewrite_attempt(
    request: Decide, target: Target | None, written: frozenset[str], limit_bytes: int
) -> Mutation | None:
    """What must change for the target that Envoy names; None when the request cannot be made to fit.

    `written`: the headers, besides `AUTH_HEADERS`, that another provider's key may be in.
    """
    bare, mark, query = request.headers.path.partition("?")
    endpoint = _ENDPOINT.search(bare)
    body = await json_of(request, limit_bytes)
    if target is None or target.authority is None or endpoint is None or body is None:
        return None
    path = f"/v1/{endpoint[1]}{mark}{query}"
    # The key in the request is not the client's but another provider's: there is none to pass through.
    mutation = rewrite.for_target(replace(target, passthrough_auth=False), path)
    own = {target.credential.header} if target.credential is not None else set()
    fit = Mutation(
        set=(
            (":path", upstream_path(path, target.path_prefix).encode("utf-8", "surrogateescape")),
            (headers.MODEL, target.name.encode()),
            *(pair for pair in mutation.set if pair[0] != ":path"),
        ),
        remove=(headers.WRITTEN_FOR, *mutation.remove, *sorted(written - own)),
    )
    was_encoded = body is not request.body
    return rewrite.with_body(fit, rewrite.set_model(body, target.model), was_encoded=was_encoded)
