"""Every user is told once, by the home node or in its place: five nodes in virtual time, with faults that did happen."""

from __future__ import annotations

import pytest

from esgf_gossip.tracking import homeward_rows
from esgf_gossip.tracking.changes import add_change
from esgf_gossip.tracking.claims import SETTLE_MS, TURN_MS, rank, token
from esgf_gossip.tracking.homes import Homes
from esgf_gossip.trust.sealed_values import SealedValues
from helpers.home_nodes import (
    FALLBACK_MS,
    MINUTE_MS,
    World,
    a_change,
    host,
    random_schedule,
    user,
    wrong_mails,
)

ANN, BOB = user("ann"), user("bob")
FALLBACK_H = FALLBACK_MS / MINUTE_MS / 60
TURN_H = TURN_MS / MINUTE_MS / 60
SETTLE_H = SETTLE_MS / MINUTE_MS / 60
# A fallback, the settling, one turn of everybody, and the quiet time of the mail.
LONG_H = FALLBACK_H + SETTLE_H + 4 * TURN_H + 2.0


@pytest.fixture
def world(tmp_path, request):
    """A world with the seed that the test names."""
    world = World(tmp_path, getattr(request, "param", 1))
    yield world
    world.close()


def retracted(world, *holders, users=(ANN,), change=None):
    """Let A retract, and some nodes find users in their downloads once they have heard of it."""
    change = change or a_change()
    world.node("A").learn(change)
    world.run(0.1)
    for letter in holders:
        if host(letter) not in world.down:
            world.node(letter).match(change, *users)
    return change


def left(world):
    """Count the rows that wait anywhere."""
    return sum(
        one.count
        for node in world.nodes.values()
        if node.host not in world.down
        for one in node.database.now(homeward_rows.waiting)
    )


@pytest.mark.parametrize("world", range(2), indirect=True)
def test_a_user_of_three_nodes_gets_one_mail_from_home(world):
    """Fetched from A, B and C, answers lost on the way, everything brought again: H mails once, nobody else does."""
    world.lost_answers = 0.5
    change = retracted(world, "A", "B", "C", users=(ANN, BOB))
    world.run(3)
    assert world.faults["answer lost"] > 0
    assert [world.sent(one, change) for one in (ANN, BOB)] == [[host("H")], [host("H")]]
    assert (left(world), len(world.mails)) == (0, 2)
    assert all(node.fallback.counts["claimed"] == 0 for node in world.nodes.values())


def test_own_users_never_leave(world):
    """A user of B who fetched from B is taken in at once, in the transaction that found him."""
    change = retracted(world, "B", users=(user("eve", "B"),))
    world.run(1)
    assert world.sent(user("eve", "B"), change) == [host("B")]
    assert world.frames == []


@pytest.mark.parametrize("world", range(2), indirect=True)
def test_a_home_that_is_down_is_stood_in_for_once_and_stays_silent_when_it_returns(world):
    """A, B and C matched, H is down past the fallback: one of them mails; H comes back, matches itself too: still one."""
    world.node("H").crash()
    change = retracted(world, "A", "B", "C", users=(ANN, BOB))
    world.run(LONG_H)
    assert world.faults["home unreachable"] > 0
    senders = [world.sent(one, change) for one in (ANN, BOB)]
    assert [len(one) for one in senders] == [1, 1]
    assert host("H") not in {one for sent in senders for one in sent}
    first = min((host(letter) for letter in "ABC"), key=lambda one: rank(token(ANN, change.key), one))
    assert senders[0] == [first]
    world.node("H").restart()
    world.run(0.2)
    world.node("H").match(change, ANN, BOB)
    world.run(LONG_H)
    assert [world.sent(one, change) for one in (ANN, BOB)] == senders
    assert left(world) == 0


