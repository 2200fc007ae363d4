"""The journal of a publisher in a real PostgreSQL: each row once, in doubt none, and no row missed that came late."""

from __future__ import annotations

import datetime as dt

import pytest
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import Clock

from esgf_gossip.sources import postgres_reading, publisher_journal
from esgf_gossip.sources.gauge import SourceError
from esgf_gossip.sources.publisher_journal import JournalFile, JournalRow, read_journal
from esgf_gossip.sources.rounds import RETRY_MOST_S
from esgf_gossip.storage.journal_thread import AtOnce
from esgf_gossip.tracking.database import TrackingDatabase, TrackingError
from esgf_gossip.tracking.publisher_events import SCRIPT, Site, advance, get_position, sightings_of
from esgf_gossip.tracking.publisher_feed import EVERY_S, PublisherFeed
from esgf_gossip.tracking.sightings import SeenFile
from helpers.postgres import DATABASE, postgres_server
from helpers.publisher_tables import (
    PUBLISHER,
    PUBLISHER_PASSWORD,
    add_dataset,
    add_event,
    delete_dataset,
    empty,
    make_tables,
)

CREATE, UPDATE, PUBLISH, RETRACT, DELETE_GATEWAY, RETRACT_GATEWAY = 1, 2, 3, 7, 12, 17
NAME = "cmip5.output1.MOHC.HadGEM2-ES.rcp45.mon.atmos.Amon.r1i1p1"
NODE = "data.example.org"
SITE = Site(NODE, f"https://{NODE}/thredds/fileServer/", dt.timezone(dt.timedelta(hours=2)))
NOW_MS = 1_800_000_000_000


@pytest.fixture(scope="module")
def server():
    """One server for all tests here, with the publisher's tables."""
    with postgres_server() as running:
        with running.superuser() as connection:
            make_tables(connection)
        yield running


class Journal:
    """The publisher on one side, a node on the other."""

    def __init__(self, server, path):
        self.path = path
        self.server = server
        self.publisher = server.superuser(autocommit=True)
        empty(self.publisher)
        self.password = path / "password"
        self.password.write_text(PUBLISHER_PASSWORD)
        self.seen = []
        self.answer = succeed
        self.begin()

    @property
    def address(self):
        return f"host=127.0.0.1 port={self.server.port} dbname={DATABASE} user={PUBLISHER}"

    def begin(self):
        """Start as a new process does."""
        self.database = TrackingDatabase(self.path / "tracking.db", {"journal": SCRIPT}, AtOnce())
        self.clock = Clock()
        self.feed = PublisherFeed(
            self.address,
            self.password,
            SITE,
            self.database,
            self.see,
            maybeDeferred,
            self.clock,
            lambda: NOW_MS,
        )
        self.feed.start()

    def end(self):
        """End without a word, as a crash does."""
        self.feed.stop()
        self.feed.stop()
        self.database.close()

    def see(self, sightings):
        found = self.answer(None)
        self.seen += sightings
        return found

    def look(self, seconds=EVERY_S):
        """Let a round begin, and those that follow at once; return what was seen since."""
        self.seen.clear()
        self.clock.advance(seconds)
        for _ in range(100):
            self.clock.advance(0)
        return [(one.operation.value, str(one.dataset), one.is_replica) for one in self.seen]


@pytest.fixture
def journal(server, tmp_path):
    """A journal without rows, and a node that reads it."""
    found = Journal(server, tmp_path)
    yield found
    found.end()
    found.publisher.close()


def test_a_dataset_is_published_replaced_and_deleted(journal):
    """Only what an index knows of is told: creating, adding files, failures are the publisher's own."""
    add_dataset(journal.publisher, NAME, 1)
    for code in (CREATE, 5, 9, PUBLISH, 8, 10, 14):
        add_event(journal.publisher, code, NAME, 1)
    assert journal.look() == [("publish", f"{NAME}.v1", False)]
    (found,) = journal.seen
    assert (found.data_node, found.source) == (NODE, "journal")
    assert found.occurred_ms == 1_782_900_000_500  # two hours before noon by UTC
    assert found.files == (
        SeenFile(
            "tas.nc",
            (f"https://{NODE}/thredds/fileServer/esg_dataroot/{NAME}/v1/tas.nc",),
            "a" * 64,
            17,
            "hdl:21.14100/1",
        ),
    )
    assert journal.look() == []
    for code in (11, DELETE_GATEWAY, 19, 4):
        add_event(journal.publisher, code, NAME, 1)
    assert journal.look() == [("delete", f"{NAME}.v1", False)]
    assert journal.feed.taken == 2


@pytest.mark.parametrize("code", [RETRACT, RETRACT_GATEWAY])
@pytest.mark.parametrize(("gateway", "is_replica"), [(None, False), ("other-gateway", True)])
def test_a_retraction_is_told_with_what_is_known_of_the_copy(journal, code, gateway, is_replica):
    """A dataset with a gateway of its own elsewhere is a replica."""
    add_dataset(journal.publisher, NAME, 20120101, gateway=gateway)
    add_event(journal.publisher, code, NAME, 20120101)
    assert journal.look() == [("retract", f"{NAME}.v20120101", is_replica)]


