"""Keepers of documents on real cores: what one writes all have, a conflict stays until a merge, roles decide."""

from types import SimpleNamespace

import attrs
import pytest

from esgf_gossip.core import log_effects as lx
from esgf_gossip.core import packing
from esgf_gossip.core.effects import DigestAccepted
from esgf_gossip.core.errors import WireError
from esgf_gossip.core.merkle import BLOCK_LEAVES, Tree
from esgf_gossip.document_desk import DocumentError
from esgf_gossip.documents.leaves import BODY_BYTES, LOG, PARENTS, PieceLeaf, decode_leaf
from esgf_gossip.documents.names import parse_name
from helpers.archivists import NAME, A, B, C, Offices, settings
from helpers.writers import ROLES, put_leaves

OTHER = parse_name("CORDEX/search/facets.ini")
REFUSED = {
    "too large": (lambda desk: desk.put(NAME, b"x" * (BODY_BYTES + 1)), "at most 65536"),
    "no role": (lambda desk: desk.put(OTHER, b"x"), "--role document-writer.cordex"),
    "nothing to delete": (lambda desk: desk.put(NAME, None), "to delete"),
    "not there": (lambda desk: desk.put(NAME, b"x", "0" * 64), "there is no document"),
    "nothing to read": (lambda desk: desk.find(NAME), "there is no document"),
}


@pytest.fixture
def offices():
    """Three linked nodes that may write documents of CMIP6."""
    return Offices()


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_changes_nothing(offices, what):
    """A refusal says what and what to do; nothing was written."""
    act, said = REFUSED[what]
    with pytest.raises(DocumentError, match=said):
        act(offices[A].desk)
    assert offices.network.hosts[A].node.logs.held.get(A, LOG) is None


def test_a_document_and_its_changes_are_everywhere(offices):
    """Put, changed by another, deleted by a third: all have the same, and each change is told once."""
    body = bytes(range(256)) * 200
    first = offices[A].desk.put(NAME, body)
    assert first.is_new
    offices.settle()
    assert [office.text() for office in offices.by_name.values()] == [body] * 3
    second = offices[B].desk.put(NAME, b"shorter", first.version.id.hex()[:8])
    assert not offices[B].desk.put(NAME, b"shorter").is_new
    offices.settle()
    assert [office.text() for office in offices.by_name.values()] == [b"shorter"] * 3
    with pytest.raises(DocumentError, match="has changed since"):
        offices[A].desk.put(NAME, b"late", first.version.id.hex())
    with pytest.raises(DocumentError, match="is there already"):
        offices[A].desk.put(NAME, b"new", "none")
    assert offices[C].desk.body(offices[C].desk.find(NAME, first.version.id.hex()[:12])) == body
    offices[C].desk.put(NAME, None)
    offices.settle()
    assert offices.agree()
    document = offices[A].library.get(NAME)
    assert document.is_deleted
    assert [version.author for version in document.history] == [C, B, A]
    with pytest.raises(DocumentError, match="is a deletion"):
        offices[A].text()
    offices[A].desk.put(NAME, b"back", "none")
    offices.settle()
    assert offices[B].text() == b"back"
    told = [data["heads"][0]["author"] for event, data in offices[B].told if event == "document-changed"]
    assert told == [A, B, C, A]
    assert second.document.generation(second.version) == 2


def test_a_body_is_carried_once_by_its_author(offices):
    """Going back to an earlier content costs one leaf."""
    body = b"much " * 3000
    for content in (body, b"little", body):
        offices[A].desk.put(NAME, content)
    offices.settle()
    leaves = offices.network.hosts[B].disk.leaves[A, LOG].values()
    assert sum(isinstance(decode_leaf(leaf), PieceLeaf) for leaf in leaves) == 4 + 1
    assert offices[B].text() == body


