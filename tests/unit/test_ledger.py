"""The ledger of dataset events: who may say what, how versions stand, bounds, and what people mean by a word."""

import attrs
import pytest

from esgf_gossip.storage.journal_thread import AtOnce
from esgf_gossip.tracking import ledger
from esgf_gossip.tracking.changes import changes_after
from esgf_gossip.tracking.database import FILE_NAME, TrackingDatabase
from esgf_gossip.tracking.event_lists import accept, counts, quarantined
from esgf_gossip.tracking.events import EventType, encode_event
from esgf_gossip.tracking.hand import RefusedError, Word, events_of
from esgf_gossip.tracking.identity import DatasetId
from esgf_gossip.tracking.versions import Replica, State, status_of, successor_of, versions_of
from esgf_gossip.tracking_room import LOG_SCRIPTS as SCRIPTS
from helpers.registrars import MASTER, V1, V2, V3, A, B, C, an_event


class Book:
    """A ledger in a file, and the places of the logs that are read into it."""

    def __init__(self, folder):
        self.database = TrackingDatabase(folder / FILE_NAME, SCRIPTS, AtOnce())
        self.places = {}

    def hear(self, origin, *events, hosts=()):
        """Let the next leaves of a log come in; return what came of it."""
        if origin not in self.places:
            self.places[origin] = self.database.now(ledger.begin, origin, 1, 0, {origin, *hosts})
        leaves = [encode_event(one) for one in events]
        taken = self.database.now(ledger.take, self.places[origin], 1, leaves, A, 5)
        self.places[origin] = taken.place
        return taken

    def why(self):
        """Return what does not count: who said it, and why."""
        return [(one.origin, one.verdict) for one in reversed(self.database.now(quarantined))]

    def stands(self, dataset=V1):
        """Return how a version stands; what replaces it is the same where it is asked for alone."""
        status = self.database.now(status_of, dataset)
        assert self.database.now(successor_of, dataset) == status.successor
        return status

    def told(self):
        """Return the changes users are told of."""
        return [one for _, one in self.database.now(changes_after, 0, 99)]

    def means(self, kind, dataset=V1, data_node=A, **words):
        """Return the events that a word at A comes to: type, epoch."""
        word = Word(EventType(kind), dataset, data_node, 9, **words)
        return [(one.type.value, one.epoch) for one in self.database.now(events_of, A, word)]


@pytest.fixture
def book(tmp_path):
    """An empty ledger."""
    made = Book(tmp_path)
    yield made
    made.database.close()


def test_a_new_version_carries_what_users_are_told(book):
    """Successor, versions replaced, files that did not change, the reason, who said it."""
    event = an_event("new-version", V2, supersedes=(V1.version,), unchanged=(b"12345678",), reason="more")
    taken = book.hear(A, event)
    assert (taken.changes, [one.number for one in taken.counted]) == (1, [1])
    (change,) = book.told()
    assert (change.key, change.successor, change.supersedes) == (event.change_key, V2, (V1.version,))
    assert (change.unchanged, change.reason, change.origin) == (frozenset({b"12345678"}), "more", A)
    assert change.datasets == (V2,)
    assert book.stands(V1).state is State.SUPERSEDED
    assert book.stands(V3).state is State.UNKNOWN


@pytest.mark.parametrize("kind", ["published", "new-version"])
def test_of_two_that_claim_an_original_the_first_seen_stays(book, kind):
    """The second is contested, whatever it says next; with an operator's word it counts too."""
    book.hear(A, an_event(kind))
    book.hear(B, an_event(kind, V1, B), an_event("retracted", V1, B))
    assert book.why() == [
        (B, f"contested: the original of this version is {A}'s"),
        (B, f"only {A}, which holds the original, may say this"),
    ]
    assert len(book.told()) == (kind == "new-version")
    assert book.stands().origin == A


def test_only_who_has_the_originals_replaces_them(book):
    """Another's version of the dataset may be on record, its new version is contested."""
    book.hear(A, an_event("published"))
    book.hear(B, an_event("published", V2, B), an_event("new-version", V3, B))
    assert book.why() == [(B, f"contested: the originals of this dataset are {A}'s")]
    assert [one.origin for one in book.database.now(versions_of, MASTER)] == [A, B]


