"""`arch-ext-proc rollout`: a running server's rollouts, over its admin API."""

from __future__ import annotations

import argparse
import getpass
import http.client
import json
import os
import socket
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ext_proc.core.rollout_types import Verb

EXIT_OK, EXIT_FAILED, EXIT_BAD_ARGUMENT = 0, 1, 2

ADMIN_URL = "http://127.0.0.1:9902"
TOKEN_VARIABLE = "ARCH_ADMIN_TOKEN"
TIMEOUT_S = 15.0
HISTORY = 100

_SUMMARIES: Mapping[Verb, str] = {
    Verb.START: "begin at the first step, also after an abort or a promotion",
    Verb.PAUSE: "stay at the present weight",
    Verb.RESUME: "go on from a pause",
    Verb.PROMOTE: "leave the present step, or give the canary everything with --full",
    Verb.ABORT: "give the canary nothing, until it is started again",
}


class Failed(Exception):
    """The server did not do it; the text says why."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything under `rollout`."""
    under = parser.add_subparsers(required=True, metavar="WHAT")
    _add(under, "list", "every rollout in a line", _list, has_policy=False)
    _add(under, "show", "one rollout: what is declared, where it is, on what evidence", _show)
    for verb, text in _SUMMARIES.items():
        added = _add(under, verb.value, text, _command)
        added.set_defaults(verb=verb.value)
        if verb is Verb.PROMOTE:
            added.add_argument("--full", action="store_true", help="whatever the step, give it everything")
    history = _add(under, "history", "the transitions of a rollout, with their evidence", _history)
    history.add_argument(
        "--limit", type=int, default=HISTORY, metavar="N", help=f"the last N (default: {HISTORY})"
    )


