"""No secret in anything that is shown: problems, tracebacks, representations."""

from __future__ import annotations

import traceback

import pytest

from ext_proc.config.load import load_text
from ext_proc.core.errors import ConfigError

HUSH = "hush-hush-4711"
LEAKS = [
    f"model_providers: [{{model: openai/a, default: true, access_key: {HUSH}}}]\n"
    + f"affinity: {{salt: {HUSH}}}\n",
    "model_providers: [{model: openai/a, default: true, access_key: $K}]\naffinity: {salt: $K}\n",
    "model_providers: [{model: openai/a, default: true, access_key: '${UNSET:-$K}'}]\n",
    f"model_providers: [{{model: openai/a, default: true, access_key: ${HUSH}}}]\n",
    f"model_providers: [{{model: openai/a, default: true, access_key: *{HUSH}}}]\n",
    f"model_providers: [{{model: openai/a, default: true, access_key: [{HUSH}]}}]\n",
    f"model_providers: [{{model: openai/a, default: true, acces_key: {HUSH}}}]\n",
    f"model_providers: [{{model: openai/a, default: true, access_key: {{a: {HUSH}}}}}]\n",
    f"model_providers: [{{model: openai/a, default: {HUSH}, access_key: '{HUSH}\\u00e9'}}]\n",
    f'model_providers: [{{model: openai/a, default: true, access_key: "{HUSH}\\n{HUSH}"}}]\n',
    f"model_providers: [{{model: openai/a, default: true, base_url: 'https://u:{HUSH}@a'}}]\n",
    "model_providers: [{model: openai/a, default: true, base_url: $K}]\n",
    f"model_providers: [{{model: openai/a, default: true, base_url: 'https://a/v1?k={HUSH}'}}]\n",
    f"model_providers: {HUSH}\naffinity: {HUSH}\n",
    f"affinity: {{salt: [{HUSH}]}}\nserver: {{port: {HUSH}}}\n",
    "server: {port: $K}\nadmin: {port: '${K}1'}\n",
    f"server: {{token: {HUSH}-of-some-length}}\n",
    "server: {token: $K-of-some-length}\n",
    "server: {token: $K}\n",
    f"server: {{tls: {{certificate: [{HUSH}], key: {{a: {HUSH}}}}}}}\n",
    f"affinity: {{salt: 'x {HUSH}\n",
    f"affinity: {{salt: {HUSH}: x\n",
]


@pytest.mark.parametrize("text", LEAKS)
def test_no_secret_is_ever_shown(text: str) -> None:
    shown: str
    try:
        result = load_text(text, "f", {"K": HUSH}, lambda: b"")
        shown = repr(result) + str(result) + result.configuration.snapshot.revision
    except ConfigError as error:
        shown = "".join(traceback.format_exception(error)) + repr(error.problems)
        chain: BaseException | None = error
        while chain is not None:
            shown += repr(chain)
            chain = chain.__cause__ or chain.__context__
    assert HUSH not in shown
    assert "4711" not in shown