def test_of_several_versions_nobody_guesses_which_was_retracted(journal, log):
    """The row carries the newest version whichever was meant: it is counted, and nobody is told of a good version."""
    add_dataset(journal.publisher, NAME, 1, 2)
    add_event(journal.publisher, RETRACT_GATEWAY, NAME, 2)
    add_event(journal.publisher, PUBLISH, NAME, 2)
    assert journal.look() == [("publish", f"{NAME}.v2", False)]
    assert (journal.feed.unclear, journal.feed.fault) == (1, "")


def test_what_was_deleted_from_the_database_is_known_by_its_journal(journal):
    """Its rows stay; whether it was a replica is not known any more, nor one version of several."""
    for name, versions in ((NAME, [1]), (f"{NAME}x", [1, 2])):
        add_dataset(journal.publisher, name, *versions)
        for version in versions:
            add_event(journal.publisher, UPDATE, name, version)
        delete_dataset(journal.publisher, name)
        add_event(journal.publisher, RETRACT_GATEWAY, name, versions[-1])
    assert journal.look() == [("retract", f"{NAME}.v1", None)]
    assert journal.feed.unclear == 1


def test_rows_that_make_no_sense_hold_up_nobody(journal):
    """No version, a name that is none, a time that is none."""
    add_event(journal.publisher, PUBLISH, NAME, None)
    add_event(journal.publisher, PUBLISH, "a name with blanks", 1)
    add_event(journal.publisher, None, NAME, 1)
    add_event(journal.publisher, PUBLISH, NAME, 1, "infinity")
    add_event(journal.publisher, PUBLISH, NAME, 2, "0044-03-15 12:00:00 BC")
    assert journal.look() == [("publish", f"{NAME}.v1", None), ("publish", f"{NAME}.v2", None)]
    assert {one.occurred_ms for one in journal.seen} == {NOW_MS}
    assert journal.feed.unclear == 2


def test_a_row_that_is_committed_late_is_not_missed(journal):
    """Numbers are given before rows are there: one below the highest may come when that is done."""
    with journal.server.superuser() as slow:
        late = add_event(slow, PUBLISH, NAME, 1)
        soon = add_event(journal.publisher, PUBLISH, NAME, 2)
        assert late < soon
        assert journal.look() == [("publish", f"{NAME}.v2", None)]
        slow.commit()
    assert journal.look() == [("publish", f"{NAME}.v1", None)]
    assert journal.look() == []


def test_what_lies_far_back_is_not_read_again(journal, monkeypatch):
    """The window is bounded, and so is what is remembered of it."""
    monkeypatch.setattr(publisher_journal, "WINDOW", 10)
    monkeypatch.setattr("esgf_gossip.tracking.publisher_events.WINDOW", 10)
    for number in range(1, 41):
        add_event(journal.publisher, PUBLISH if number % 2 else 8, NAME, number)
    assert len(journal.look()) == 20
    position = journal.database.now(get_position)
    assert (position.number, min(position.seen), len(position.seen)) == (40, 31, 10)
    assert journal.look() == []


def test_a_long_journal_is_read_in_bounded_pages(journal, monkeypatch):
    """Each page is on the disk before the next is asked for; rows that say nothing go with them."""
    monkeypatch.setattr(publisher_journal, "LOOKED_AT", 100)
    journal.publisher.execute(
        """INSERT INTO event (datetime, object_name, object_version, event)
        SELECT now(), %s, i, CASE WHEN i <= 120 THEN 3 ELSE 8 END FROM generate_series(1, 500) AS i""",
        [NAME],
    )
    batches = []
    journal.answer = lambda _: succeed(batches.append(len(journal.seen)))
    assert len(journal.look()) == 120
    assert batches == [0, 50, 100]
    assert journal.database.now(get_position).number == 500


def test_a_place_is_kept_when_what_came_before_is_on_the_disk(journal):
    """A disk that says no, then a crash: the rows come again, with the same ids."""
    add_event(journal.publisher, PUBLISH, NAME, 1)
    journal.answer = lambda _: fail(TrackingError("tracking.db: no room"))
    assert journal.look() == [("publish", f"{NAME}.v1", None)]
    assert journal.feed.fault == "tracking.db: no room"
    ids = {one.event_id for one in journal.seen}
    journal.answer = lambda _: Deferred()
    assert journal.look(RETRY_MOST_S) == [("publish", f"{NAME}.v1", None)]
    journal.end()
    journal.answer = succeed
    journal.begin()
    assert journal.look() == [("publish", f"{NAME}.v1", None)]
    assert ids == {one.event_id for one in journal.seen}
    assert journal.look() == []


