"""Every measure of real processes: its words, its unit, its target. Numbers come from the scenarios."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from gossip_bench.rows import OURS, Row


@attrs.frozen
class Measure:
    """What ``Row`` says of a measure, but for the numbers."""

    title: str
    unit: str
    most: float | None = None
    most_of_serf: float | None = None
    judge_worst: bool = False
    digits: int = 2


def _never(title: str) -> Measure:
    return Measure(title, "nodes", most=0, judge_worst=True, digits=0)


# In the order in which the table shows them.
MEASURES: Final[dict[str, Measure]] = {
    "change.last": Measure("change asked for -> the last other node holds it", "s", 0.2, 0.5, digits=3),
    "change.spread": Measure("of that, from the origin's own event on", "s", digits=3),
    "kill.last": Measure("SIGKILL of one -> unreachable on all others", "s", 1.0),
    "kill.others": _never("running nodes ever called suspect or unreachable meanwhile"),
    "silent.last": Measure("SIGSTOP of one -> unreachable on all others", "s", 7.0),
    "silent.back": Measure("SIGCONT -> up again on all", "s", 2.0),
    "silent.others": _never("other nodes ever called suspect or unreachable meanwhile"),
    "pauses.others": _never("5 % paused for 10 s: other nodes ever called suspect or unreachable"),
    "pauses.back": Measure("5 % paused for 10 s: SIGCONT -> up again on all", "s", 2.0),
    "pause.unreachable": _never("one paused for 3 s: nodes ever called unreachable"),
    "leave.last": Measure("leave -> the last other node calls it left", "s", 0.5),
    "leave.digest": Measure("of that, until the last other node holds the leaving digest", "s"),
    "restart.down": Measure("orderly stop: SIGTERM -> process gone", "s"),
    "restart.false": _never("orderly stop for 3 s: nodes ever called suspect or unreachable"),
    "restart.back": Measure(
        "start after an orderly stop: listening -> new digest on the last other node", "s"
    ),
    "cold.whole": Measure("cold start: last node listens -> all hold all and call all up", "s", 3.9),
    "cold.worst": Measure("cold start: the same, worst of these", "s", 10.0, judge_worst=True),
    "cold.held": Measure("cold start: of that, until all hold all", "s"),
    "cold.begun": Measure("cold start: the same from the first process on (Python starts N times)", "s"),
    "cold.called": Measure("cold start: nodes called suspect or unreachable on the way", "nodes", digits=0),
    "mass.last10": Measure("10 % killed at once -> all of them unreachable on all others", "s", 15.0),
    "mass.missing10": _never("10 % killed: of them not unreachable everywhere, or others called so"),
    "mass.last30": Measure("30 % killed at once -> all of them unreachable on all others", "s", 15.0),
    "mass.missing30": _never("30 % killed: of them not unreachable everywhere, or others called so"),
    "mass.last50": Measure("50 % killed at once -> all of them unreachable on all others", "s", 15.0),
    "mass.missing50": _never("50 % killed: of them not unreachable everywhere, or others called so"),
    "idle.bytes": Measure("idle: IP bytes sent per node and second", "B/s", 396.0, digits=0),
    "idle.packets": Measure("idle: packets sent per node and second", "1/s", digits=2),
    "idle.cpu": Measure("idle: CPU per node, % of a core", "%", 0.25),
    "idle.rss": Measure("resident memory per node", "MB", 65.0, digits=1),
    "bytes.payload": Measure("a change beyond idle: TCP payload sent per node", "B", digits=0),
    "bytes.ratio": Measure("the same, x (digest + changed entries)", "x", 1.6),
    "flood.before": Measure("others' change time, p99, nobody floods", "s", digits=3),
    "flood.during": Measure("others' change time, p99, one peer floods one node", "s", digits=3),
    "flood.ratio": Measure("the second by the first", "x", 2.0),
    "flood.memory": Measure(
        "memory of the flooded node beyond before", "MB", 32.0, judge_worst=True, digits=1
    ),
    "flood.stall_before": Measure("longest answer of /healthz, nobody floods", "ms", digits=0),
    "flood.stall": Measure(
        "longest answer of /healthz of the flooded node", "ms", 50.0, judge_worst=True, digits=0
    ),
    "door.closed": Measure("1,000 stalled TLS handshakes: open for at most", "s", 12.0, judge_worst=True),
    "door.change": Measure("meanwhile: a change through that node -> the last other node", "s", digits=3),
}


def row(key: str, nodes: int, values: Sequence[float] = (), *, system: str = OURS, note: str = "") -> Row:
    """Return the row of a measure; the targets are ours, so another system's row has none."""
    measure = MEASURES[key]
    is_ours = system == OURS
    return Row(
        key=key,
        title=measure.title,
        nodes=nodes,
        unit=measure.unit,
        values=tuple(values),
        system=system,
        most=measure.most if is_ours else None,
        most_of_serf=measure.most_of_serf if is_ours else None,
        judge_worst=measure.judge_worst,
        digits=measure.digits,
        note=note,
    )
