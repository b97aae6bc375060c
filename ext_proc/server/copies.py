"""The shadow role: a mirrored request made fit for the target that it shadows.

Envoy mirrors the request as the primary's provider gets it: that provider's path, model and key. The
copy needs its own of each. A copy that cannot be rewritten is dropped, so that no provider ever sees
another one's key.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace

from ext_proc.core import encodings, headers, parse, rewrite
from ext_proc.core.errors import Reason
from ext_proc.core.exchange import Decide
from ext_proc.core.paths import upstream_path
from ext_proc.core.rewrite import Mutation
from ext_proc.core.types import Dialect, Target

_ENDPOINT = re.compile(headers.ENDPOINT)


def classify_copy(_method: str, _path: str) -> Dialect:
    """Every mirrored request's body is wanted: what turns out to be no LLM call is dropped, not passed.

    The path says which dialect it is only when the copy is rewritten, because it is the primary's.
    """
    return Dialect.CHAT_COMPLETIONS


async def rewrite_copy(request: Decide, target: Target, limit_bytes: int) -> Mutation | None:
    """What must change in a copy; None when it cannot be made to fit."""
    endpoint = _ENDPOINT.search(request.headers.path.partition("?")[0])
    body = await json_of(request, limit_bytes)
    if endpoint is None or body is None:
        return None
    path = f"/v1/{endpoint[1]}"
    # The key in the copy is not the client's but the primary provider's: there is none to pass through.
    target = replace(target, passthrough_auth=False)
    mutation = rewrite.for_target(target, path)
    target_path = (":path", upstream_path(path, target.path_prefix).encode("utf-8", "surrogateescape"))
    # Nobody needs to know whose copy it is.
    removed = (*mutation.remove, *headers.DECISION)
    mutation = replace(mutation, set=(target_path, *mutation.set), remove=removed)
    was_encoded = body is not request.body
    return rewrite.with_body(mutation, rewrite.set_model(body, target.model), was_encoded=was_encoded)


async def json_of(request: Decide, limit_bytes: int) -> bytes | None:
    """The JSON object in a request's body; None when there is none, or only its head is here."""
    if request.is_head:
        return None
    body: bytes | Reason = request.body
    if encoding := request.headers.content_encoding:
        body = await asyncio.to_thread(encodings.decode, request.body, encoding, limit_bytes)
    if isinstance(body, Reason):
        return None
    return None if isinstance(parse.load_object(body), Reason) else body
