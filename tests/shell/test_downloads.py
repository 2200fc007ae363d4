"""Who downloaded what, in both stores: one row a file, changes matched, nothing lost or counted twice."""

from __future__ import annotations

import random
import stat

import attrs
import pytest

from esgf_gossip.sources.access_log import PublishedFiles
from esgf_gossip.sources.log_position import LogPosition
from esgf_gossip.tracking import downloads
from esgf_gossip.tracking.downloads import DownloadsError
from esgf_gossip.tracking.downloads_postgres import PostgresDownloads
from esgf_gossip.tracking.downloads_sqlite import SqliteDownloads
from esgf_gossip.tracking.events import ERRATUM, EventType
from esgf_gossip.tracking.identity import DatasetId
from esgf_gossip.tracking.matches import DATASETS_NAMED, FILES_NAMED, Change
from esgf_gossip.tracking.sightings import SeenFile
from helpers.access_tables import TRACKER, add_tables, address_of, password_file
from helpers.downloads import (
    ALICE,
    BOB,
    CAROL,
    MASTER,
    NAMES,
    OTHER,
    T0,
    V1,
    V2,
    V3,
    new_version,
    reading,
    retracted,
    row,
    url,
)
from helpers.postgres import postgres_server


@pytest.fixture(scope="module")
def server():
    """One server for all tests here."""
    with postgres_server() as running:
        add_tables(running)
        yield running


def new_schema(server) -> None:
    """Empty the store in PostgreSQL."""
    with server.superuser() as connection:
        connection.execute("DROP SCHEMA IF EXISTS esgf_gossip_tracking CASCADE")
        connection.execute(f"CREATE SCHEMA esgf_gossip_tracking AUTHORIZATION {TRACKER}")


@pytest.fixture(params=["sqlite", "postgres"])
def open_store(request, tmp_path):
    """Return what opens a store, each time the same one; empty at first."""
    opened = []

    def opens():
        store = (
            SqliteDownloads(tmp_path / "downloads.db")
            if request.param == "sqlite"
            else PostgresDownloads(address_of(server, TRACKER), password_file(tmp_path))
        )
        opened.append(store)
        return store

    if request.param == "postgres":
        server = request.getfixturevalue("server")
        new_schema(server)
    yield opens
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store):
    """An empty store."""
    return open_store()


def found(store, *changes: Change, known_ms: int = 0):
    """Return all matches by user."""
    return {match.openid: match for batch in store.match(changes, known_ms) for match in batch}


def test_one_row_for_each_user_and_file(store):
    """First, last and whole are kept of many fetches of one file, and the host of the last; in any order."""
    store.advance(
        reading(
            row(ALICE, url(V1, host="b.example.org"), T0 + 5),
            row(ALICE, url(V1), T0),
            row(ALICE.replace("idp.example", "IDP.Example") + "/", url(V1), T0 + 3, is_whole=False),
        )
    )
    store.advance(reading(row(ALICE, url(V1), T0 + 4)))
    counts = store.counts()
    assert (counts.downloads, counts.users, counts.rows) == (1, 1, 4)
    (match,) = found(store, retracted(V1)).values()
    assert (match.file_count, match.last_fetched_ms, match.files[0].host) == (1, T0 + 5, "b.example.org")
    (held,) = store.export(ALICE)["downloads"]
    assert held == {
        "dataset": V1.instance_id,
        "file": NAMES[0],
        "host": "b.example.org",
        "first_fetched": "2020-09-13T12:26:40.000Z",
        "last_fetched": "2020-09-13T12:26:40.005Z",
        "is_partial": False,
    }


@pytest.mark.parametrize("seed", range(4))
def test_any_order_and_any_batches_give_one_result(store, tmp_path, seed):
    """Rows in any order, cut anywhere and read twice: the same as one pass over the final table."""
    rng = random.Random(seed)
    rows = [
        row(
            rng.choice([ALICE, BOB, f"{CAROL}/"]),
            rng.choice(
                [
                    url(V1),
                    url(V1, host="b.example.org"),
                    url(V2),
                    "flat/x.nc",
                    "https://c.example.org/flat/x.nc",
                ]
            ),
            T0 + rng.randrange(4),
            is_whole=rng.random() < 0.3,
        )
        for _ in range(60)
    ]
    right = SqliteDownloads(tmp_path / "right.db")
    right.advance(reading(*rows))
    shuffled = rng.sample([*rows, *rows[::3]], 80)
    while shuffled:
        size = rng.randrange(1, 30)
        store.advance(reading(*shuffled[:size]))
        shuffled = shuffled[size:]
    for user in (ALICE, BOB, CAROL):
        assert store.export(user) == right.export(user)
    right.close()


