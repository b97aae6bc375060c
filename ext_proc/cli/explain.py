"""What would be decided for one conversation, and why: the server's own path, without Envoy."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ext_proc import app
from ext_proc.core.copying import CopyBounds
from ext_proc.core.errors import Reason
from ext_proc.core.exchange import Decide, Part, RequestHeaders
from ext_proc.core.settings import Configuration
from ext_proc.core.split import laid_out
from ext_proc.core.types import Dialect, Outcome, Route, Snapshot, Target
from ext_proc.server.routing import route_request

BAR_WIDTH = 24
_NOT_SURE = (Reason.DOMAIN.value, Reason.UNSURE.value)


class BadInput(Exception):
    """The conversation given on the command line cannot be read."""


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
    """Decide for one request body. The result is what `--json` prints."""
    live, asker = await app.build_live(configuration)
    request = Decide(
        Part.REQUEST_BODY, dialect, RequestHeaders(path="/v1/chat/completions", session_pin=session), body
    )
    try:
        _, outcome = await route_request(live, request, CopyBounds())
    finally:
        await asker.close()
    return _described(outcome, live.snapshot)


def _described(outcome: Outcome, snapshot: Snapshot) -> dict[str, Any]:
    decision, verdict = outcome.decision, outcome.verdict
    route = snapshot.routes.get(decision.policy) if decision.policy is not None else None
    return {
        "reason": decision.reason.value,
        "policy": decision.policy,
        "target": _target(decision.target),
        "arm": decision.arm,
        "bucket": decision.bucket,
        "scores": dict(verdict.scores) if verdict else {},
        "none": verdict.none if verdict else None,
        "said": verdict.policy if verdict else None,
        "needed": {"threshold": snapshot.confidence.threshold, "margin": snapshot.confidence.margin},
        "split": _split(route, decision.arm) if route else [],
        "shadow": decision.shadow.target.name if decision.shadow else None,
        "shadows": [
            {"model": shadow.target.name, "percent": shadow.percent_per_10k / 100}
            for shadow in (route.shadows if route else ())
        ],
        "fallbacks": [target.name for target in decision.chain.targets[1:]] if decision.chain else [],
        "timings_ms": {
            "router": None if outcome.router_s is None else round(outcome.router_s * 1000, 3),
            "total": round(outcome.total_s * 1000, 3),
        },
        "revision": snapshot.revision,
    }


def _target(target: Target) -> dict[str, Any]:
    return {
        "name": target.name,
        "model": target.model,
        "cluster": target.cluster,
        "authority": target.authority,
        "path_prefix": target.path_prefix,
    }


def _split(route: Route, chosen: str | None) -> list[dict[str, Any]]:
    rows, start = [], 0
    for arm in laid_out(route.arms):
        end = start + arm.weight_per_10k
        rows.append(
            {
                "arm": arm.name,
                "model": arm.target.name,
                "percent": arm.weight_per_10k / 100,
                "buckets": [start, end],
                "chosen": arm.name == chosen,
            }
        )
        start = end
    return rows


def as_text(explanation: dict[str, Any]) -> str:
    """The explanation for a person's eyes."""
    target = explanation["target"]
    lines = [
        f"policy   {explanation['policy'] or '-'}  ({explanation['reason']})",
        f"target   {target['name']}  (cluster {target['cluster']}, model {target['model']})",
    ]
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
    timings = explanation["timings_ms"]
    router = "not asked" if timings["router"] is None else f"{timings['router']:.2f} ms"
    lines.append(f"time     router {router}, in all {timings['total']:.2f} ms")
    return "\n".join(lines)
