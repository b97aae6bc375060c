"""A client's path to a provider's."""

from __future__ import annotations

import pytest

from ext_proc.core.paths import upstream_path


@pytest.mark.parametrize(
    ("path", "prefix", "expected"),
    [
        ("/v1/chat/completions", "/openai/v1", "/openai/v1/chat/completions"),
        ("/v1/chat/completions", "", "/chat/completions"),
        ("/team/a/v1/messages?beta=true", "/v1", "/v1/messages?beta=true"),
        ("/v1/messages?next=/v1/embeddings", "/x", "/x/messages?next=/v1/embeddings"),
        ("/v1/messages?", "/x", "/x/messages?"),
        ("/v1/v1/messages", "/x", "/x/messages"),
        ("/v1/chat/completions", None, "/v1/chat/completions"),
        ("/v1/models", "/x", "/v1/models"),
        ("/v1/messages/batches", "/x", "/v1/messages/batches"),
        ("/v1/messages?a=?b", "/x", "/x/messages?a=?b"),
    ],
)
def test_the_providers_prefix_takes_the_place_of_everything_up_to_v1(
    path: str, prefix: str | None, expected: str
) -> None:
    assert upstream_path(path, prefix) == expected
