"""`arch-ext-proc top`: what a running server decides now, in a terminal, from its admin port."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections import deque
from typing import Any

from ext_proc.cli.rollout import ADMIN_URL, EXIT_FAILED, EXIT_OK

TIMEOUT_S = 5.0
KEPT = 200
_WHERE = "name a server's admin address with --admin or ARCH_ADMIN_URL"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    url = os.environ.get("ARCH_ADMIN_URL", ADMIN_URL)
    parser.add_argument(
        "--admin", metavar="URL", default=url, help=f"the server's admin address (default: {url})"
    )
    parser.add_argument(
        "--interval", type=_interval, default=1.0, metavar="S", help="seconds between two looks (default: 1)"
    )
    parser.add_argument(
        "--once", action="store_true", help="print one look and end, as where there is no terminal"
    )
    parser.set_defaults(command=run)


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3_600:
        raise argparse.ArgumentTypeError(f"{text!r} is not from 0.1 to 3600 seconds")
    return seconds


class Watch:
    """What was last heard of a server. `problem` says why that is old, and is empty when it is not."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.overview: dict[str, Any] = {}
        self.rollouts: list[dict[str, Any]] = []
        self.rows: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self.problem = ""
        self._cursor = ""

    def look(self) -> None:
        """Ask the server. Errors: none; a server that does not answer is a problem that may pass."""
        try:
            self.overview = self._get("/overview")
            self.rollouts = self._get("/rollouts")["rollouts"]
            batch = self._get(f"/decisions?after={self._cursor}&limit={KEPT}")
            self._cursor = batch["cursor"]
            for entry in batch["entries"]:
                self._take(entry)
            self.problem = ""
        except urllib.error.HTTPError as error:
            self._fail(f"{self.url} answered {error.code}")
        except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            self._fail(f"no answer from {self.url}: {reason}")
        except (ValueError, KeyError, TypeError):
            self._fail(f"{self.url} is no admin address of this server")

    def _fail(self, problem: str) -> None:
        # Where it has answered before, the address is right.
        self.problem = problem if self.overview else f"{problem} ({_WHERE})"

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=TIMEOUT_S) as answer:
            return json.loads(answer.read())

    def _take(self, entry: dict[str, Any]) -> None:
        if entry["kind"] == "decision":
            self.rows.appendleft(entry)
            return
        for row in self.rows:
            if row["request_id"] == entry["request_id"]:
                row["answer"] = entry
                return


def run(arguments: argparse.Namespace) -> int:
    """Look once, or until Ctrl-C; the exit status."""
    # rich takes some 60 ms to import, which no other command needs.
    from rich.console import Console  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415

    from ext_proc.cli.top_view import shown  # noqa: PLC0415

    console = Console()
    watch = Watch(arguments.admin)
    watch.look()
    if arguments.once or not console.is_terminal:
        if watch.problem:
            print(f"arch-ext-proc top: {watch.problem}", file=sys.stderr)
            return EXIT_FAILED
        console.print(shown(watch, console.width, None))
        return EXIT_OK
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(shown(watch, console.width, console.height), refresh=True)
                time.sleep(arguments.interval)
                watch.look()
    except KeyboardInterrupt:
        return EXIT_OK
