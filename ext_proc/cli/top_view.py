"""What `arch-ext-proc top` shows of a server."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ext_proc.cli.top import Watch

TREND = "▁▂▃▄▅▆▇█"
TREND_SLOTS = 24
TREND_LEAST = 6
"""In fewer slots nobody sees a trend."""
GAP = 2
"""Between two columns, in characters."""
ROWS = 20
_MAY_BE_CUT = {"POLICY", "MODEL", "REASON", "ROLLOUT", "CANARY", "WHY"}
"""Columns of words. Half a number is another number."""
_ARMS = {"baseline": "cyan", "canary": "yellow"}
_PHASES = {"progressing": "yellow", "paused": "yellow", "promoted": "green", "aborted": "red"}


def shown(watch: Watch, width: int, height: int | None) -> RenderableType:
    """One look, `width` characters wide. `height`: how many lines there are; None: as many as it takes."""
    parts: list[RenderableType] = [_head(watch)]
    if watch.overview:
        policies, rollouts = _policies(watch.overview, width), _rollouts(watch.rollouts)
        parts.append(policies)
        used = 6 + policies.row_count
        if watch.rollouts:
            parts.append(rollouts)
            used += 3 + rollouts.row_count
        if failed := _failed(watch.overview):
            parts.append(failed)
            used += 2
        parts.append(_decisions(watch, ROWS if height is None else max(3, height - used)))
    return Group(*parts)


def _head(watch: Watch) -> Text:
    if not watch.overview:
        return Text(f"{watch.problem}; trying again", style="bold red")
    found = watch.overview
    last = found["decided"][-4:-1]
    line = Text.assemble(
        ("arch-ext-proc ", "bold"),
        f"{clean(found['version'])}  revision {clean(found['revision'])}  ",
        (f"{sum(last) / (len(last) * found['slot_s']):.1f}/s", "bold"),
        f"  decision p50 {_ms(found['decision']['p50_ms'])} p99 {_ms(found['decision']['p99_ms'])} ms",
        f"  router p50 {_ms(found['router']['p50_ms'])} p99 {_ms(found['router']['p99_ms'])} ms",
    )
    if watch.problem:
        line.append(f"\n{watch.problem}; trying again, and this is old", style="bold red")
    return line


def _table(*columns: str) -> Table:
    """A name that begins with `>` is of numbers. Cells of words have `no_wrap`: they are cut, not folded."""
    table = Table(box=None, expand=True, pad_edge=False, header_style="dim", padding=(0, GAP // 2))
    for name in columns:
        label = name.removeprefix(">")
        table.add_column(
            Text(f"\n{label}", no_wrap=True),
            justify="left" if label == name else "right",
            no_wrap=label not in _MAY_BE_CUT,
            overflow="ellipsis",
        )
    return table


def _policies(found: dict[str, Any], width: int) -> Table:
    columns = ["POLICY", "MODEL", "ARM", ">SEEN", ">SET", ">DECIDED", ">FAILED"]
    rows: list[list[Text]] = []
    trends: list[Text] = []
    for policy in [*found["policies"], *found["others"]]:
        everything = sum(target["decided"] for target in policy["targets"])
        name = _words(policy["name"]) if policy["name"] else _words("(no policy)", style="dim")
        for target in policy["targets"]:
            configured, style = target.get("configured"), _ARMS.get(target["arm"], "")
            rows.append(
                [
                    name,
                    _words(target["model"]),
                    Text(clean(target["arm"]), style=style),
                    Text(f"{100 * target['decided'] / everything:.1f} %" if everything else "–"),
                    Text("–" if configured is None else f"{configured:g} %", style="dim"),
                    Text(f"{target['decided']:,}"),
                    _failures(target),
                ]
            )
            trends.append(Text(_trend(target["trend"]), style=style))
            name = Text()
    room = min(TREND_SLOTS, width - _width(columns, rows) - GAP)
    if room >= TREND_LEAST:
        columns.append("TREND")
        for row, trend in zip(rows, trends, strict=True):
            row.append(trend[-room:])
    table = _table(*columns)
    for row in rows:
        table.add_row(*row)
    return table


def _width(columns: list[str], rows: list[list[Text]]) -> int:
    """What a table takes with nothing cut."""
    heads = [len(name.removeprefix(">")) for name in columns]
    widest = [max(head, *(row[at].cell_len for row in rows), 0) for at, head in enumerate(heads)]
    return sum(widest) + GAP * (len(columns) - 1)


def _words(text: str, style: str = "") -> Text:
    return Text(clean(text), style=style, no_wrap=True)


def _failures(target: dict[str, Any]) -> Text:
    """None seen to fail is not the same as none seen: without `observe` nobody looks at the answers."""
    if not target["failed"]:
        return Text("0" if target["answered"] else "–", style="dim")
    return Text(f"{target['failed']:,}", style="red")


def _rollouts(rollouts: list[dict[str, Any]]) -> Table:
    table = _table("ROLLOUT", "CANARY", "PHASE", "STEP", ">WEIGHT", ">EXPOSED", "WHY")
    for one in rollouts:
        current, steps = one["current"], len(one["declared"]["steps"])
        table.add_row(
            _words(one["policy"]),
            _words(one["declared"]["target"]),
            Text(current["phase"], style=_PHASES.get(current["phase"], "")),
            Text(f"{min(current['step'] + 1, steps)}/{steps}"),
            Text(f"{current['weight']:g} %"),
            Text(f"{one['exposed']:,}"),
            _words("; ".join(current["waits_for"]) or current["text"], style="dim"),
        )
    return table


def _failed(found: dict[str, Any]) -> Text | None:
    faults = [(one["reason"], one["count"]) for one in found["reasons"] if one["fallback"]]
    faults += [(f"{one['kind']} {one['what']}", one["count"]) for one in found["faults"]]
    if not faults:
        return None
    return Text("\nfailed: " + ", ".join(f"{clean(what)} {count:,}" for what, count in faults), style="red")


def _decisions(watch: Watch, most: int) -> Table:
    table = _table("TIME", "POLICY", ">SCORE", "MODEL", "ARM", "REASON", ">MS", ">ANSWER")
    for row in list(watch.rows)[:most]:
        answer = row.get("answer")
        told = "–" if answer is None else f"{answer['status'] or 'none'} {_ms(answer['latency_s'] * 1000)}"
        table.add_row(
            Text(datetime.fromtimestamp(row["at"]).strftime("%H:%M:%S"), style="dim"),
            _words(row["policy"] or "–"),
            Text("–" if row["score"] is None else f"{row['score']:.2f}"),
            _words(row["model"]),
            Text(clean(row["arm"] or "–"), style=_ARMS.get(row["arm"], "")),
            _words(row["reason"], style="yellow" if row["fallback"] else "dim"),
            Text(_ms(row["total_s"] * 1000)),
            Text(told, style="red" if answer and answer["error"] else ""),
        )
    return table


def _trend(values: list[int]) -> str:
    values = values[-TREND_SLOTS:]
    most = max(values, default=0)
    return "".join(TREND[round(value / most * (len(TREND) - 1))] if most else TREND[0] for value in values)


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def clean(text: str) -> str:
    """A name without what would steer a terminal."""
    return "".join(one if one.isprintable() else "�" for one in text)
