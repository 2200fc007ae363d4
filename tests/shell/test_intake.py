"""Slices, turns and budgets of what comes in, and the order of the end (net.intake, net.budget, net.link)."""

import pytest
from twisted.internet.task import Clock

from esgf_gossip.core import limits
from esgf_gossip.core.framing import frame
from esgf_gossip.net.budget import SWEEP_AFTER, PeerBudget, PeerBudgets
from esgf_gossip.net.intake import FRAMES_A_TURN, TURN_S, Intake


class Turns(Clock):
    """A reactor whose turns are told apart: what is due is called once, what that adds waits for the next."""

    def turn(self, seconds=0.0):
        """Let time pass and call what is due, as one pass of a reactor does."""
        self.rightNow += seconds
        due = [call for call in self.calls if call.getTime() <= self.rightNow]
        for call in due:
            if call.active():
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)


class Wire:
    """A transport that notes whether it is read."""

    def __init__(self):
        self.is_read = True

    def pauseProducing(self):
        """Stop to read."""
        assert self.is_read
        self.is_read = False

    def resumeProducing(self):
        """Read again."""
        assert not self.is_read
        self.is_read = True


class Side:
    """One connection's intake, and what came out of it."""

    def __init__(self, clock):
        self.heard, self.faults, self.ends = [], [], 0
        self.wire = Wire()
        self.when_heard = lambda _payload: None
        self.intake = Intake(clock, self._hear, self.faults.append, self._end)
        self.intake.start(self.wire)

    def _hear(self, payload):
        self.heard.append(payload)
        self.when_heard(payload)

    def _end(self):
        self.ends += 1


@pytest.fixture
def clock():
    """Virtual time."""
    return Turns()


@pytest.fixture
def side(clock):
    """A connection with a budget of its own."""
    return Side(clock)


def many(count, size_bytes=1):
    """Return so many frames in one piece."""
    return frame(b"x" * size_bytes) * count


# ----------------------------------------------------------------- slices


@pytest.mark.parametrize("count", [FRAMES_A_TURN - 1, FRAMES_A_TURN, FRAMES_A_TURN + 1])
def test_a_turn_deals_with_so_many_frames(clock, side, count):
    """What is above waits for the next turn, and the socket with it."""
    side.intake.add(many(count))
    assert len(side.heard) == min(count, FRAMES_A_TURN)
    clock.turn()
    assert len(side.heard) == count
    clock.turn()
    assert side.wire.is_read
    assert clock.getDelayedCalls() == []


def test_a_turn_ends_when_its_time_is_over(clock, side):
    """Frames that cost much are fewer in a turn; one is always dealt with."""
    side.when_heard = lambda _payload: setattr(clock, "rightNow", clock.rightNow + TURN_S / 2)
    side.intake.add(many(5))
    assert len(side.heard) == 2
    clock.turn()
    assert len(side.heard) == 4
    side.when_heard = lambda _payload: setattr(clock, "rightNow", clock.rightNow + 1)
    clock.turn()
    assert len(side.heard) == 5


def test_a_flood_leaves_the_others_their_turn(clock):
    """Between two slices of one peer every other connection has its own."""
    flood, honest = Side(clock), Side(clock)
    story = []
    flood.when_heard = lambda _payload: story.append("flood")
    honest.when_heard = lambda _payload: story.append("honest")
    flood.intake.add(many(10 * FRAMES_A_TURN))
    honest.intake.add(many(FRAMES_A_TURN + 1))
    for _ in range(4):
        clock.turn()
    assert story[: 2 * FRAMES_A_TURN] == ["flood"] * FRAMES_A_TURN + ["honest"] * FRAMES_A_TURN
    assert story.count("flood") == 5 * FRAMES_A_TURN
    assert story.count("honest") == FRAMES_A_TURN + 1


def test_what_comes_while_frames_wait_keeps_its_order(clock, side):
    """TLS hands over a chunk in pieces though reading was paused after the first."""
    pieces = [b"%d" % number for number in range(3 * FRAMES_A_TURN)]
    data = b"".join(map(frame, pieces))
    for start in range(0, len(data), 100):
        side.intake.add(data[start : start + 100])
    while clock.getDelayedCalls():
        clock.turn()
    assert side.heard == pieces


def test_nothing_comes_after_a_stop(clock, side):
    """The rest of a chunk means nothing once the link is closed; the socket is read on for its end."""
    side.when_heard = lambda _payload: side.intake.stop() if len(side.heard) == FRAMES_A_TURN + 1 else None
    side.intake.add(many(5 * FRAMES_A_TURN))
    assert not side.wire.is_read
    clock.turn()
    side.intake.add(many(5))
    side.intake.hold(1)
    clock.turn()
    assert len(side.heard) == FRAMES_A_TURN + 1
    assert side.wire.is_read
    assert clock.getDelayedCalls() == []


def test_garbage_in_a_later_turn_is_told_once(clock, side):
    """The good frames before it count, nothing after it does."""
    side.intake.add(many(FRAMES_A_TURN + 1) + b"\xff" * 8 + many(3))
    assert side.faults == []
    clock.turn()
    clock.turn()
    assert (len(side.heard), len(side.faults)) == (FRAMES_A_TURN + 1, 1)
    assert side.wire.is_read


# ----------------------------------------------------------------- budgets


def spend(side, clock, frames):
    """Deal with so many frames, turn by turn, without time passing."""
    side.intake.add(many(frames))
    while [call for call in clock.getDelayedCalls() if call.getTime() <= clock.seconds()]:
        clock.turn()