def test_a_home_that_returns_before_the_fallback_mails_itself(world):
    """Down for less than the fallback: nothing was claimed, H is told as soon as it is back."""
    world.node("H").crash()
    change = retracted(world, "B", "C")
    world.run(FALLBACK_H * 0.8)
    world.node("H").restart()
    world.run(2)
    assert world.sent(ANN, change) == [host("H")]
    assert all(not node.logs[node.host] for node in world.nodes.values())


def test_a_home_that_returns_while_claims_settle_takes_over(world):
    """Claimed and not yet told: the home is still tried first, and the claimants stand down."""
    world.node("H").crash()
    change = retracted(world, "B", "C")
    world.run(FALLBACK_H + SETTLE_H / 2)
    assert world.node("B").fallback.counts["claimed"] + world.node("C").fallback.counts["claimed"] == 2
    world.node("H").restart()
    for letter in "BC":
        world.node(letter).homeward.heard_of(host("H"))
    world.run(LONG_H)
    assert world.sent(ANN, change) == [host("H")]
    assert left(world) == 0


def test_a_claimant_that_dies_or_cannot_is_followed_by_the_next(world):
    """The first by rank goes down before its turn: the next one tells the user; the first comes back: still one."""
    change = a_change()
    order = sorted((host(one) for one in "BC"), key=lambda one: rank(token(ANN, change.key), one))
    first, second = (world.nodes[one] for one in order)
    world.node("H").crash()
    retracted(world, "B", "C", change=change)
    world.run(FALLBACK_H + SETTLE_H / 2)
    assert all(len(node.logs[node.host]) == 1 for node in (first, second))
    first.crash()
    world.run(LONG_H)
    assert world.sent(ANN, change) == [second.host]
    first.restart()
    world.run(LONG_H)
    assert world.sent(ANN, change) == [second.host]
    assert left(world) == 0


def test_who_has_said_it_and_not_to_the_others_says_it_after_a_restart(world):
    """Between the own mail and the own log a daemon ends, or its log is full: the word is said later, the mail once."""
    world.node("H").crash()
    change = retracted(world, "B")
    node = world.node("B")
    world.run(FALLBACK_H + SETTLE_H / 2)
    node.log_is_full = True
    world.run(SETTLE_H + 0.2)
    assert node.fallback.counts["told"] == 1
    assert "log is full" in node.homeward.fault
    node.crash()
    node.log_is_full = False
    node.restart()
    world.run(2)
    assert [claim.is_sent for claim in node.logs[node.host]] == [False, True]
    assert (world.sent(ANN, change), node.homeward.fault) == ([node.host], "")
    world.node("H").restart()
    world.node("C").match(change, ANN)
    world.run(2)
    assert len(world.sent(ANN, change)) == 1


@pytest.mark.parametrize("world", range(2), indirect=True)
def test_a_partition_that_heals_brings_one_mail(world):
    """A and H on one side, B, C and X on the other, shorter than the fallback: what waits goes home when it heals."""
    change = a_change()
    world.node("A").learn(change)
    world.run(0.1)
    world.cut = [{host("A"), host("H")}]
    for letter in "ABC":
        world.node(letter).match(change, ANN, BOB)
    world.run(0.5)
    assert world.faults["home unreachable"] > 0
    world.cut = []
    world.run(4)
    assert [world.sent(one, change) for one in (ANN, BOB)] == [[host("H")], [host("H")]]


@pytest.mark.parametrize("world", range(2), indirect=True)
def test_a_partition_longer_than_the_fallback_is_not_told_twice_by_its_parts(world):
    """H is down and the others are cut in two: the larger part stands in, the smaller waits; healed: still one mail."""
    world.node("H").crash()
    change = a_change()
    world.node("A").learn(change)
    world.run(0.1)
    world.cut = [{host("B")}]
    for letter in "ABC":
        world.node(letter).match(change, ANN)
    world.run(LONG_H)
    assert world.faults["minority"] > 0
    assert len(world.sent(ANN, change)) == 1
    assert world.sent(ANN, change) != [host("B")]
    world.cut = []
    world.run(LONG_H)
    world.node("H").restart()
    world.run(2)
    assert len(world.sent(ANN, change)) == 1
    assert left(world) == 0


