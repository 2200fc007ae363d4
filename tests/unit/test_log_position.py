"""How far a table is read of which rows come late and change: nothing is missed, in any order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from esgf_gossip.sources import log_position
from esgf_gossip.sources.access_log import LogReading, LogRow
from esgf_gossip.sources.log_position import WAIT_MS, Gap, LogPosition, decode_position
from esgf_gossip.tracking.downloads import readable, sort_out

MOST = 3


class Table:
    """A table of downloads, of which each look sees what is committed, as ``AccessLog`` asks for it."""

    def __init__(self) -> None:
        self.rows: dict[int, LogRow] = {}

    def read(self, position: LogPosition, now_ms: int, *, is_rechecking: bool) -> LogReading:
        """Read on."""
        waiting = {number for number, _ in position.open_rows} if is_rechecking else set()
        old = [
            row
            for number, row in sorted(self.rows.items())
            if number in waiting
            or (is_rechecking and any(gap.first <= number <= gap.last for gap in position.gaps))
        ]
        new = [row for number, row in sorted(self.rows.items()) if number > position.highest][:MOST]
        rows = (*old, *new)
        reopened = {row.id for row in rows if not row.is_whole}
        after = position.moved([row.id for row in rows], reopened, now_ms, is_rechecked=is_rechecking)
        return LogReading(rows, after, len(new) == MOST, frozenset(waiting))


def fold(readings) -> dict:
    """Return what comes of readings: for each file its span, and how many rows were counted."""
    total, count = {}, 0
    for reading in readings:
        fetches, tally = readable(reading)
        count += tally.rows
        for (place, user), span in sort_out(fetches, {}, {}).unresolved.items():
            if (place, user) in total:
                total[place, user].add(span)
            else:
                total[place, user] = span
    return {"spans": total, "rows": count}


STEPS = st.lists(
    st.one_of(st.tuples(st.just("commit"), st.integers(1, 30)), st.tuples(st.just("end"), st.integers(1, 30)),
              st.tuples(st.just("pass"), st.integers(1, 1000))),
    max_size=60,
)  # fmt: skip


@given(STEPS)
def test_any_order_of_commits_and_ends_is_one_pass_over_the_final_table(steps):
    """Rows are committed and marked as ended in any order, between any looks: the same comes out."""
    table, readings = Table(), []
    position, now_ms = LogPosition(), 0

    def one_pass():
        nonlocal position
        has_more, is_first = True, True
        while has_more:
            reading = table.read(position, now_ms, is_rechecking=is_first)
            assert decode_position(reading.position.encode()) == reading.position
            readings.append(reading)
            position, has_more, is_first = reading.position, reading.has_more, False

    for what, number in steps:
        if what == "commit":
            table.rows.setdefault(
                number, LogRow(number, f"user{number % 3}", f"d/{number % 4}.nc", 1000 + number % 5, False)
            )
        elif what == "end" and number in table.rows:
            row = table.rows[number]
            table.rows[number] = LogRow(row.id, row.user, row.url, row.fetched_ms, True)
        else:
            now_ms += number
            one_pass()
    one_pass()
    everything = LogReading(tuple(table.rows.values()), LogPosition(), has_more=False)
    assert fold(readings) == fold([everything])


def test_what_is_missing_is_asked_for_a_day():
    """A gap is given up after a day, from when it was seen; where rows come late the day begins anew."""
    position = LogPosition().moved([1, 10], [10], 1000, is_rechecked=True)
    assert position == LogPosition(10, (Gap(2, 9, 1000),), ((10, 1000),))
    assert position.moved([5], [], 2000, is_rechecked=True).gaps == (Gap(2, 4, 1000), Gap(6, 9, 2000))
    assert position.moved([10], [10], 1000 + WAIT_MS - 1, is_rechecked=True) == position
    assert position.moved([10], [10], 1000 + WAIT_MS, is_rechecked=True) == LogPosition(10)
    # Asked for first, given up then: a daemon that was away for a week misses nothing of what came meanwhile.
    assert position.moved([5], [], 1000 + WAIT_MS, is_rechecked=False).gaps[0] == Gap(2, 4, 1000)


def test_what_is_remembered_is_bounded(monkeypatch):
    """A table full of holes, or of transfers that never end, keeps the newest of them."""
    monkeypatch.setattr(log_position, "GAPS", 5)
    monkeypatch.setattr(log_position, "OPEN_ROWS", 4)
    numbers = range(2, 100, 2)
    position = LogPosition().moved(list(numbers), set(numbers), 1, is_rechecked=True)
    assert [gap.first for gap in position.gaps] == [89, 91, 93, 95, 97]
    assert [number for number, _ in position.open_rows] == [92, 94, 96, 98]
