"""The judgement of dataset events: the same leaves in any interleaving give the same, and no leaf breaks the ledger."""

import contextlib
import sqlite3

from hypothesis import given
from hypothesis import strategies as st

from esgf_gossip.tracking import ledger
from esgf_gossip.tracking.events import (
    CLAIMS,
    TOLD,
    Claim,
    DatasetEvent,
    EventType,
    encode_claim,
    encode_event,
)
from esgf_gossip.tracking.identity import DatasetId
from esgf_gossip.tracking.versions import versions_of
from esgf_gossip.tracking_room import LOG_SCRIPTS as SCRIPTS

ORIGINS = ("a.example", "b.example", "c.example", "d.example")
HOSTS = {origin: {origin} for origin in ORIGINS} | {"d.example": {"d.example", "e.example"}}
MASTERS = ("CMIP6.one.tas", "CMIP6.two.tas")
ANEW = len(ORIGINS)


def events(types, masters, data_nodes):
    """Return a strategy for events of these types, on datasets of these names and copies on these hosts."""
    return st.builds(
        DatasetEvent,
        st.sampled_from(sorted(types)),
        st.builds(DatasetId, st.sampled_from(masters), st.sampled_from("1112")),
        st.sampled_from(data_nodes),
        st.sampled_from([0, 0, 0, 1]),
        st.integers(0, 9),
    ).map(encode_event)


OTHERS = sorted(set(EventType) - CLAIMS)
ANYTHING = st.one_of(
    events(EventType, MASTERS, [*ORIGINS, "e.example"]),
    st.binary(max_size=9),
    st.builds(Claim, st.sampled_from([b"\x01" * 32, b"\x02" * 32]), st.booleans()).map(encode_claim),
)


def leaves(origin):
    """Return a strategy for what an origin says: mostly of its own copies, and claims of one dataset alone."""
    number = ORIGINS.index(origin)
    own = events(OTHERS, MASTERS, [origin])
    votes = events([EventType.REPLICATED, EventType.RETRACTED], MASTERS, [origin])
    claims = events(EventType, [MASTERS[number]], [origin]) if number < len(MASTERS) else own
    return st.sampled_from([claims, claims, claims, own, votes, votes, votes, ANYTHING]).flatmap(
        lambda one: one
    )


LEAVES = leaves(ORIGINS[0])
LOGS = st.tuples(*(st.lists(leaves(origin), min_size=4, max_size=9) for origin in ORIGINS))
# Whose log is read on, how far; or whose is read anew.
ORDER = st.lists(st.tuples(st.integers(0, 2 * ANEW - 1), st.integers(1, 4)), min_size=6, max_size=25)


class Reader:
    """One node that reads logs into a ledger in memory."""

    def __init__(self):
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        for script in SCRIPTS.values():
            self.connection.executescript(script)
        self.places = {
            origin: ledger.begin(self.connection, origin, 1, 0, HOSTS[origin]) for origin in ORIGINS
        }

    def read(self, origin, log, most=99):
        """Take the next leaves of a log."""
        place = self.places[origin]
        taken = ledger.take(self.connection, place, 1, log[place.next : place.next + most], ORIGINS[1], 7)
        self.places[origin] = taken.place

    def begin(self, origin):
        """Read a log from its start."""
        self.places[origin] = ledger.begin(self.connection, origin, 2, 0, HOSTS[origin])

    def finish(self, logs):
        """Read all logs to their ends, and forget what only earlier rounds said."""
        for origin, log in zip(ORIGINS, logs, strict=True):
            self.read(origin, log)
            while not self.places[origin].is_whole:
                self.places[origin] = ledger.sweep(self.connection, self.places[origin], ORIGINS[1], 7).place

    def picture(self, master):
        """Return what the ledger makes of a dataset: verdicts, how its versions stand, alerts."""
        rows = self.connection.execute(
            "SELECT origin, change_key, data_node, counts, verdict FROM event WHERE master_id = ?", (master,)
        )
        alerts = self.connection.execute(
            "SELECT version, data_node FROM replica_alert WHERE master_id = ?", (master,)
        )
        return set(rows), versions_of(self.connection, master), set(alerts)

    def told(self):
        """Return the keys of events that count and users are told of, and those noted as changes."""
        kinds = ", ".join(f"'{kind.value}'" for kind in TOLD)
        counted = self.connection.execute(
            f"SELECT change_key FROM event WHERE counts = 1 AND type IN ({kinds})"
        )
        return {key for (key,) in counted}, {
            key for (key,) in self.connection.execute("SELECT key FROM change")
        }


def claimants(reader, master):
    """Return who claims an original of a dataset and is certified for where it is."""
    kinds = ", ".join(f"'{kind.value}'" for kind in CLAIMS)
    rows = reader.connection.execute(
        f"SELECT origin, data_node FROM event WHERE master_id = ? AND type IN ({kinds})", (master,)
    )
    return {origin for origin, data_node in rows if data_node in HOSTS[origin]}


@given(LOGS, ORDER)
def test_any_interleaving_comes_to_the_same(logs, order):
    """Whatever came first, in whatever pieces, or again: where nothing is contested all nodes judge alike."""
    plain, other = Reader(), Reader()
    with contextlib.closing(plain.connection), contextlib.closing(other.connection):
        plain.finish(logs)
        for choice, most in order:
            number = choice % ANEW
            if choice >= ANEW:
                other.begin(ORIGINS[number])
            other.read(ORIGINS[number], logs[number], most)
        other.finish(logs)
        for master in MASTERS:
            if len(claimants(plain, master)) < 2:
                assert other.picture(master) == plain.picture(master)
        for reader in (plain, other):
            counted, noted = reader.told()
            assert counted <= noted
            tally = dict(reader.connection.execute("SELECT type, counted FROM tally WHERE counted"))
            assert tally == dict(
                reader.connection.execute("SELECT type, count(*) FROM event WHERE counts GROUP BY type")
            )
        assert set(plain.connection.execute("SELECT token, origin, is_sent FROM claim")) == set(
            other.connection.execute("SELECT token, origin, is_sent FROM claim")
        )


@given(st.lists(st.one_of(LEAVES, st.binary(max_size=40)), max_size=20), st.data())
def test_no_leaf_breaks_the_ledger(leaves, data):
    """Whatever an origin writes, its neighbours' events count; bytes of events turned over too."""
    hostile = []
    for leaf in leaves:
        turned = bytearray(leaf)
        if turned and data.draw(st.booleans()):
            turned[data.draw(st.integers(0, len(turned) - 1))] ^= data.draw(st.integers(1, 255))
        hostile.append(bytes(turned))
    reader = Reader()
    with contextlib.closing(reader.connection):
        event = DatasetEvent(EventType.PUBLISHED, DatasetId("CMIP6.three.tas", "1"), ORIGINS[1], 0, 1)
        reader.finish([hostile, [encode_event(event)], [], []])
        assert [one.origin for one in versions_of(reader.connection, "CMIP6.three.tas")] == [ORIGINS[1]]