@pytest.mark.parametrize("world", range(2), indirect=True)
def test_a_provider_that_is_silent_is_asked_in_later_turns(world):
    """Nobody can find the address while the provider is down with its node; when it answers, one of them tells the user."""
    world.node("H").crash()
    world.silent_providers.add(host("H"))
    change = retracted(world, "B", "C")
    world.run(LONG_H)
    assert world.faults["provider silent"] > 0
    assert world.sent(ANN, change) == []
    world.silent_providers.clear()
    world.run(LONG_H)
    assert len(world.sent(ANN, change)) == 1
    assert left(world) == 0


def test_a_user_whom_no_stand_in_knows_waits_for_home(world):
    """B finds no address of Ann in its turns: her match stays, and the home that comes back tells her."""
    world.strangers.add(ANN)
    world.node("H").crash()
    change = retracted(world, "B")
    world.run(2 * LONG_H)
    assert world.node("B").fallback.counts["unknown"] > 0
    assert (world.sent(ANN, change), left(world)) == ([], 1)
    world.node("H").restart()
    world.run(2)
    assert (world.sent(ANN, change), left(world)) == ([host("H")], 0)


def test_users_of_a_host_without_a_daemon_are_told_by_one_that_matched(tmp_path):
    """Their provider never runs one: after the fallback the first by rank tells them; if a daemon comes, it is their home."""
    world = World(tmp_path, 3, homeless=[host("H")])
    change = retracted(world, "B", "C")
    world.run(LONG_H)
    assert len(world.sent(ANN, change)) == 1
    again = retracted(world, "B", "C", change=a_change(epoch=1))
    world.run(0.2)
    world.homeless = frozenset()
    world.run(2)
    assert world.sent(ANN, again) == [host("H")]
    world.close()


def test_a_change_that_home_has_not_heard_of_waits_for_it(world):
    """H is up and does not know the event yet: asked again, taken once it does; it is never stood in for."""
    change = a_change()
    node = world.node("B")
    node.database.now(add_change, change, world.now_ms())
    node.match(change, ANN)
    world.run(LONG_H)
    assert node.homeward.counts["unknown_change"] > 1
    assert (world.sent(ANN, change), node.fallback.counts["claimed"]) == ([], 0)
    world.node("H").learn(change)
    world.run(2)
    assert world.sent(ANN, change) == [host("H")]


@pytest.mark.parametrize("is_told_of_it", [True, False], ids=["homes changed", "six hours later"])
def test_a_home_that_refused_a_user_is_asked_again(world, is_told_of_it):
    """H does not know for some minutes whose home it is; it is asked again when that changes, else after six hours."""
    home, bearer = world.node("H"), world.node("B")
    right, home.homes = home.homes, lambda: Homes(home.host, {}, {})
    change = retracted(world, "B")
    world.node("B").fallback._may_act = lambda _home: False
    world.run(0.2)
    home.homes = right
    if is_told_of_it:
        bearer.homeward.homes_changed()
    world.run(1)
    assert world.sent(ANN, change) == ([host("H")] if is_told_of_it else [])
    world.run(7)
    assert (world.sent(ANN, change), left(world)) == ([host("H")], 0)
    assert bearer.homeward.counts["refused"] == 1


def test_who_was_cut_off_brings_what_waits_at_once(world):
    """Alone, B cannot see who is away, so nobody comes back for it: linked again it waits for no rest."""
    world.cut = [{host("B")}]
    change = retracted(world, "B")
    world.run(FALLBACK_H * 0.8)
    world.cut = []
    world.node("H").learn(change)
    world.clock.advance(1)
    assert world.node("B").homeward.counts["taken"] == 0
    world.node("B").homeward.rejoined()
    world.clock.advance(1)
    assert world.node("B").homeward.counts["taken"] == 1
    world.run(1)
    assert world.sent(ANN, change) == [host("H")]