def test_position_and_rows_are_one_step(open_store):
    """What was read is there after a restart with its position; the same again changes nothing, counts included."""
    store = open_store()
    assert store.position() == LogPosition()
    read = reading(row(ALICE, url(V1)), row("<no-id>", url(V1)), row(None, url(V1)), row(BOB, "http://\0/"))
    store.advance(read)
    before = store.counts()
    store.advance(read)
    store.close()
    again = open_store()
    assert again.position() == read.position
    assert again.counts() == before
    assert (before.rows, before.nobody, before.unreadable, before.downloads) == (4, 2, 1, 1)


def test_nothing_of_a_step_that_fails_stays(store, monkeypatch):
    """Rows are written, then the disk says no: neither rows nor position are there."""
    monkeypatch.setattr(LogPosition, "encode", lambda self: {})
    with pytest.raises(DownloadsError):
        store.advance(reading(row(ALICE, url(V1))))
    monkeypatch.undo()
    assert store.position() == LogPosition()
    assert store.counts().downloads == 0


def test_a_broken_transfer_is_a_download_until_it_is_whole(store):
    """What looks failed (a resumed one does) is partial and matches; the flip makes it whole, and counts no row."""
    begun = row(ALICE, url(V1), is_whole=False)
    store.advance(reading(begun))
    assert store.export(ALICE)["downloads"][0]["is_partial"]
    assert set(found(store, retracted(V1))) == {ALICE}
    store.advance(reading(attrs.evolve(begun, is_whole=True), reread=[begun.id]))
    assert not store.export(ALICE)["downloads"][0]["is_partial"]
    assert store.counts().rows == 1


def test_a_retraction_concerns_who_downloaded_that_version_before(store):
    """Neither other versions nor what came after; a second fetch afterwards does not hide the first."""
    store.advance(
        reading(
            row(ALICE, url(V1)),
            row(ALICE, url(V1), T0 + 9000),
            row(BOB, url(V2)),
            row(CAROL, url(V1), T0 + 5000),
        )
    )
    assert set(found(store, retracted(V1))) == {ALICE}
    # Until this node knew of it, nobody could be warned here.
    assert set(found(store, retracted(V1), known_ms=T0 + 6000)) == {ALICE, CAROL}
    assert set(found(store, attrs.evolve(retracted(V2), kind=EventType.REINSTATED))) == {BOB}


def test_a_new_version_concerns_holders_of_lower_ones(store):
    """Any lower version counts; who holds the successor, or a later one, knows already."""
    low = DatasetId(MASTER, "9")
    store.advance(
        reading(
            row(ALICE, url(V1)),
            row(BOB, url(V1)),
            row(BOB, url(V2), T0 + 10**9),
            row(CAROL, url(low)),
            row("https://other.example.org/openid/dave", url(V1)),
            row("https://other.example.org/openid/dave", url(V3)),
            row("https://other.example.org/openid/erin", url(OTHER)),
        )
    )
    matches = found(store, new_version(V2, V1))
    assert set(matches) == {ALICE, CAROL}
    assert matches[CAROL].datasets == (low,)
    # A version that is named counts though its number is higher.
    assert set(found(store, new_version(low, V1))) == {ALICE}


def test_unchanged_files_are_marked_and_alone_are_no_news(store):
    """Only files of the version before were compared."""
    names = NAMES[:2]
    store.advance(
        reading(
            *(row(ALICE, url(V2, name)) for name in names),
            row(BOB, url(V2, names[0])),
            row(CAROL, url(V1, names[0])),
        )
    )
    matches = found(store, new_version(V3, V2, V1, unchanged=[names[0]]))
    assert set(matches) == {ALICE, CAROL}
    assert [(file.name, file.is_unchanged) for file in matches[ALICE].files] == [
        (names[1], False),
        (names[0], True),
    ]
    assert not matches[CAROL].files[0].is_unchanged


