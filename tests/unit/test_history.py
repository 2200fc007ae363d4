"""What was, on disk: storage.history."""

import contextlib
import sqlite3

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esgf_gossip.storage.history import AHEAD_MS, TRIM_BYTES, TRIM_ROWS, History, News
from esgf_gossip.storage.history_reader import FILE_NAME, HistoryError, HistoryReader, Wish
from esgf_gossip.views.history_json import DIGEST, HEALTH, STATUS, WITHDRAWN
from helpers.bench import a_line

DAY_MS = 86_400_000
KEEP_MS = 90 * DAY_MS
MOST_BYTES = 2**30
ORIGINS = ("a.example.org", "b.example.org", "c.example.org")


def a_digest(origin, sequence, at_ms, word=b"word"):
    """Return the news of a digest with one entry."""
    line = a_line(origin, 1, sequence, {"registration": word})
    return News(
        at_ms, origin, DIGEST, {}, line.verified, {ref.sha256: word for ref in line.digest.entries.values()}
    )


def a_status(origin, at_ms, status="up"):
    """Return the news of a verdict."""
    return News(at_ms, origin, STATUS, {"status": status, "before": None})


@pytest.fixture
def path(tmp_path):
    """Where the file is."""
    return tmp_path / FILE_NAME


@pytest.fixture
def history(path):
    """An open, empty file."""
    opened = History(path, KEEP_MS, MOST_BYTES)
    yield opened
    opened.close()


def asked(path, question):
    """Ask a reader of its own."""
    with HistoryReader(path) as reader:
        return question(reader)