def test_the_one_way_to_be_told_twice(world):
    """
    Home told the user and went away for long; a node that found him late stands in: nobody can know, he is told again.

    To say of every mail in the logs that it went out would prevent it, and tell all members who is told what.
    """
    change = retracted(world, "B")
    world.run(1)
    assert world.sent(ANN, change) == [host("H")]
    world.node("H").crash()
    world.node("C").match(change, ANN)
    world.run(LONG_H)
    assert world.sent(ANN, change) == [host("H"), host("C")]


def test_what_waits_too_long_is_given_up(world):
    """A home that never comes back, and no provider: after the age nothing is left, and it is counted."""
    world.node("H").crash()
    world.silent_providers.add(host("H"))
    retracted(world, "B")
    world.run(2)
    node = world.node("B")
    assert node.homeward.fault.startswith(f"home node {host('H')} has not answered for 1 h (no route): ")
    assert "ann" not in node.homeward.fault
    node.homeward._max_age_ms = 0
    world.run(0.1)
    assert (left(world), node.homeward.counts["expired"], node.homeward.fault) == (0, 1, "")


def test_nothing_of_a_user_lies_open_and_nothing_goes_to_third_parties(world):
    """On the disk of who brings it everything is sealed; over the wire it goes to the home alone; claims tell nothing."""
    world.node("H").crash()
    change = retracted(world, "B", "C", users=(ANN, BOB))
    world.run(FALLBACK_H + SETTLE_H / 2)
    for letter in "BC":
        node = world.node(letter)
        content = b"".join(path.read_bytes() for path in world.folder.glob(f"{node.host}.db*"))
        for secret in (b"ann", b"bob", b"openid/", b"tas_0.nc"):
            assert secret not in content, secret
        assert node.database.now(homeward_rows.of_user, node.sealed, ANN)[0][0] == host("H")
    world.node("H").restart()
    world.run(LONG_H)
    assert {to for _, to, _ in world.frames} == {host("H")}
    assert world.sent(ANN, change) == [host("H")]


def test_a_user_who_is_erased_is_told_nothing_any_more(world):
    """What waits of him goes, of others it stays."""
    world.node("H").crash()
    change = retracted(world, "B", users=(ANN, BOB))
    world.run(0.2)
    node = world.node("B")
    assert node.database.now(homeward_rows.forget, node.sealed, f"{ANN}/") == 1
    world.run(LONG_H)
    assert (world.sent(ANN, change), len(world.sent(BOB, change))) == ([], 1)


def test_what_is_on_its_way_is_exported(world):
    """By any spelling of the OpenID; where nothing waits the list is empty."""
    world.node("H").crash()
    change = retracted(world, "B")
    node = world.node("B")
    known = node.database.now(homeward_rows.known_of, node.sealed, [f"{ANN}/", BOB])
    assert [(one["home"], one["match"]["change_key"]) for one in known["on_the_way"]] == [
        (host("H"), change.key.hex())
    ]
    assert known["kept_addresses"] == []


def test_a_key_file_that_is_lost_is_told(world):
    """Rows sealed by another key are counted as lost, and hold up nobody."""
    world.node("H").crash()
    change = retracted(world, "B")
    world.run(0.1)
    node = world.node("B")
    node.crash()
    (world.folder / f"{node.host}.key").unlink()
    node.sealed = SealedValues(world.folder / f"{node.host}.key")
    node.restart()
    node.match(change, BOB)
    world.node("H").restart()
    world.run(2)
    assert (node.homeward.counts["unreadable"], world.sent(BOB, change)) == (1, [host("H")])


@pytest.mark.parametrize("world", range(10, 13), indirect=True)
def test_any_schedule_of_faults_tells_each_user(world):
    """Nodes go down and come back, cuts come and heal, answers get lost: each is told once, or in the one way twice."""
    told = random_schedule(world)
    assert min(world.faults[one] for one in ("answer lost", "node down", "home unreachable")) > 0
    assert wrong_mails(world, told) == {}
    assert left(world) == 0
