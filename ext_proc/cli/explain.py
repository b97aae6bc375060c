"""What would be decided for one conversation, and why: the server's own path, without Envoy."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ext_proc import app
from ext_proc.cli.bad_input import BadInput
from ext_proc.core.errors import Reason
from ext_proc.core.settings import Configuration
from ext_proc.core.types import Dialect
from ext_proc.server.explaining import explain_live

BAR_WIDTH = 24
_NO_TEXT = "no text of a user: where a request has one, its role is user and its content text"
_NOT_SURE = (Reason.DOMAIN.value, Reason.UNSURE.value)


def request_body(message: str | None, file: str | None, model: str | None) -> tuple[bytes, Dialect]:
    """The request that a client would send.

    `file` holds a list of messages or a whole body of any dialect that has messages or an input.
    Errors: BadInput.
    """
    if message is not None:
        fields: Any = {"messages": [{"role": "user", "content": message}]}
    else:
        fields = _read(file)
    if isinstance(fields, list):
        fields = {"messages": fields}
    if not isinstance(fields, dict):
        raise BadInput("expected a JSON list of messages or a request body")
    if not {"messages", "input"} & fields.keys():
        raise BadInput('the request body has neither "messages" nor "input"')
    if model is not None:
        fields["model"] = model
    dialect = Dialect.CHAT_COMPLETIONS if "messages" in fields else Dialect.RESPONSES
    return json.dumps(fields).encode(), dialect


def _read(file: str | None) -> Any:
    if file is None:
        raise BadInput('give a conversation: -m "text" or --messages FILE')
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        return json.loads(text)
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}") from error
    except ValueError as error:
        raise BadInput(f"{file} is no JSON in UTF-8: {error}") from error


async def explain(
    configuration: Configuration, body: bytes, dialect: Dialect, session: str | None
) -> dict[str, Any]:
    """Decide for one request body, however long the router takes. The result is what `--json` prints.

    `late` says where the request would have gone in service, if the router took longer than its deadline.
    """
    live, asker = await app.build_live(configuration)
    try:
        found = await explain_live(live, body, dialect, session)
    finally:
        await asker.close()
    router_ms, deadline_ms = found["timings_ms"]["router"], configuration.router.deadline_s * 1000
    is_late = router_ms is not None and router_ms > deadline_ms
    target = configuration.snapshot.on_failure.name
    return {**found, "late": {"deadline_ms": deadline_ms, "target": target} if is_late else None}


def as_text(explanation: dict[str, Any]) -> str:
    """The explanation for a person's eyes."""
    target = explanation["target"]
    lines = [
        f"policy   {explanation['policy'] or '-'}  ({explanation['reason']})",
        f"target   {target['name']}  (cluster {target['cluster']}, model {target['model']})",
    ]
    if explanation["reason"] == Reason.NO_CONVERSATION:
        lines.append(f"why      {_NO_TEXT}")
    if explanation["scores"]:
        lines.append("scores")
        scored = [*explanation["scores"].items(), ("(none of them)", explanation["none"])]
        width = max(len(name) for name, _ in scored)
        # A language model's answer need not be the most probable one.
        said = "(none of them)" if explanation["said"] is None else explanation["said"]
        for name, score in sorted(scored, key=lambda pair: -pair[1]):
            mark = "→" if name == said else " "
            lines.append(f"{mark} {name:<{width}}  {score:6.3f}  {'█' * round(score * BAR_WIDTH)}".rstrip())
        needed = explanation["needed"]
        if explanation["reason"] in _NOT_SURE:
            lines.append(f"needed   {needed['threshold']:.3f}, and {needed['margin']:.3f} more than the next")
    if explanation["split"]:
        lines.append(f"split    session bucket {explanation['bucket']} of 10000")
        for row in explanation["split"]:
            mark = "→" if row["chosen"] else " "
            start, end = row["buckets"]
            lines.append(
                f"{mark} {row['arm']:<9} {row['percent']:6.2f} %  {start:>5}–{end:<5}  {row['model']}"
            )
    for shadow in explanation["shadows"]:
        chosen = "this session is copied" if shadow["model"] == explanation["shadow"] else "not this session"
        lines.append(f"shadow   {shadow['model']} {shadow['percent']:g} %: {chosen}")
    if explanation["fallbacks"]:
        lines.append(f"then     {', '.join(explanation['fallbacks'])}")
    if late := explanation["late"]:
        lines.append(
            f"late     over routing.deadline ({late['deadline_ms']:g} ms): in service it would have gone to "
            f"{late['target']} ({Reason.ROUTER_TIMEOUT.value})"
        )
    timings = explanation["timings_ms"]
    router = "not asked" if timings["router"] is None else f"{timings['router']:.2f} ms"
    lines.append(f"time     router {router}, in all {timings['total']:.2f} ms")
    return "\n".join(lines)
