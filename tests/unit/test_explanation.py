"""Why a node has its status: the words, the votes, and evidence that a stranger can check."""

from base64 import b64decode

import pytest

from esgf_gossip.core.digests import decode_digest
from esgf_gossip.core.reachability import Reachability, decode_reachability
from esgf_gossip.core.registry import Registry
from esgf_gossip.core.standing import Standing
from esgf_gossip.core.verdicts import Verdict
from esgf_gossip.sim.trust import START_MS
from esgf_gossip.views.explanation import by_observer, explain
from esgf_gossip.views.federation import NodeStatus, OwnState
from esgf_gossip.views.judgement import Judge
from helpers.watch import a_report, a_standing
from helpers.web import NOON_MS, a_node

NAMES = [f"n{number}.example.org" for number in range(5)]
DEAD = NAMES[0]


def reporting(count: int, **extra: Reachability) -> tuple[Registry, Standing]:
    """Return a registry in which so many of the four observers report the first node."""
    statements = {name: Reachability({DEAD: a_report(DEAD)}) for name in NAMES[1 : count + 1]}
    return a_standing(NAMES, statements | extra)


@pytest.mark.parametrize(
    ("reports", "status", "words"),
    [
        (0, NodeStatus.UP, "none of its observers reports it"),
        (1, NodeStatus.SUSPECT, "1 of 4 observers hears nothing of it; more than half make"),
        (2, NodeStatus.SUSPECT, "2 of 4 observers hear nothing of it; more than half make"),
        (3, NodeStatus.UNREACHABLE, "3 of 4 observers hear nothing of it"),
    ],
)
def test_status_and_reason_follow_the_count(reports, status, words):
    """The view shows what the rule says, and the explanation says the numbers."""
    registry, standing = reporting(reports)
    own = OwnState(DEAD, "f", "1", 1, 1, 1, 0, 0, 0)
    node = Judge(registry, standing).view(own, START_MS, START_MS).node(DEAD)
    assert status is node.status
    body = explain(node, registry, standing)
    assert body["reason"].startswith(words)
    assert body["count"] == {"reports": reports, "against": 4 - reports, "seats": 4}
    assert [one["vote"] for one in body["observers"]].count("reports") == reports


def test_the_evidence_is_what_was_signed():
    """The digest of an observer names the entry that is shown, and the entry holds the report that is counted."""
    registry, standing = reporting(3)
    body = explain(a_node(DEAD, status=NodeStatus.UNREACHABLE), registry, standing)
    shown = next(one for one in body["observers"] if one["host"] == NAMES[1])
    digest = decode_digest(b64decode(shown["evidence"]["payload"]))
    entry = b64decode(shown["evidence"]["entry"])
    assert digest.origin == NAMES[1]
    assert digest.entries["reachability"].size_bytes == len(entry)
    assert decode_reachability(entry).reports[DEAD] == a_report(DEAD)
    assert shown["report"]["epoch"] == 1


def test_an_observer_that_stands_in_is_one_row_and_says_for_whom():
    """Two dead nodes watch each other: others sit on their seats too, and count once."""
    names = [f"n{number}.example.org" for number in range(9)]
    dead = names[:3]
    said = {host: a_report(host) for host in dead}
    registry, standing = a_standing(names, {name: Reachability(said) for name in names[3:]})
    rows = explain(a_node(dead[0], status=NodeStatus.UNREACHABLE), registry, standing)["observers"]
    stand_ins = [row for row in rows if row["stands_in_for"]]
    assert stand_ins
    assert {row["stands_in_for"] for row in stand_ins} <= set(dead)
    merged = by_observer(rows)
    hosts = [row["host"] for row in merged]
    assert sorted(hosts) == sorted({row["host"] for row in rows})
    assert sum(len(row["stands_in_for"]) for row in merged) == len(stand_ins)


def test_who_abstains_is_shown_and_not_counted_against():
    """An observer that doubts itself stands in the list as such."""
    registry, standing = reporting(2, **{NAMES[3]: Reachability(abstains=True)})
    assert standing.verdict(DEAD) is Verdict.UNREACHABLE
    body = explain(a_node(DEAD, status=NodeStatus.UNREACHABLE), registry, standing)
    votes = {one["host"]: one["vote"] for one in body["observers"]}
    assert votes[NAMES[3]] == "abstains"
    assert body["count"]["against"] == 1


def test_a_node_that_is_held_back_is_shown_as_unreachable():
    """Damping shows itself in the words."""
    registry, standing = reporting(0)
    own = OwnState(DEAD, "f", "1", 1, 1, 1, 0, 0, 0)
    node = Judge(registry, standing).view(own, START_MS, START_MS, held=frozenset({DEAD})).node(DEAD)
    assert node.status is NodeStatus.UNREACHABLE
    assert "way back is delayed" in explain(node, registry, standing)["reason"]


@pytest.mark.parametrize("status", [NodeStatus.LEFT, NodeStatus.STALE])
def test_who_is_out_needs_no_observers(status):
    """Leaving and expiry have reasons of their own."""
    registry, standing = reporting(3)
    body = explain(a_node(DEAD, status=status, since_ms=NOON_MS), registry, standing)
    assert "observer" not in body["reason"]