def test_what_stands_before_its_original_does_not_count_until_it_is_said_again(book):
    """The order in the log is what its author says of the order of things."""
    book.hear(A, an_event("retracted"), an_event("published"))
    assert book.why() == [(A, f"no original on {A} stands before it in the log of {A}")]
    book.hear(A, an_event("retracted"))
    assert (book.why(), book.stands().state) == ([], State.RETRACTED)


def test_a_retraction_waits_for_its_original_or_for_a_quorum(book):
    """One of two holders is not enough, two are; when the original comes its holder alone decides."""
    for origin in (B, C):
        book.hear(origin, an_event("replicated", V1, origin))
    book.hear(B, an_event("retracted", V1, B))
    assert "1 of 2 nodes with a replica" in book.why()[0][1]
    book.hear(C, an_event("retracted", V1, C))
    assert (book.why(), book.stands().state, len(book.told())) == ([], State.RETRACTED, 1)
    assert book.stands().replicas == (Replica(B, B), Replica(C, C))
    book.hear(A, an_event("published"))
    assert [origin for origin, _ in book.why()] == [B, C]
    assert (book.stands().state, len(book.told())) == (State.CURRENT, 1)


def test_who_removed_its_replica_before_has_no_say(book):
    """Neither for nor against; what was said before the removal stays said."""
    for origin in (B, C, "d.example.org"):
        book.hear(origin, an_event("replicated", V1, origin))
    book.hear("d.example.org", an_event("replica-removed", V1, "d.example.org"))
    book.hear("e.example.org", an_event("retracted", V1, "e.example.org"))
    for origin in (B, C):
        book.hear(origin, an_event("retracted", V1, origin), an_event("replica-removed", V1, origin))
    assert book.why() == [
        ("e.example.org", "nobody has the original on record, and e.example.org no replica")
    ]
    assert book.stands().state is State.RETRACTED


def test_a_retraction_holds_until_a_higher_epoch(book):
    """A record published once more does not undo it; reinstated and retracted again are changes of their own."""
    book.hear(A, an_event("published"), an_event("retracted"), an_event("published"))
    assert book.stands().state is State.RETRACTED
    book.hear(A, an_event("reinstated", epoch=1))
    assert (book.stands().state, book.stands().epoch) == (State.CURRENT, 1)
    book.hear(A, an_event("retracted", epoch=1))
    assert book.stands().state is State.RETRACTED
    assert [one.kind for one in book.told()] == ["retracted", "reinstated", "retracted"]


def test_the_newest_that_lives_is_the_successor(book):
    """Of three versions the last is retracted: the first is replaced by the second, the second by nothing that holds."""
    book.hear(A, an_event("published"), an_event("new-version", V2), an_event("new-version", V3))
    assert book.stands(V1).successor == V3
    book.hear(A, an_event("retracted", V3))
    assert [(one.state.value, one.successor) for one in book.database.now(versions_of, MASTER)] == [
        ("superseded", V2),
        ("superseded", None),
        ("retracted", None),
    ]


def test_an_unpublished_original_can_come_back(book):
    """It is gone without a fault, and there again when it is published."""
    book.hear(A, an_event("published"), an_event("unpublished"))
    assert (book.stands().state, book.told()) == (State.UNPUBLISHED, [])
    assert book.means("published") == [("published", 0)]
    book.hear(A, an_event("published"))
    assert book.stands().state is State.CURRENT


def test_what_an_origin_may_say_is_bounded(book, monkeypatch):
    """Beyond so much of one dataset nothing is kept; of what does not count the oldest goes; both are counted."""
    monkeypatch.setattr(ledger, "ROWS_OF_DATASET", 3)
    monkeypatch.setattr(ledger, "QUARANTINED_OF_ORIGIN", 2)
    book.hear(A, *(an_event("published", DatasetId(MASTER, str(number))) for number in range(1, 6)))
    book.hear(B, *(an_event("published", f"CMIP6.x{number}.v1", A) for number in range(4)))
    found = book.database.now(counts)
    assert (found.events["published"], found.quarantined, found.dropped) == (3, 2, 2 + 2)
    assert [str(one.event.dataset) for one in book.database.now(quarantined)] == [
        "CMIP6.x3.v1",
        "CMIP6.x2.v1",
    ]