def test_two_writers_cut_from_each_other_conflict_until_a_merge(offices):
    """Both versions are kept and shown in one order everywhere; a plain put is refused, one merge ends it everywhere."""
    offices[A].desk.put(NAME, b"common")
    offices.settle()
    offices.network.faults.partition([A], [B, C])
    offices.settle(5)
    offices[A].desk.put(NAME, b"of a")
    offices[B].desk.put(NAME, b"of b")
    offices.settle(5)
    assert (offices[A].text(), offices[C].text()) == (b"of a", b"of b")
    offices.network.faults.heal()
    offices.settle(600)
    assert offices.agree()
    document = offices[C].library.get(NAME)
    assert {head.author for head in document.heads} == {A, B}
    assert [offices[C].desk.body(head) for head in document.heads] in (
        [b"of a", b"of b"],
        [b"of b", b"of a"],
    )
    assert offices[C].keeper.counts().conflict == 1
    for refused in (lambda: offices[A].desk.put(NAME, b"mine"), lambda: offices[A].desk.put(NAME, None)):
        with pytest.raises(DocumentError, match=f"in conflict.* of {A}.*--merge"):
            refused()
    with pytest.raises(DocumentError, match="in conflict"):
        offices[B].text()
    assert ("document-changed", True) in [(event, data["conflict"]) for event, data in offices[C].told]
    offices[C].desk.put(NAME, b"of both", document.heads[1].id.hex(), merge=True)
    offices.settle()
    assert offices.agree()
    assert [office.text() for office in offices.by_name.values()] == [b"of both"] * 3


def test_leaves_of_a_writer_without_the_role_are_kept_and_never_count():
    """Every receiver judges by the certificate; when it is granted the role the log is read again, and the other way."""
    offices = Offices(without=(C,))
    offices.network.append(C, LOG, put_leaves(NAME, b"not mine to say"))
    offices[A].desk.put(parse_name("CMIP6/a/b"), b"fine")
    offices.settle()
    for office in offices.by_name.values():
        assert office.library.get(NAME) is None
        refused = {one.author: [refusal.reason for refusal in one.refusals] for one in office.library.authors}
        assert refused == {A: [], C: [f"the certificate of {C} has not the role document-writer.cmip6"]}
        assert office.keeper.counts().refused == 1
    with pytest.raises(DocumentError, match="has not the role"):
        offices[C].desk.put(NAME, b"again")

    offices.verifier.roles[C] = ROLES
    offices.network.publish(C, {"registration": b"with a new certificate"})
    offices.settle()
    assert offices.agree()
    assert offices[A].text() == b"not mine to say"
    offices.verifier.roles[C] = frozenset()
    offices.network.publish(C, {"registration": b"with an old one"})
    offices.settle()
    assert offices.agree()
    assert offices[A].library.get(NAME) is None
    assert offices[A].told[-1] == (
        "document-changed",
        {"document": str(NAME), "conflict": False, "deleted": True, "heads": []},
    )


def test_a_restart_reads_what_the_disk_holds_and_tells_nothing(offices):
    """After a start documents are as before, without an event; others that were missed follow."""
    offices[A].desk.put(NAME, b"one")
    offices.settle()
    offices.network.stop(B)
    del offices.by_name[B]
    offices[A].desk.put(NAME, b"two")
    offices.settle()
    offices.network.start(B, [A])
    offices.open(B)
    for _ in range(5):
        offices.clock.advance(0)
    assert offices[B].text() == b"one"
    assert offices[B].told == []
    offices.settle(60)
    assert offices[B].text() == b"two"
    assert [event for event, _ in offices[B].told] == ["document-changed"]


def test_only_the_projects_wanted_are_kept(offices):
    """A node that subscribes to others' projects holds no document of this one, and cannot write it unseen."""
    offices[A].desk.put(NAME, b"one")
    offices.settle()
    office = offices.open(C, projects=("CORDEX",))
    offices.settle()
    assert office.library.names == []
    with pytest.raises(DocumentError, match="leaves CMIP6 out"):
        office.desk.document(NAME)
    with pytest.raises(DocumentError, match="leaves CMIP6 out"):
        office.desk.put(NAME, b"blind")
    office.keeper.replace(settings())
    offices.settle()
    assert office.text() == b"one"