def rows(path):
    """Count what the file holds, told or not."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT COUNT(*) FROM changes").fetchone()[0]


def table(path, at_ms):
    """Return the table at a time: sequence and body by origin."""

    def read(reader):
        lines = reader.lines(at_ms)
        bodies = reader.bodies(ref.sha256 for line in lines for ref in line.digest.entries.values())
        return {
            line.digest.origin: (line.digest.sequence, bodies[line.digest.entries["registration"].sha256])
            for line in lines
        }

    return asked(path, read)


STEPS = st.lists(
    st.tuples(st.sampled_from(ORIGINS), st.booleans(), st.integers(0, 5 * DAY_MS), st.binary(max_size=3)),
    min_size=1,
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, keep_days=st.integers(1, 20))
def test_the_table_of_any_time_is_what_was_accepted_by_then(tmp_path_factory, steps, keep_days):
    """Whatever came and went, and whatever was forgotten since: from the beginning it names on, it tells the truth."""
    path = tmp_path_factory.mktemp("history") / FILE_NAME
    history = History(path, keep_days * DAY_MS, MOST_BYTES)
    held, snapshots, now_ms = {}, [], 1_000_000
    for number, (origin, is_withdrawn, after_ms, word) in enumerate(steps, 1):
        now_ms += after_ms
        if is_withdrawn:
            history.add([News(now_ms, origin, WITHDRAWN, {"reason": "revoked"})])
            held.pop(origin, None)
        else:
            history.add([a_digest(origin, number, now_ms, word)])
            held[origin] = (number, word)
        snapshots.append((now_ms, dict(held)))
    while history.trim(now_ms):
        pass
    history.close()
    begins_ms = asked(path, lambda reader: reader.begins_ms())
    assert begins_ms >= now_ms - keep_days * DAY_MS or begins_ms == snapshots[0][0]
    # Of several at one instant the last counts.
    for at_ms, expected in dict(snapshots).items():
        if at_ms >= begins_ms:
            assert table(path, at_ms) == expected
    # A change whose predecessor was forgotten is not told as the first.
    kept = asked(path, lambda reader: reader.changes(Wish(limit=1000)))
    assert all(change.at_ms >= begins_ms for change in kept)


def test_a_line_comes_back_as_it_was_verified(path, history):
    """Bytes, order, chain and groups: the root over such lines is the root of that time."""
    news = a_digest(ORIGINS[0], 7, 1000)
    history.add([news])
    # What a certificate grants for logs is of now alone: it is not kept.
    kept = attrs.evolve(news.line, hosts=frozenset())
    assert asked(path, lambda reader: reader.lines(1000)) == [kept]
    assert asked(path, lambda reader: reader.lines(999)) == []


def test_changes_come_in_pages_by_host_kind_and_time(path, history):
    """The newest first; each wish leaves out what it should."""
    history.add([a_digest(ORIGINS[0], 1, 1000), a_status(ORIGINS[0], 2000), a_status(ORIGINS[1], 3000)])

    def ids(**wish):
        return [change.id for change in asked(path, lambda reader: reader.changes(Wish(**wish)))]

    assert ids() == [3, 2, 1]
    assert ids(limit=2) == [3, 2]
    assert ids(before_id=2) == [1]
    assert ids(host=ORIGINS[0]) == [2, 1]
    assert ids(kinds=(STATUS,)) == [3, 2]
    assert ids(since_ms=2000) == [3, 2]
    assert ids(until_ms=2000) == [2, 1]
    assert ids(host="nobody.example.org") == []


def test_the_digest_before_is_found_until_a_withdrawal(path, history):
    """Differences are told against the digest before; what came after a withdrawal is new."""
    origin = ORIGINS[0]
    history.add([a_digest(origin, 1, 1), a_status(origin, 2), a_digest(origin, 2, 3)])
    history.add([News(4, origin, WITHDRAWN, {"reason": "revoked"}), a_digest(origin, 3, 5)])

    def before(reader):
        newest_first = reader.changes(Wish(kinds=(DIGEST,)))
        found = [reader.before(one) for one in newest_first]
        return [one and one.line.digest.sequence for one in found]

    assert asked(path, before) == [None, 1, None]


def test_time_never_falls(path, history):
    """A clock that is set back makes no second past."""
    history.add([a_status(ORIGINS[0], 5000)])
    history.add([a_status(ORIGINS[0], 1000, "unreachable")])
    assert [one.at_ms for one in asked(path, lambda reader: reader.changes(Wish()))] == [5000, 5000]


def test_a_clock_that_was_far_ahead_costs_no_more_than_its_own_dates(path, history):
    """What it dated is dated when it was set right, in its order; what follows has its own time."""
    ahead_ms = 5000 + 10 * 365 * DAY_MS
    history.add([a_digest(ORIGINS[0], 1, 5000)])
    history.add([a_digest(ORIGINS[0], 2, ahead_ms), a_status(ORIGINS[1], ahead_ms)])
    history.add([a_digest(ORIGINS[0], 3, 7000)])
    history.add([a_status(ORIGINS[1], 8000)])
    kept = asked(path, lambda reader: reader.changes(Wish()))
    assert [(one.id, one.at_ms) for one in kept] == [(5, 8000), (4, 7000), (3, 7000), (2, 7000), (1, 5000)]
    assert table(path, 6999) == {ORIGINS[0]: (1, b"word")}
    assert table(path, 7000) == {ORIGINS[0]: (3, b"word")}
    while history.trim(8001 + KEEP_MS):
        pass
    # The digest in force stays, and is no change of the time that is told.
    assert asked(path, lambda reader: reader.changes(Wish())) == []
    assert table(path, 8001 + KEEP_MS) == {ORIGINS[0]: (3, b"word")}


def test_a_clock_behind_the_beginning_is_not_believed(path, history):
    """A host that starts in 1970 does not move its past there."""
    history.add([a_status(ORIGINS[0], 10 * AHEAD_MS)])
    history.add([a_status(ORIGINS[0], 20 * AHEAD_MS, "unreachable")])
    history.add([a_status(ORIGINS[0], 1000)])
    kept = asked(path, lambda reader: reader.changes(Wish()))
    assert [one.at_ms for one in kept] == [20 * AHEAD_MS, 20 * AHEAD_MS, 10 * AHEAD_MS]


def test_large_bodies_are_forgotten_a_few_at_a_time(path):
    """The reactor waits for a step: it is bounded by bytes too, and the disk comes back by and by."""
    history = History(path, DAY_MS, MOST_BYTES)
    large = 400
    history.add([a_digest(ORIGINS[0], n + 1, n, b"%05d" % n * 13_000) for n in range(large)])
    freed = []
    has_more = True
    while has_more:
        before = path.stat().st_size
        has_more = history.trim(3 * DAY_MS)
        history._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        freed.append(before - path.stat().st_size)
    history.close()
    assert sum(freed) > 300 * 65_000
    assert max(freed[1:]) <= TRIM_BYTES + 2 * 65_536
    assert table(path, 3 * DAY_MS)[ORIGINS[0]][0] == large


def test_the_file_stays_within_its_size(path):
    """Beyond its bound the oldest goes, a step at a time, and the file gives the disk back."""
    most_bytes = 1024 * 1024
    history = History(path, KEEP_MS, most_bytes)
    for start in range(0, 3000, 100):
        history.add([a_digest(ORIGINS[n % 3], n + 1, n, b"%d" % n * 300) for n in range(start, start + 100)])
    steps = 1
    while history.trim(3000):
        steps += 1
    history.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (rows,) = connection.execute("SELECT COUNT(*) FROM changes").fetchone()
        orphans = connection.execute(
            "SELECT COUNT(*) FROM bodies WHERE sha256 NOT IN (SELECT sha256 FROM uses)"
        ).fetchone()
    connection.close()
    assert steps > 1
    assert 100 < rows < 3000
    assert orphans == (0,)
    assert path.stat().st_size <= most_bytes * 1.1
    newest = table(path, 10**9)
    assert sorted(sequence for sequence, _ in newest.values()) == [2998, 2999, 3000]


def test_more_origins_than_a_step_do_not_stop_the_trimming(path):
    """The digests in force stay, however old and many; what others took the place of goes."""
    history = History(path, KEEP_MS, 1)
    origins = [f"n{number}.example.org" for number in range(TRIM_ROWS + 50)]
    history.add([a_digest(origin, 1, 1) for origin in origins])
    history.add([a_digest(origins[0], number, number) for number in range(2, 200)])
    while history.trim(1000):
        pass
    history.close()
    assert rows(path) == len(origins)
    assert table(path, 1000)[origins[0]][0] == 199


def test_a_step_of_trimming_is_bounded(path):
    """However much is too old, one step forgets no more than so many rows."""
    history = History(path, DAY_MS, MOST_BYTES)
    history.add([a_status(ORIGINS[0], n) for n in range(TRIM_ROWS + 10)])
    assert history.trim(3 * DAY_MS)
    assert rows(path) == 10
    assert not history.trim(3 * DAY_MS)
    assert rows(path) == 0
    history.close()


def test_last_words_are_one_for_each_subject(path, history):
    """What a restart compares with: the last verdict of a node, the last health of each service."""
    host = ORIGINS[0]
    history.add(
        [
            a_status(host, 1, "up"),
            a_status(host, 2, "suspect"),
            News(3, host, HEALTH, {"type": "IndexService", "health": "up", "before": None}),
            News(4, host, HEALTH, {"type": "IndexService", "health": "down", "before": "up"}),
            News(5, host, HEALTH, {"type": "LASService", "health": "up", "before": None}),
        ]
    )
    assert history.last_words(STATUS)[host, ""]["status"] == "suspect"
    assert {key[1]: detail["health"] for key, detail in history.last_words(HEALTH).items()} == {
        "IndexService": "down",
        "LASService": "up",
    }
    assert len(history.newest()) == 0


def test_a_damaged_file_is_put_aside(path):
    """The past is not worth a daemon that does not start: a new file begins, the old one is kept."""
    path.write_bytes(b"this is no database, " * 500)
    history = History(path, KEEP_MS, MOST_BYTES)
    history.add([a_status(ORIGINS[0], 1)])
    history.close()
    assert history.put_aside == str(path) + ".damaged"
    assert b"no database" in path.with_name(path.name + ".damaged").read_bytes()
    assert len(asked(path, lambda reader: reader.changes(Wish()))) == 1


def test_a_file_of_a_newer_version_is_refused(path):
    """Nothing is written into what a later version made."""
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(HistoryError, match="newer version; upgrade"):
        History(path, KEEP_MS, MOST_BYTES)


def test_the_file_is_private(path, history):
    """Digests are public to members, not to everybody on the host."""
    history.add([a_status(ORIGINS[0], 1)])
    modes = {one.name: one.stat().st_mode & 0o777 for one in path.parent.iterdir()}
    assert len(modes) >= 2
    assert set(modes.values()) == {0o600}


def test_damage_beyond_the_first_page_is_put_aside_too(path):
    """The file opens and its head is right; what it keeps cannot be read."""
    history = History(path, 10**9, 2**30)
    history.add([News(number, "a.org", "status", {"status": "up" * 200}) for number in range(1, 400)])
    history.close()
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    size = path.stat().st_size
    assert size > 3 * 4096
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))
    again = History(path, 10**9, 2**30)
    assert again.put_aside
    again.add([News(1, "a.org", "status", {"status": "up"})])
    again.close()


def test_damage_that_cannot_be_put_aside_is_told(path, monkeypatch):
    """Where the folder refuses the move, the error says so and nothing is lost."""
    path.write_bytes(b"no database at all" * 1000)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "replace", refuse)
    with pytest.raises(HistoryError, match="Permission denied"):
        History(path, 10**9, 2**30)
    assert path.read_bytes().startswith(b"no database")
