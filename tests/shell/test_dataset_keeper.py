"""Keepers of dataset events on real cores: what one says all have, forgeries count nowhere, nothing is said twice."""

import attrs
import pytest

from esgf_gossip import dataset_reader
from esgf_gossip.core import log_effects as lx
from esgf_gossip.dataset_keeper import DatasetError
from esgf_gossip.sim.trust import PlainSigner
from esgf_gossip.storage.journal_thread import AtOnce
from esgf_gossip.tracking import copies, foreign_claims
from esgf_gossip.tracking.claims import claimants, is_sent
from esgf_gossip.tracking.copies import Copy
from esgf_gossip.tracking.database import TrackingError
from esgf_gossip.tracking.events import LOG, Claim, encode_event
from esgf_gossip.tracking.versions import State
from helpers.registrars import V1, V2, V3, A, B, C, Registries, an_event


@pytest.fixture
def nodes():
    """Three linked nodes with a keeper each."""
    registries = Registries()
    yield registries
    registries.end()


def test_what_a_node_says_counts_everywhere_once(nodes):
    """Published, replaced, retracted: one change each on every node, and nothing is written twice."""
    assert nodes.say(A, "published") == ["published"]
    assert nodes.say(A, "published") == []
    assert nodes.say(A, "new-version", V2) == ["new-version"]
    assert nodes.say(A, "retracted", V2, reason="wrong units") == ["retracted"]
    assert nodes.say(A, "retracted", V2) == []
    assert nodes.agree()
    for node in nodes.by_name.values():
        assert node.changes() == [("new-version", str(V2)), ("retracted", str(V2))]
        assert (node.status(V1).state, node.status(V1).successor) == (State.SUPERSEDED, None)
        assert (node.status(V2).state, node.status(V2).reason) == (State.RETRACTED, "wrong units")
        assert [one["type"] for one in node.told] == ["published", "new-version", "retracted"]
        assert node.changed == 2
    assert nodes.say(A, "reinstated", V2) == ["reinstated"]
    assert nodes.say(A, "reinstated", V2) == []
    assert nodes[C].status(V1).successor == V2
    assert nodes.say(A, "retracted", V2) == ["retracted"]
    assert nodes[B].changes()[2:] == [("reinstated", str(V2)), ("retracted", str(V2))]


def test_a_forged_event_is_in_quarantine_everywhere(nodes):
    """Its own daemon refuses to say it; said all the same, every node judges it by the certificate."""
    nodes.say(A, "published")
    for kind in ("retracted", "published"):
        with pytest.raises(DatasetError, match=f"does not name {A}, .* --dns {A}"):
            nodes.say(C, kind, data_node=A)
    nodes.network.append(C, LOG, [encode_event(an_event("retracted", V1, A)), b"garbage"])
    nodes.settle()
    for node in nodes.by_name.values():
        assert node.quarantine() == [("retracted", C, f"the certificate of {C} does not name {A}")]
        assert node.status().state is State.CURRENT
        assert node.changes() == []
        assert (node.keeper.counts().quarantined, node.keeper.counts().unreadable) == (1, 1)


def test_a_certificate_that_names_the_host_lets_it_count(nodes):
    """What was said before counts with the new certificate, and no more without."""
    event = an_event("published", V1, "data.example.org")
    nodes.network.append(A, LOG, [encode_event(event)])
    nodes.settle()
    assert nodes[B].counted() == []
    nodes.network.verifier.hosts[A] = frozenset({"data.example.org"})
    nodes.network.publish(A, {"registration": b"with a new certificate"})
    nodes.settle()
    assert [node.counted() for node in nodes.by_name.values()] == [[("published", str(V1), A)]] * 3
    nodes.network.verifier.hosts[A] = frozenset()
    nodes.network.publish(A, {"registration": b"with an old one"})
    nodes.settle()
    assert [node.counted() for node in nodes.by_name.values()] == [[]] * 3


def test_who_holds_a_replica_is_alerted_until_it_is_gone(nodes):
    """B serves a copy of what A retracts: an alert at B alone, which ends with the copy."""
    nodes.say(A, "published")
    assert nodes.say(B, "replicated") == ["replicated"]
    with pytest.raises(DatasetError, match=f"the original of .* is {A}'s"):
        nodes.say(B, "retracted")
    nodes.say(A, "retracted")
    assert nodes[A].keeper.counts().stale_replicas == 0
    counts = nodes[B].keeper.counts()
    assert (counts.stale_replicas, counts.stale_names) == (1, (f"{V1}|{B}",))
    assert nodes.say(B, "replica-removed") == ["replica-removed"]
    assert nodes[B].keeper.counts().stale_replicas == 0
    assert nodes.say(B, "replica-removed") == []
    assert nodes.say(B, "replicated") == ["replicated"]
    assert nodes[B].keeper.counts().stale_replicas == 1