def test_an_erratum_is_one_match_a_user(store, monkeypatch):
    """Thousands of datasets, one match; files and datasets are named up to their bounds and all counted."""
    monkeypatch.setattr("esgf_gossip.tracking.matching.BATCH_MATCHES", 2)
    many = [DatasetId(MASTER.replace("CESM2", f"CESM{number}"), "20190101") for number in range(150)]
    where = [
        url(one, f"tas_Amon_CESM{number}_historical_r1i1p1f1_gn_1850.nc") for number, one in enumerate(many)
    ]
    store.advance(
        reading(
            *(row(ALICE, one, T0 + number) for number, one in enumerate(where)),
            row(BOB, where[3]),
            row(CAROL, where[4]),
        )
    )
    erratum = Change(b"e" * 32, ERRATUM, (*many, OTHER), T0 + 1000, title="wrong units", severity="high")
    batches = list(store.match([erratum, retracted(many[4])]))
    assert [len(batch) for batch in batches] == [2, 1, 2]
    alice = found(store, erratum)[ALICE]
    assert (len(alice.files), alice.file_count, alice.last_fetched_ms) == (FILES_NAMED, 150, T0 + 149)
    assert (len(alice.datasets), alice.dataset_count) == (DATASETS_NAMED, 150)
    assert [file.fetched_ms for file in alice.files] == [T0 + 149 - number for number in range(FILES_NAMED)]


def test_what_is_published_says_more_than_folders(store):
    """First what publishers said of a URL, then the publisher's tables, then folders."""
    place = "https://data.example.org/thredds/fileServer/flat/tas.nc"
    store.learn([(V1, SeenFile("tas.nc", (place, f"{place}|application/netcdf|HTTPServer")))])
    store.take_published(
        PublishedFiles(
            ((f"{MASTER}#20200101", "flat/tas.nc"), (OTHER.instance_id, "flat/pr.nc")), 7, has_more=False
        )
    )
    assert store.published_to() == 7
    store.advance(
        reading(
            row(ALICE, place + "?token=x", T0),
            row(BOB, "https://alias.example.org/thredds/fileServer/flat/tas.nc", T0),
            row(BOB, "flat/pr.nc", T0),
        )
    )
    assert [one["dataset"] for one in store.export(ALICE)["downloads"]] == [V1.instance_id]
    assert [one["dataset"] for one in store.export(BOB)["downloads"]] == [OTHER.instance_id, V2.instance_id]


def test_what_was_unresolved_is_resolved_when_more_is_known(store):
    """Nothing of it is lost meanwhile; two who claim one URL, or a version of a later day, resolve nothing."""
    where = "https://data.example.org/thredds/fileServer/flat/tas.nc"
    store.advance(
        reading(row(ALICE, where, T0, is_whole=False), row(ALICE, where, T0 + 5), row(BOB, "flat/tas.nc"))
    )
    assert (store.counts().unresolved, store.counts().downloads) == (2, 0)
    assert store.export(ALICE)["unresolved"][0]["path"] == "flat/tas.nc"
    later = DatasetId(MASTER, "20220101")
    assert (
        store.learn(
            [(later, SeenFile("tas.nc", ("https://third.example.org/thredds/fileServer/flat/tas.nc",)))]
        )
        == 0
    )
    assert store.learn([(V1, SeenFile("tas.nc", (where,)))]) == 1
    held = store.export(ALICE)
    assert [(one["dataset"], one["is_partial"]) for one in held["downloads"]] == [(V1.instance_id, False)]
    assert held["unresolved"] == []
    # The log names no host for it, and two hosts say two things.
    assert len(store.export(BOB)["unresolved"]) == 1
    assert store.learn([(OTHER, SeenFile("tas.nc", (where,)))]) == 0
    store.advance(reading(row(CAROL, where, T0)))
    assert len(store.export(CAROL)["unresolved"]) == 1


def test_a_url_that_a_version_took_over_is_the_newer_ones(store):
    """Flat folders: the same URL, a new version of the same dataset."""
    where = "https://data.example.org/flat/tas.nc"
    store.learn([(V1, SeenFile("tas.nc", (where,)))])
    store.advance(reading(row(ALICE, where, T0 - 4 * 10**10)))
    store.learn([(V2, SeenFile("tas.nc", (where,)))])
    store.learn([(V1, SeenFile("tas.nc", (where,)))])
    store.advance(reading(row(BOB, where, T0)))
    assert set(found(store, new_version(V2, V1))) == {ALICE}
    assert [one["dataset"] for one in store.export(BOB)["downloads"]] == [V2.instance_id]


