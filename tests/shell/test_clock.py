"""The reactor of a daemon counts by a clock that nobody sets."""

import subprocess
import sys

from twisted.internet.base import ReactorBase

from esgf_gossip.net.clock import make_steady, steady_s


class Reactor(ReactorBase):
    """A reactor without an event loop, for its timers alone."""

    def installWaker(self) -> None:
        """Nobody wakes it."""


def test_a_step_of_the_time_of_day_moves_no_timer(monkeypatch):
    """Timers are due by the steady clock alone."""
    reactor = Reactor()
    assert make_steady(reactor)
    fired = []
    reactor.callLater(10, fired.append, 1)
    monkeypatch.setattr("time.time", lambda: 4e9)
    reactor.runUntilCurrent()
    assert fired == []
    now_s = steady_s()
    reactor.seconds = lambda: now_s + 11
    reactor.runUntilCurrent()
    assert fired == [1]


def test_a_reactor_that_has_timers_is_left_alone():
    """What was set by the time of day would never fire by another clock."""
    reactor = Reactor()
    call = reactor.callLater(1, lambda: None)
    assert not make_steady(reactor)
    call.cancel()


def test_twice_is_once():
    """Asked again, the answer is that it is so."""
    reactor = Reactor()
    assert make_steady(reactor)
    assert make_steady(reactor)


def test_the_real_reactor_can_be_made_steady():
    """The reactor that Twisted chooses on this system takes the clock, and its timers fire."""
    program = (
        "from twisted.internet import reactor; from esgf_gossip.net.clock import make_steady\n"
        "assert make_steady(reactor); reactor.callLater(0.01, reactor.stop); reactor.run(); print('fired')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("fired\n", 0)