def test_who_claims_what_this_node_serves_is_contested_at_once(nodes):
    """A serves V1 since before tracking; B claims it first: an alarm at A, and A's claim for all, until A's operator decides."""
    for statement in f"{copies.SCRIPT};{foreign_claims.NODES_SCRIPT}".split(";"):
        nodes[A].database.now(lambda connection, sql=statement: connection.execute(sql))
    nodes[A].database.now(foreign_claims.put_data_nodes, [A])
    for dataset, number in ((V1, 1), (V2, 2)):
        known = Copy(0, dataset, A, is_replica=False, is_quiet=True, turn=number, published_ms=7)
        nodes[A].database.now(copies.put_copy, known)
    nodes.publish(B, an_event("published", V1, B), an_event("published", V2, B))
    counts = nodes[A].keeper.counts()
    assert (counts.foreign_claims, counts.foreign_claim_names) == (1, (f"{B} claims {V1}|{A}",))
    assert nodes[B].keeper.counts().foreign_claims == 0
    nodes.settle()
    for node in nodes.by_name.values():
        assert node.quarantine() == [("published", A, f"contested: the original of this version is {B}'s")]
    nodes.come(nodes[A].keeper.accept(an_event("published").change_key.hex()))
    assert nodes[A].keeper.counts().foreign_claims == 0


def test_an_orphan_is_retracted_by_most_of_its_holders():
    """Nobody has the original on record: two of three holders are enough, one is not."""
    nodes = Registries(4)
    try:
        for name in (A, B, C):
            nodes.say(name, "replicated")
        assert nodes.say(A, "retracted") == ["retracted"]
        assert "1 of 3 nodes with a replica" in nodes[B].quarantine()[0][2]
        nodes.say(B, "retracted")
        for node in nodes.by_name.values():
            assert node.quarantine() == []
            assert node.changes() == [("retracted", str(V1))]
            assert node.status().state is State.RETRACTED
    finally:
        nodes.end()


def test_a_late_joiner_and_a_restart_come_to_the_same(nodes):
    """A node with no file reads all logs; one that was away goes on where it was, and tells only what is new."""
    nodes.say(A, "published")
    nodes.close(B)
    nodes.say(A, "new-version", V2)
    nodes.settle()
    again = nodes.open(B)
    nodes.turn()
    assert nodes.agree()
    assert again.told == []
    assert again.changes() == [("new-version", str(V2))]
    nodes.say(A, "retracted", V2)
    assert [one["type"] for one in again.told] == ["retracted"]


def test_a_log_begun_anew_keeps_what_it_says_again(nodes):
    """What only the former log said goes; who was seen first stays, and no change is told twice."""
    nodes.say(A, "published")
    nodes.say(A, "retracted")
    nodes.say(A, "published", V3)
    nodes[B].keeper.notice(lx.LogRestarted(A, LOG))
    nodes.settle()
    assert nodes.agree()
    assert nodes[B].changes() == [("retracted", str(V1))]
    assert [one["type"] for one in nodes[B].told] == ["published", "retracted", "published"]
    logs = nodes.network.hosts[B].node.logs.held
    held = logs.get(A, LOG)
    logs.drop((A, LOG))
    nodes[B].keeper.notice(lx.LogRestarted(A, LOG))
    nodes.turn()
    assert (nodes[B].counted(), nodes[B].status().state) == ([], State.UNKNOWN)
    logs.put((A, LOG), attrs.evolve(held))
    nodes[B].keeper.notice(lx.LeavesAccepted(A, LOG, held.born, 0, 3))
    nodes.turn()
    assert nodes.agree()


def test_a_registry_from_a_backup_is_noticed(nodes):
    """The file of the tracker is newer than the log beside it: the log is read anew."""
    nodes.say(A, "published")
    nodes.say(A, "retracted")
    nodes.close(B)
    leaves = nodes.network.hosts[B].disk.leaves[A, LOG]
    leaves[1] = encode_event(an_event("published", V2, A))
    nodes.open(B)
    nodes.turn()
    assert sorted(nodes[B].counted()) == [("published", str(V1), A), ("published", str(V2), A)]


def test_what_a_revoked_node_said_goes(nodes):
    """Its log ends with its line; another may hold the original from then on."""
    nodes.say(A, "published")
    nodes.network.append(B, LOG, [encode_event(an_event("published", V1, B))])
    nodes.settle()
    assert nodes[C].quarantine() == [("published", B, f"contested: the original of this version is {A}'s")]
    nodes.network.verifier.revoked.add(PlainSigner(A).chain[0])
    for name in (B, C):
        host = nodes.network.hosts[name]
        nodes.network.perform(host, host.node.trust_changed(PlainSigner(name), nodes.network.at()))
    nodes.settle()
    for name in (B, C):
        assert nodes[name].counted() == [("published", str(V1), B)]
        assert nodes[name].quarantine() == []