def _add(
    under: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    run: Callable[[argparse.Namespace], str],
    *,
    has_policy: bool = True,
) -> argparse.ArgumentParser:
    parser = under.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    if has_policy:
        parser.add_argument("policy", metavar="POLICY")
    parser.add_argument("--json", action="store_true", help="print JSON")
    url = os.environ.get("ARCH_ADMIN_URL", ADMIN_URL)
    parser.add_argument(
        "--admin", metavar="URL", default=url, help=f"the server's admin address (default: {url})"
    )
    parser.add_argument(
        "--token-env",
        metavar="VAR",
        default=TOKEN_VARIABLE,
        help=f"the variable that holds admin.token (default: {TOKEN_VARIABLE})",
    )
    parser.set_defaults(command=_run, run=run)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    try:
        print(arguments.run(arguments))
    except Failed as error:
        print(f"arch-ext-proc rollout: {error}", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_OK


def _list(arguments: argparse.Namespace) -> str:
    found = _ask(arguments, "/rollouts")
    if arguments.json:
        return json.dumps(found, indent=2)
    if not found["rollouts"]:
        return "no rollouts are declared"
    rows = [
        (
            one["policy"],
            one["declared"]["target"],
            one["current"]["phase"],
            _step(one),
            f"{one['current']['weight']:g} %",
            str(one["exposed"]),
            one["current"]["text"],
        )
        for one in found["rollouts"]
    ]
    table = _table(("POLICY", "CANARY", "PHASE", "STEP", "WEIGHT", "EXPOSED", "WHY"), rows)
    return "\n".join([table, *_warnings(found["replica"])])


def _show(arguments: argparse.Namespace) -> str:
    found = _ask(arguments, f"/rollouts/{_quoted(arguments.policy)}")
    return json.dumps(found, indent=2) if arguments.json else as_text(found)


def _history(arguments: argparse.Namespace) -> str:
    found = _ask(arguments, f"/rollouts/{_quoted(arguments.policy)}/history?limit={arguments.limit}")
    events = found["events"]
    if arguments.json:
        return "\n".join(json.dumps(event) for event in events)
    if not events:
        return "nothing has happened yet"
    rows = [
        (
            _time(event["at"]),
            str(event["run"]),
            event["cause"],
            f"{event['before_per_10k'] / 100:g} → {event['after_per_10k'] / 100:g} %",
            event["to_phase"],
            str(event["exposed"]),
            event["text"] + (f" (by {event['by']})" if event["by"] else ""),
        )
        for event in events
    ]
    return _table(("TIME", "RUN", "CAUSE", "WEIGHT", "PHASE", "EXPOSED", "WHAT"), rows)


def _command(arguments: argparse.Namespace) -> str:
    body = {"by": _who(), "full": getattr(arguments, "full", False)}
    found = _ask(arguments, f"/rollouts/{_quoted(arguments.policy)}/{arguments.verb}", body)
    if arguments.json:
        return json.dumps(found, indent=2)
    current = found["current"]
    match found["result"]:
        case "done":
            return f"{found['policy']}: {current['phase']} at {current['weight']:g} %: {current['text']}"
        case "sent":
            return f"{found['policy']}: told to the replica that drives the rollouts"
        case _:
            store = found["replica"]["store"]
            return f"{found['policy']}: noted, and will be stored when the store is back (it is: {store})"


def as_text(found: Mapping[str, Any]) -> str:
    """One rollout for people."""
    declared, current = found["declared"], found["current"]
    share = "" if found["share_here"] is None else f" ({found['share_here']:g} % of the answers seen here)"
    steps = [
        ("▸ " if at == current["step"] and current["phase"] in ("progressing", "paused") else "") + step
        for at, step in enumerate(declared["steps"])
    ]
    lines = [
        f"{found['policy']}: {declared['baseline']} → {declared['target']}",
        f"  phase      {current['phase']} since {_time(current['changed_at'])} (run {current['run']})",
        f"  why        {current['text']}",
        f"  weight     {current['weight']:g} %{share}",
        f"  steps      {', '.join(steps)}",
    ]
    if current["waits_for"]:
        lines.append(f"  waits for  {'; '.join(current['waits_for'])}")
    lines.append(f"  exposed    {found['exposed']} answers of the canary in this run")
    lines += [
        f"  check      {name}: {'passed' if one['passed'] else 'not passed'}, {one['failures']} failures"
        for name, one in found["checks"].items()
    ]
    if found["evidence"]:
        lines += ["", _evidence_table(found["evidence"])]
    if found["unreadable"]:
        lines.append(f"  the stored state cannot be read: {found['unreadable']}")
    return "\n".join([*lines, *_warnings(found["replica"])])


def _evidence_table(evidence: Sequence[Mapping[str, Any]]) -> str:
    """WORSE and GOOD: how far each test is from deciding."""
    rows = [
        (
            one["metric"],
            one["outcome"],
            _value(one["baseline"]),
            _value(one["canary"]),
            f"{one['n_baseline']}/{one['n_canary']}",
            f"{max(0.0, min(1.0, one['worse'])):.0%}",
            f"{max(0.0, min(1.0, one['good'])):.0%}",
        )
        for one in evidence
    ]
    return _table(("METRIC", "OUTCOME", "BASELINE", "CANARY", "ANSWERS", "WORSE", "GOOD"), rows)


def _step(found: Mapping[str, Any]) -> str:
    steps = len(found["declared"]["steps"])
    return f"{min(found['current']['step'] + 1, steps)}/{steps}"


def _warnings(replica: Mapping[str, Any] | None) -> list[str]:
    if replica is None or replica["store"] == "ok":
        return []
    return ["", f"the store fails ({replica['store']}): weights stay or go down until it is back"]


def _ask(arguments: argparse.Namespace, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """GET, or POST with a body. Errors: Failed."""
    headers = {"content-type": "application/json"}
    if token := os.environ.get(arguments.token_env):
        headers["authorization"] = f"Bearer {token}"
    url = arguments.admin.rstrip("/") + path
    data = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(url, data, headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise Failed(_reason_of(error)) from None
    except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise Failed(f"no answer from {arguments.admin}: {reason}") from None
    except ValueError:
        raise Failed(f"{arguments.admin} is no admin address of this server") from None


def _reason_of(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"])
    except (ValueError, KeyError, TypeError, OSError):
        return f"the server answered {error.code}"


def _quoted(policy: str) -> str:
    return urllib.parse.quote(policy, safe="")


def _who() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):
        return socket.gethostname()


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _value(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)
    )
    return "\n".join(line.rstrip() for line in lines)