def test_a_certificate_can_name_many_data_nodes(book):
    """A site speaks for all hosts in its certificate; a copy on another is not its own."""
    book.hear(A, an_event("published", V1, "data.example.org"), hosts=["data.example.org"])
    assert book.stands().data_node == "data.example.org"
    book.hear(A, an_event("retracted", V1, A))
    assert book.why() == [(A, f"no original on {A} stands before it in the log of {A}")]


def test_by_hand_a_word_means_what_people_expect(book):
    """Retract what is not on record: it is put on record first; words that are so already write nothing."""
    assert book.means("retracted") == [("published", 0), ("retracted", 0)]
    book.hear(A, an_event("published"), an_event("retracted"))
    assert book.means("retracted") == []
    assert book.means("reinstated") == [("reinstated", 1)]
    book.hear(A, an_event("reinstated", epoch=1))
    assert book.means("reinstated") == []
    assert book.means("published") == []
    assert book.means("retracted") == [("retracted", 1)]
    assert book.means("new-version", V2) == [("new-version", 0)]
    assert book.means("unpublished") == [("unpublished", 1)]
    assert book.means("replicated", V2) == [("replicated", 0)]


@pytest.mark.parametrize(
    ("kind", "dataset", "words", "why"),
    [
        ("published", V2, {}, f"the original of {V2} is {B}'s"),
        ("retracted", V2, {}, f"is {B}'s, on {B}: only that node"),
        ("published", V1, {}, "is retracted; say reinstate"),
        ("replicated", V1, {}, "has the original"),
        ("replica-removed", V2, {}, "no replica of"),
        ("unpublished", V3, {}, "no original of"),
        ("reinstated", V3, {}, "is not on record here"),
        ("new-version", "CMIP6.new.v2", {}, "name those it replaces with --supersedes"),
        ("new-version", V3, {"supersedes": (V3.version,)}, "cannot replace version"),
        ("new-version", "CMIP6.other.v2", {}, f"the originals of CMIP6.other are {B}'s"),
    ],
)
def test_by_hand_what_would_count_nowhere_is_refused(book, kind, dataset, words, why):
    """In one line that says why, and what to do."""
    book.hear(A, an_event("published"), an_event("retracted"))
    book.hear(B, an_event("published", V2, B), an_event("published", "CMIP6.other.v1", B))
    event = an_event(kind, dataset)
    with pytest.raises(RefusedError, match=why) as caught:
        book.means(kind, event.dataset, **words)
    assert len(str(caught.value).splitlines()) == 1


def test_by_hand_who_counts_as_a_holder_too_says_what_it_likes_of_its_copy(book):
    """B claimed it first; what A's operator let count makes A a holder as well: each word counts that is not refused."""
    book.hear(B, an_event("published", V1, B))
    book.hear(A, an_event("published"), hosts=["other.example.org"])
    with pytest.raises(RefusedError, match="only that node may say this"):
        book.means("retracted")
    book.database.now(accept, an_event("published").change_key.hex(), A, 5)
    assert book.means("published") == []
    for kind, epoch, state in (
        ("retracted", 0, State.RETRACTED),
        ("reinstated", 1, State.CURRENT),
        ("unpublished", 1, State.CURRENT),
        ("published", 0, State.CURRENT),
    ):
        assert book.means(kind) == [(kind, epoch)]
        book.hear(A, an_event(kind, epoch=epoch))
        assert book.why() == []
        assert book.stands().state is state
    # What would not count is refused still: a copy elsewhere, another claim.
    for kind, dataset, data_node in (
        ("retracted", V1, "other.example.org"),
        ("published", V1, "other.example.org"),
        ("new-version", V2, A),
    ):
        with pytest.raises(RefusedError, match="only that node may say this"):
            book.means(kind, dataset, data_node)


def test_a_vote_is_said_alone(book):
    """Who holds a replica of what nobody has on record claims no original by retracting it."""
    book.hear(A, an_event("replicated"))
    assert book.means("retracted") == [("retracted", 0)]


def test_a_reading_is_whole_or_nothing(book):
    """The place moves with the events and the changes, or none of them does."""
    book.hear(A, an_event("published"))
    place = book.places[A]

    def half(connection):
        ledger.take(connection, place, 1, [encode_event(an_event("retracted"))], A, 5)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        book.database.now(half)
    assert (book.database.now(ledger.places), book.told()) == ([place], [])
    book.hear(A, an_event("retracted"))
    assert book.database.now(ledger.places) == [attrs.evolve(place, next=2, last=book.places[A].last)]
