"""A client's path to the one that a provider serves it at."""

from __future__ import annotations

import re

from ext_proc.core.headers import LLM_PATH

ENDPOINT_OF_PATH = LLM_PATH.replace("/(?:", "/(")
"""`LLM_PATH` with the endpoint (what follows `/v1/`) as its one group: RE2 and Python read it alike."""

_endpoint_of = re.compile(ENDPOINT_OF_PATH).fullmatch


def upstream_path(path: str, path_prefix: str | None) -> str:
    """The path to ask a provider for: its own prefix in the place of everything up to `/v1`, query kept.

    Shapes: `path` as the client sent it. A path that is no LLM call stays as it is, and so does every
    path when `path_prefix` is None. The compiled `regex_rewrite` says the same to Envoy, for the
    requests that no server sees.
    """
    if path_prefix is None:
        return path
    bare, mark, query = path.partition("?")
    found = _endpoint_of(bare)
    return f"{path_prefix}/{found[1]}{mark}{query}" if found else path