def test_an_erased_user_stays_erased(store):
    """Nothing is left of what was downloaded until then, though the log still has it; what comes later counts."""
    rows = [row(ALICE, url(V1)), row(ALICE, "flat/x.nc"), row(BOB, url(V1))]
    store.advance(reading(*rows))
    assert store.erase(
        ALICE.upper().replace("/ESGF-IDP/OPENID/ALICE", "/esgf-idp/openid/alice/"), T0 + 50
    ) == {
        "downloads": 1,
        "unresolved": 1,
    }
    store.advance(reading(*rows))
    assert store.export(ALICE) == {"openid": ALICE, "downloads": [], "unresolved": []}
    assert (store.counts().users, store.counts().downloads) == (1, 1)
    store.advance(reading(row(ALICE, url(V1), T0 + 100)))
    assert len(store.export(ALICE)["downloads"]) == 1


def test_what_is_old_is_forgotten_in_steps(store, monkeypatch):
    """Downloads go by their last fetch, a bounded number at once; users who have none left go once a day."""
    monkeypatch.setattr(downloads, "FORGET_ROWS", 2)
    store.advance(
        reading(
            *(row(ALICE, url(V1, name), T0) for name in NAMES[:5]),
            row(ALICE, "flat/x.nc", T0),
            row(BOB, url(V1, NAMES[0]), T0),
            row(BOB, url(V1, NAMES[0]), T0 + 100),
        )
    )
    steps = 0
    while store.forget(T0 + 50):
        steps += 1
    assert steps == 2
    counts = store.counts()
    assert (counts.downloads, counts.unresolved, counts.users) == (1, 0, 1)
    assert set(found(store, retracted(V1))) == {BOB}
    # Users are looked through once a day.
    assert not store.forget(T0 + 150)
    assert (store.counts().downloads, store.counts().users) == (0, 1)
    assert not store.forget(T0 + 50 + downloads.SWEEP_EVERY_MS)
    assert store.counts().users == 0


def test_a_match_left_early_holds_up_nothing(store, monkeypatch):
    """Who takes one batch and goes leaves the store as it was."""
    monkeypatch.setattr("esgf_gossip.tracking.matching.BATCH_MATCHES", 1)
    store.advance(reading(row(ALICE, url(V1)), row(BOB, url(V1))))
    batches = store.match([retracted(V1)])
    assert len(next(batches)) == 1
    # While it is consumed, the log is read on.
    store.advance(reading(row(CAROL, url(V1))))
    batches.close()
    assert len(found(store, retracted(V1))) == 3


def test_a_file_is_private_and_damage_is_told(tmp_path):
    """Nobody else may read who downloaded what; a damaged file can be made anew."""
    path = tmp_path / "downloads.db"
    store = SqliteDownloads(path)
    store.advance(reading(row(ALICE, url(V1))))
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.glob("downloads.db*")} == {0o600}
    store.close()
    path.write_bytes(b"nothing that SQLite would know" * 99)
    with pytest.raises(DownloadsError, match=r"damaged .* made anew from the site's log"):
        SqliteDownloads(path)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (
            "DROP SCHEMA esgf_gossip_tracking CASCADE",
            "CREATE SCHEMA esgf_gossip_tracking AUTHORIZATION esgf_tracker",
        ),
        (
            "UPDATE esgf_gossip_tracking.state SET body = '2' WHERE name = 'layout'",
            "another version; upgrade",
        ),
    ],
)
def test_a_schema_that_is_missing_or_newer_is_told(server, tmp_path, change, error):
    """What to do about it is in the line."""
    new_schema(server)
    first = PostgresDownloads(address_of(server, TRACKER), password_file(tmp_path))
    first.counts()
    first.close()
    with server.superuser() as connection:
        connection.execute(change)
    store = PostgresDownloads(address_of(server, TRACKER), password_file(tmp_path))
    with pytest.raises(DownloadsError, match=error) as caught:
        store.position()
    assert len(str(caught.value).splitlines()) == 1
    store.close()
    new_schema(server)


def test_a_restarted_server_costs_one_try(server, tmp_path):
    """The first word to it is lost, and said once more; a server that is away is told in one line."""
    new_schema(server)
    store = PostgresDownloads(address_of(server, TRACKER), password_file(tmp_path))
    store.advance(reading(row(ALICE, url(V1))))
    assert set(found(store, retracted(V1))) == {ALICE}
    server.stop()
    with pytest.raises(DownloadsError, match=r"^\[tracking\] projection: ") as caught:
        store.counts()
    assert len(str(caught.value).splitlines()) == 1
    server.start()
    assert store.counts().downloads == 1
    server.stop()
    server.start()
    assert set(found(store, retracted(V1))) == {ALICE}
    store.close()