def test_a_burst_is_dealt_with_at_once(clock, side):
    """A fresh node that fetches everything is not slowed."""
    spend(side, clock, limits.PEER_FRAMES_AT_ONCE)
    assert len(side.heard) == limits.PEER_FRAMES_AT_ONCE
    assert side.wire.is_read
    assert clock.getDelayedCalls() == []


def test_a_flood_is_read_at_its_rate(clock, side):
    """Above the burst the socket is left alone until the peer has its turn, and nothing is lost."""
    total = limits.PEER_FRAMES_AT_ONCE + 3 * limits.PEER_FRAMES_PER_S
    spend(side, clock, total)
    above = len(side.heard) - limits.PEER_FRAMES_AT_ONCE
    assert 0 < above <= FRAMES_A_TURN
    assert not side.wire.is_read
    for _ in range(1000):
        clock.turn(0.001)
    assert abs(len(side.heard) - limits.PEER_FRAMES_AT_ONCE - limits.PEER_FRAMES_PER_S) <= 2 * FRAMES_A_TURN
    for _ in range(2500):
        clock.turn(0.001)
    assert len(side.heard) == total
    assert side.wire.is_read
    assert side.faults == []


def test_bytes_are_counted_too(clock, side):
    """Few large frames cost as much as many small ones."""
    count = limits.PEER_BYTES_AT_ONCE // limits.FRAME_BYTES
    for _ in range(count - 1):
        side.intake.add(many(1, limits.FRAME_BYTES))
    assert side.wire.is_read
    side.intake.add(many(1, limits.FRAME_BYTES))
    assert len(side.heard) == count
    assert not side.wire.is_read
    assert side.intake.budget.wait_s(clock.seconds()) < 0.1


def test_what_is_sent_to_a_peer_is_its_cost(clock, side):
    """A question of twenty bytes may have an answer of half a megabyte."""
    side.intake.spent(limits.PEER_BYTES_AT_ONCE + limits.PEER_BYTES_PER_S)
    side.intake.add(many(1))
    side.intake.add(many(1))
    assert len(side.heard) == 1
    clock.turn(0.9)
    assert len(side.heard) == 1
    clock.turn(0.2)
    assert len(side.heard) == 2


@pytest.mark.parametrize("inside", [True, False])
def test_a_link_on_hold_is_not_read(clock, side, inside):
    """What the core asks for while it deals with a frame holds from the next one on, and ends by itself."""
    if inside:
        side.when_heard = lambda _payload: side.intake.hold(0.5) if len(side.heard) == 1 else None
        side.intake.add(many(3))
    else:
        side.intake.add(many(1))
        side.intake.hold(0.5)
        side.intake.add(many(2))
    clock.turn(0.4)
    assert len(side.heard) == 1
    assert not side.wire.is_read
    clock.turn(0.2)
    assert len(side.heard) == 3
    clock.turn()
    assert side.wire.is_read
    assert clock.getDelayedCalls() == []


def test_all_links_of_a_peer_share_one_budget():
    """Nobody gets more by dialling again."""
    budgets = PeerBudgets()
    budgets.of("a", 0.0).take(limits.PEER_FRAMES_AT_ONCE + limits.PEER_FRAMES_PER_S, 0, 0.0)
    assert budgets.of("a", 0.5).wait_s(0.5) == pytest.approx(0.5)
    assert budgets.of("b", 0.5).wait_s(0.5) == 0.0


def test_budgets_that_are_full_again_are_forgotten():
    """Who is quiet costs no memory; who owes something is remembered."""
    budgets = PeerBudgets()
    budgets.of("debtor", 0.0).take(limits.PEER_FRAMES_AT_ONCE, 0, 0.0)
    for number in range(100 * SWEEP_AFTER):
        budgets.of(f"n{number}", 1.0)
    assert len(budgets) <= SWEEP_AFTER + 1
    assert budgets.of("debtor", 1.0).wait_s(1.0) == 0.0
    assert not budgets.of("debtor", 1.0).is_full(1.0)


def test_a_new_budget_is_full():
    """A stranger begins with all of it."""
    budget = PeerBudget()
    assert budget.is_full(0.0)
    budget.take(1, 0, 0.0)
    assert not budget.is_full(0.0)


# ----------------------------------------------------------------- the end


def test_the_end_comes_after_what_came_before(clock, side):
    """A goodbye behind a long answer is heard, though the socket is gone by then."""
    side.intake.add(many(2 * FRAMES_A_TURN) + frame(b"goodbye"))
    side.intake.end()
    assert side.ends == 0
    for _ in range(3):
        clock.turn()
    assert (side.heard[-1], side.ends) == (b"goodbye", 1)
    assert clock.getDelayedCalls() == []


def test_an_end_waits_for_no_budget(clock, side):
    """Nobody floods a socket that is gone: the rest takes turns and no time."""
    side.intake.spent(100 * limits.PEER_BYTES_AT_ONCE)
    side.intake.add(many(3 * FRAMES_A_TURN))
    side.intake.end()
    while clock.getDelayedCalls():
        clock.turn()
    assert (len(side.heard), side.ends) == (3 * FRAMES_A_TURN, 1)


def test_an_end_with_nothing_left_is_told_at_once(clock, side):
    """The usual case takes no turn."""
    side.intake.add(many(1) + b"\x00\x00")
    side.intake.end()
    assert side.ends == 1
    assert clock.getDelayedCalls() == []


def test_a_stop_after_the_end_is_the_end(clock, side):
    """What is left is not wanted any more."""
    side.when_heard = lambda _payload: side.intake.stop() if len(side.heard) == FRAMES_A_TURN + 5 else None
    side.intake.add(many(3 * FRAMES_A_TURN))
    side.intake.end()
    clock.turn()
    assert (len(side.heard), side.ends) == (FRAMES_A_TURN + 5, 1)
    assert clock.getDelayedCalls() == []
