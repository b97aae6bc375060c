"""The stack kept up: a request to copy and paste, and every decision as it is made."""

from __future__ import annotations

import json

from demo.decisions import DecisionLog
from demo.show import Show
from demo.stack import Stack

_COLUMNS = "{:<8}  {:<20} {:>5}  {:<30} {:<9} {:<22} {:>9} ms"


async def tail(show: Show, stack: Stack, log: DecisionLog) -> None:
    """Print decisions until cancelled."""
    body = {"model": "auto", "messages": [{"role": "user", "content": "write a haiku about proxies"}]}
    show.title("Running. Try:")
    show.line(f"curl -i {stack.url}/v1/chat/completions -H 'content-type: application/json' \\")
    show.line(f"  -d '{json.dumps(body)}'")
    show.line()
    show.line(f"Envoy      {stack.url}   admin {stack.envoy_admin_url}")
    show.line(f"page       {stack.admin_url}/   what is decided, in a browser")
    show.line(f"server     {stack.admin_url}/metrics   /readyz   log {stack.server.log}")
    for variable, stand_in in stack.stand_ins.items():
        show.line(f"stand-in   {stand_in.base_url}   {stand_in.name} ({variable})")
    show.title("Decisions, until Ctrl-C")
    show.line(_COLUMNS.format("time", "policy", "score", "model", "arm", "shadow", "decision"))
    async for line in log.follow():
        show.line(
            _COLUMNS.format(
                line["time"][11:19],
                line["policy"] or f"({line['reason']})",
                "–" if line["score"] is None else f"{line['score']:.2f}",
                line["model"],
                line["arm"] or "–",
                line["shadow"] or "–",
                line["total_ms"],
            ).rstrip()
        )