def test_a_disk_that_fails_is_asked_again(offices):
    """While the disk gives nothing the documents stay as they were; then they follow."""
    offices[A].desk.put(NAME, b"one")
    offices.settle()
    offices[B].is_broken = True
    offices[A].desk.put(NAME, b"two")
    offices.network.run(10)
    offices.clock.advance(1)
    with pytest.raises(DocumentError, match="cannot be read"):
        offices[B].text()
    offices[B].is_broken = False
    for _ in range(3):
        offices.clock.advance(5)
    assert offices[B].text() == b"two"


def test_a_log_that_is_restarted_is_read_anew(offices):
    """When an origin's log is given up, what it said goes, and what comes in its place counts."""
    offices[A].desk.put(NAME, b"one")
    offices.settle()
    offices[B].keeper.notice(lx.LogRestarted(A, LOG))
    assert offices[B].library.get(NAME) is None
    offices.settle()
    assert offices[B].text() == b"one"
    offices.network.perform(
        offices.network.hosts[A],
        offices.network.hosts[A].node.append(LOG, [b"garbage"], offices.network.at()),
    )
    offices.settle()
    assert offices.agree()
    with pytest.raises(WireError):
        decode_leaf(b"garbage")
    assert offices[B].keeper.counts().refused == 1


def test_a_flood_of_refusals_is_told_sparingly(offices):
    """One member that writes what it may not fills no log: some lines, then one a minute with how many were left out."""
    told = []
    offices[B].keeper.log = SimpleNamespace(warn=lambda text, **fields: told.append(text), info=told.append)
    for number in range(40):
        offices.network.append(A, LOG, put_leaves(OTHER, b"%d" % number))
        offices.settle(2)
    assert 0 < len(told) < 30
    assert "{count} more lines on {subject} within a minute" in told
    (refused,) = [one for one in offices[B].library.authors if one.author == A]
    assert refused.refused_count == 40


def test_more_heads_than_one_version_can_follow_end_in_two_steps():
    """A merge takes as many as it can and says that it was not all; the next takes the rest."""
    offices = Offices(1)
    for number in range(PARENTS + 3):
        offices.network.append(A, LOG, put_leaves(NAME, b"head %d" % number))
    offices.settle(1)
    desk = offices[A].desk
    assert len(desk.document(NAME).heads) == PARENTS + 3
    assert desk.put(NAME, b"some", merge=True).document.is_conflict
    assert not desk.put(NAME, b"all", merge=True).document.is_conflict


def test_what_an_author_dropped_is_dropped_by_all_who_read_it(offices):
    """A node that had read the dropped leaves comes to the same as one that never saw them."""
    kept = parse_name("CMIP6/a/kept")
    offices[A].desk.put(NAME, b"old")
    offices.network.append(A, LOG, [packing.pack([3, number]) for number in range(BLOCK_LEAVES)])
    offices[A].desk.put(kept, b"new")
    offices.settle(60)
    assert offices[B].library.names == [kept, NAME]
    host = offices.network.hosts[A]
    offices.network.perform(host, host.node.retain(LOG, BLOCK_LEAVES, offices.network.at()))
    offices.settle(60)
    assert [office.library.names for office in offices.by_name.values()] == [[kept]] * 3
    assert offices[C].text(kept) == b"new"


def test_a_log_that_became_shorter_is_read_anew(offices):
    """After a disk failed the core may hold fewer leaves than were read: what is gone does not count."""
    offices[A].desk.put(NAME, b"one")
    offices[A].desk.put(NAME, b"two")
    offices.settle()
    logs = offices.network.hosts[B].node.logs.held
    leaves = list(offices.network.hosts[B].disk.leaves[A, LOG].values())
    logs.put((A, LOG), attrs.evolve(logs.get(A, LOG), tree=Tree().extended(leaves[:2])))
    offices[B].keeper.notice(DigestAccepted(A, 1, 1, frozenset(), leaving=False))
    for _ in range(3):
        offices.clock.advance(0)
    assert offices[B].text() == b"one"