def test_a_database_that_was_made_anew_is_read_from_its_beginning(journal):
    """Its numbers are those of other rows; their ids are others too."""
    for version in (1, 2, 3):
        add_event(journal.publisher, PUBLISH, NAME, version)
    assert len(journal.look()) == 3
    ids = {one.event_id for one in journal.seen}
    empty(journal.publisher)
    add_event(journal.publisher, PUBLISH, NAME, 4, "2026-08-01 12:00:00")
    assert journal.look() == [("publish", f"{NAME}.v4", None)]
    assert not ids & {one.event_id for one in journal.seen}


def test_the_role_needs_to_read_five_tables_and_writes_none(journal):
    """What is missing is named; a server that is away is waited for."""
    add_event(journal.publisher, PUBLISH, NAME, 1)
    journal.publisher.execute(f"REVOKE SELECT ON file_version FROM {PUBLISHER}")
    assert journal.look() == []
    assert "permission denied for table file_version" in journal.feed.fault
    journal.publisher.execute(f"GRANT SELECT ON file_version TO {PUBLISHER}")
    assert journal.look(RETRY_MOST_S) == [("publish", f"{NAME}.v1", None)]
    assert journal.feed.fault == ""
    elsewhere = journal.address.replace(DATABASE, "postgres")
    with pytest.raises(SourceError, match=r"has no table public\.event"):
        read_journal(elsewhere, journal.password, 7, ())
    # A site without a publisher has nothing to mend.
    assert read_journal(elsewhere, journal.password, 0, ()).is_absent
    journal.publisher.execute("ALTER TABLE public.event RENAME TO event_before")
    with pytest.raises(SourceError, match=r"has no table public\.event; "):
        read_journal(journal.address, journal.password, 0, ())
    journal.publisher.execute("ALTER TABLE public.event_before RENAME TO event")
    journal.password.write_text("wrong")
    with pytest.raises(
        SourceError, match=r"authentication failed for user .*; see \[tracking\] password_file$"
    ) as caught:
        read_journal(journal.address, journal.password, 0, ())
    assert "\n" not in str(caught.value)
    with pytest.raises(SourceError, match="password_file"):
        read_journal(journal.address, journal.path / "no", 0, ())


def test_a_journal_begins_when_its_tables_appear(journal):
    """A site without a publisher has no fault; one that gets a publisher is read without a restart."""
    tables = ("event", "dataset", "dataset_version", "dataset_file_version", "file_version")
    for table in tables:
        journal.publisher.execute(f"ALTER TABLE public.{table} RENAME TO {table}_later")
    try:
        assert (journal.look(), journal.feed.fault) == ([], "")
    finally:
        for table in tables:
            journal.publisher.execute(f"ALTER TABLE public.{table}_later RENAME TO {table}")
    add_dataset(journal.publisher, NAME, 1)
    add_event(journal.publisher, PUBLISH, NAME, 1)
    assert journal.look() == [("publish", f"{NAME}.v1", False)]


def test_a_migration_is_not_queued_behind(journal, monkeypatch):
    """Who rewrites the table keeps it; the question gives up at once."""
    monkeypatch.setattr(postgres_reading, "LOCK_WAIT_MS", 50)
    with journal.server.superuser() as migration:
        migration.execute("LOCK TABLE event IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(SourceError, match="lock timeout"):
            read_journal(journal.address, journal.password, 0, ())


def test_files_that_make_no_sense_are_left_out_or_cut_down():
    """An absolute address stays; a path is quoted; what is no name, size, checksum or id is none."""
    files = (
        JournalFile("/data/a b.nc", "/root/a b.nc", None, "", ""),
        JournalFile("/data/b.nc", "http://other.example.org/b.nc", -1, "xyz", "\x07"),
        JournalFile("/data/c.nc", "gsiftp://x/c.nc", 0, "B" * 32, "t"),
        JournalFile("/data/\n", "", 1, "", ""),
        JournalFile("", "", 1, "", ""),
    )
    row = JournalRow(1, None, NAME, 1, PUBLISH, None, files=files)
    (found,), unclear = sightings_of([row], SITE, NOW_MS)
    assert unclear == []
    assert found.files == (
        SeenFile("a b.nc", (f"https://{NODE}/thredds/fileServer/root/a%20b.nc",)),
        SeenFile("b.nc", ("http://other.example.org/b.nc",)),
        SeenFile("c.nc", (), "b" * 32, 0, "t"),
    )


def test_the_clock_of_the_publisher_is_that_of_this_host_by_default():
    """A time without a zone is read as the host reads it; nothing happens in the future."""
    at = dt.datetime(2026, 7, 1, 12)
    row = JournalRow(1, at, NAME, 1, PUBLISH, None)
    here = Site(NODE, "https://x/")
    assert sightings_of([row], here, NOW_MS)[0][0].occurred_ms == int(at.astimezone().timestamp() * 1000)
    assert sightings_of([row], here, 17)[0][0].occurred_ms == 17


def test_nothing_new_moves_nothing(tmp_path):
    """A page without rows leaves the place as it is."""
    database = TrackingDatabase(tmp_path / "tracking.db", {"journal": SCRIPT}, AtOnce())
    database.now(advance, [5])
    database.now(advance, [])
    database.now(advance, [3])
    assert database.now(get_position).number == 5
    database.close()