def test_an_operator_lets_an_event_count_here_alone(nodes):
    """A key that is in quarantine is accepted by its beginning; others judge for themselves."""
    nodes.network.append(C, LOG, [encode_event(an_event("retracted", V1, C))])
    nodes.settle()
    assert nodes[B].quarantine() == [
        ("retracted", C, f"nobody has the original on record, and {C} no replica")
    ]
    with pytest.raises(DatasetError, match="beginning of no key"):
        nodes.come(nodes[B].keeper.accept("00" * 32))
    key = an_event("retracted", V1, C).change_key.hex()
    (accepted,) = nodes.come(nodes[B].keeper.accept(key[:12]))
    assert accepted.counts
    assert nodes[B].changes() == [("retracted", str(V1))]
    assert nodes[B].changed == 1
    assert nodes[A].changes() == []


def test_a_faulty_disk_is_told_and_asked_again(nodes):
    """While the disk gives nothing the fault is shown and what is said fails in one line; then all follows."""
    nodes.say(A, "published")
    nodes[B].is_broken = True
    nodes.network.append(A, LOG, [encode_event(an_event("retracted", V1, A))])
    nodes.network.run(10)
    nodes.turn()
    assert nodes[B].keeper.fault == "registry.db: the disk cannot be read"
    nodes[B].is_broken = False
    nodes.turn()
    assert nodes[B].keeper.fault == ""
    assert nodes[B].status().state is State.RETRACTED


def test_a_faulty_database_fails_what_is_said(nodes, monkeypatch):
    """Nothing is written whose repetition could not be known; with the database it goes on."""

    def broken(*_arguments, **_named):
        raise TrackingError("tracking.db: disk full; make room, or mend the disk")

    monkeypatch.setattr(nodes[A].database, "now", broken)
    with pytest.raises(DatasetError, match="disk full"):
        nodes.say(A, "published")
    monkeypatch.undo()
    assert nodes.say(A, "published") == ["published"]


def test_publishing_that_has_stopped_is_told(nodes):
    """A node that publishes no more says why, in one line."""
    nodes.network.hosts[A].node.origin.publication.stopped = "another node uses this key"
    with pytest.raises(DatasetError, match="publishes no more: another node uses this key"):
        nodes.say(A, "published")


def test_events_of_sources_are_published_once(nodes):
    """The same batch twice, and doubles within it, write each event once; what was undone is said again."""
    batch = [an_event("published", V1), an_event("published", V1), an_event("retracted", V1)]
    nodes.publish(A, *batch)
    nodes.publish(A, *batch)
    copy = [an_event("replicated", V2), an_event("replica-removed", V2), an_event("replicated", V2)]
    nodes.publish(A, *copy)
    nodes.publish(A, an_event("replicated", V2))
    assert nodes.network.hosts[A].node.logs.held.get(A, LOG).tree.size == 5
    with pytest.raises(DatasetError, match="does not name"):
        nodes.publish(A, an_event("published", V3, "elsewhere.example.org"))


def test_a_long_log_of_another_holds_up_nobody(nodes, monkeypatch):
    """While many events of one node are being read, another's own word is said and read before the rest of them."""
    monkeypatch.setattr(dataset_reader, "READ_LEAVES", 4)
    many = [encode_event(an_event("published", f"CMIP6.a{number}.v1")) for number in range(60)]
    nodes.network.append(A, LOG, many)
    nodes.network.run(60)
    nodes[B].asked.clear()
    nodes.say(B, "published")
    assert nodes[B].asked.index(B) < 3
    assert nodes[B].asked.count(A) == 60 / 4
    assert nodes[B].status().origin == B


def test_claims_are_carried(nodes):
    """Who claims a mail is known everywhere; that it is sent is not taken back."""
    token = b"\x01" * 32
    for has_gone_out in (False, True, False):
        nodes.come(nodes[A].keeper.publish_claims([Claim(token, has_gone_out)]))
    nodes.settle()
    ((origin, received_ms),) = nodes[C].database.now(claimants, token).items()
    assert (origin, nodes[C].database.now(is_sent, token)) == (A, True)
    assert received_ms > 0


def test_without_a_database_everything_says_why():
    """The daemon goes on; what is asked or said fails with the reason."""
    nodes = Registries(1)
    try:
        keeper = type(nodes[A].keeper)(
            nodes.network.hosts[A].node, lambda *_: [], lambda *_: None, "tracking.db: damaged", nodes[A],
            nodes.clock, lambda: 0, AtOnce(),
        )  # fmt: skip
        keeper.start()
        assert keeper.fault == "tracking.db: damaged"
        for act in (lambda: keeper.ask(claimants, b""), lambda: keeper.publish([an_event("published")])):
            with pytest.raises(DatasetError, match="damaged"):
                nodes.come(act())
        keeper.stop()
    finally:
        nodes.end()
