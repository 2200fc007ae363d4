"""The observer's side: beats, silence, reports, excuses, doubt, quarrels; a node among puppets."""

import pytest

from esgf_gossip.core import effects as fx
from esgf_gossip.core import watching
from esgf_gossip.core.limits import REPORTS_MOST
from esgf_gossip.core.messages import Announce, Farewell, Goodbye
from esgf_gossip.core.observers import Duty
from esgf_gossip.sim.trust import START_MS
from helpers.bench import OWN, Bench, a_line
from helpers.scene import STEP_S, Scene

A, B, C = "a.example.org", "b.example.org", "c.example.org"
HOUR_MS = 3600 * 1000


def goodbye(away_s=30, farewell=Farewell.STOPPING):
    """Return the goodbye of a node that stops."""
    return Goodbye(farewell, away_s, "")


# ----------------------------------------------------------------- beats


@pytest.mark.parametrize("ahead_ms", [0, 1500, -7 * HOUR_MS - 300, 3 * HOUR_MS])
@pytest.mark.parametrize("own_ahead_ms", [0, 5 * HOUR_MS + 1234])
def test_observers_take_turns_by_the_clock_of_the_watched_node(ahead_ms, own_ahead_ms):
    """Seat 1 of 2 beats two seconds past a multiple of four, as the subject reads its clock, whatever ours says."""
    scene = Scene(A, B, ahead_ms={A: ahead_ms}, wall_ahead_ms=own_ahead_ms)
    scene.pass_time(20)
    assert len(scene.pings[A]) == pytest.approx(5, abs=1)
    for at_s in scene.pings[A]:
        by_its_clock_s = (START_MS + ahead_ms) / 1000 + at_s
        assert (by_its_clock_s - 2.0) % 4 == pytest.approx(0, abs=2 * STEP_S) or (
            by_its_clock_s - 2.0
        ) % 4 == pytest.approx(4, abs=2 * STEP_S)


def test_a_living_node_is_never_reported():
    """Ten minutes of answers: nothing said, nothing published."""
    scene = Scene(A, B)
    scene.pass_time(600)
    assert scene.sequence == 1
    assert scene.verdicts() == []


def test_silence_is_missed_two_seconds_after_a_beat():
    """Not before the answer is due; the report follows 50 ms later, with the digest held and the time last heard."""
    scene = Scene(A, B)
    scene.pass_time(6)
    beat_s = scene.pings[A][-1]
    scene.silent.add(A)
    scene.pass_time(4.2 - (scene.bench.now_s - beat_s))
    sent_s = scene.pings[A][-1]
    assert sent_s > beat_s
    scene.pass_time(sent_s + watching.ANSWER_S - 0.1 - scene.bench.now_s)
    assert scene.reports == {}
    scene.pass_time(0.2)
    report = scene.reports[A]
    assert (report.epoch, report.sequence) == (1, 1)
    assert report.since_ms == pytest.approx(START_MS + 1000 * beat_s, abs=100)
    assert scene.verdicts() == [(A, "suspect")]


def test_any_frame_is_a_sign_of_life():
    """An announcement in place of the pong."""
    scene = Scene(A, B)
    scene.silent.add(A)
    for _ in range(40):
        scene.pass_time(1)
        scene.bench.hear(scene.links[A], Announce(()))
    assert scene.verdicts() == []


def test_a_report_is_withdrawn_when_the_node_is_heard():
    """The entry goes with the last report; the verdict clears."""
    scene = Scene(A, B)
    scene.silent.add(A)
    scene.pass_time(7)
    assert set(scene.reports) == {A}
    scene.bench.hear(scene.links[A], Announce(()))
    scene.pass_time(0.1)
    assert scene.statement.is_empty
    assert "reachability" not in scene.bench.node.registry.table.line(OWN).digest.entries
    assert scene.verdicts() == [(A, "suspect"), (A, "clear")]


def test_a_link_that_ends_and_a_refused_dial_are_a_report_at_once():
    """The dial follows without delay; what fails is missed."""
    scene = Scene(A, B)
    scene.bench.dials.clear()
    scene.cut(A, dials_fail=False)
    assert (A, 8951) in scene.bench.dials
    assert scene.reports == {}
    scene.refuse(A)
    scene.pass_time(0.1)
    assert set(scene.reports) == {A}


def test_a_link_that_ends_and_is_back_is_no_report():
    """The dial succeeds: nothing happened."""
    scene = Scene(A, B)
    scene.cut(A, dials_fail=False)
    scene.link(A, (A, 8951))
    scene.pass_time(30)
    assert scene.verdicts() == []


def test_a_dial_into_the_void_is_missed_before_it_fails():
    """A link ended and nothing answers the dial, neither yes nor no."""
    scene = Scene(A, B)
    scene.cut(A, dials_fail=False)
    scene.pass_time(watching.LINK_WAIT_S - 0.1)
    assert scene.reports == {}
    scene.pass_time(0.3)
    assert set(scene.reports) == {A}


def test_a_node_whose_address_is_answered_by_another_is_missed():
    """Its place was taken: the dial succeeds, and it is still not there."""
    scene = Scene(A, B)
    scene.cut(A, dials_fail=False)
    scene.bench.open(B, (A, 8951))
    scene.pass_time(watching.LINK_WAIT_S + 0.2)
    assert set(scene.reports) == {A}


@pytest.mark.parametrize("farewell", [Farewell.NOT_NEEDED, Farewell.MISBEHAVIOUR, Farewell.DUPLICATE])
def test_a_mute_node_that_closes_and_never_returns_is_missed(farewell):
    """Nobody can dial it: no link for long is silence, whatever it said when it closed the last one."""
    scene = Scene(A, B)
    scene.publish(A, 2, contact=(A, 0))
    scene.pass_time(3)
    scene.bench.hear(scene.links.pop(A), goodbye(0, farewell))
    scene.pass_time(watching.BEAT_S * 1.5 + watching.LINK_WAIT_S + 0.2)
    assert set(scene.reports) == {A}


def test_reports_are_kept_over_a_restart_until_the_node_is_heard():
    """The same report in the first digest of the new run; withdrawn when the subject is heard."""
    scene = Scene(A, B)
    scene.silent.add(A)
    scene.pass_time(7)
    before = scene.reports
    assert set(before) == {A}
    again = Scene(B, disk=scene.bench.disk)
    assert again.reports == before
    again.link(A)
    again.pass_time(0.1)
    assert again.statement.is_empty


def test_who_has_just_started_does_not_miss_those_it_has_not_heard():
    """It may be one of many that start: failed dials count when the grace is over and one more has failed."""
    scene = Scene(A, B)
    scene.pass_time(5)
    again = Scene(B, disk=scene.bench.disk)
    again.lines[A] = scene.lines[A]
    while again.bench.now_s < watching.START_GRACE_S - 1:
        again.refuse(A)
        again.pass_time(1)
    assert again.verdicts() == []
    again.pass_time(1.5)
    again.refuse(A)
    again.pass_time(0.2)
    assert set(again.reports) == {A}


def test_who_was_heard_since_the_start_has_no_grace():
    """A link that ends is a report at once, a moment after the start."""
    scene = Scene(A, B)
    assert scene.bench.now_s < 5
    scene.cut(A)
    scene.pass_time(0.1)
    assert set(scene.reports) == {A}


# ----------------------------------------------------------------- doubt


def test_an_observer_whose_loop_stood_still_abstains_and_reports_nobody():
    """Ten seconds without a loop: the silence is ours. It says so for ten seconds."""
    scene = Scene(A, B)
    scene.stall(10)
    scene.pass_time(0.1)
    assert scene.statement.abstains
    assert scene.reports == {}
    scene.pass_time(watching.ABSTAIN_S - 1)
    assert scene.statement.abstains
    scene.pass_time(1.2)
    assert scene.statement.is_empty
    assert scene.verdicts() == []


@pytest.mark.parametrize(("seconds", "abstains"), [(1.0, False), (5.1, True)])
def test_a_short_stall_is_no_doubt(seconds, abstains):
    """Up to LOOP_STALL_S late is late; more is doubt."""
    scene = Scene(A, B)
    scene.pass_time(4)
    scene.stall(seconds)
    scene.pass_time(0.2)
    assert scene.statement.abstains == abstains
    assert scene.reports == {}


def test_a_dial_that_failed_in_a_stall_reports_nobody():
    """The time ran out because our loop stood still, and the first thing we see is the failure."""
    scene = Scene(A, B, C)
    scene.cut(A, dials_fail=False)
    scene.bench.now_s += 12
    scene.refuse(A)
    scene.pass_time(0.1)
    assert scene.statement.abstains
    assert scene.reports == {}
    scene.link(A)
    scene.pass_time(20)
    assert scene.verdicts() == []


def test_what_was_reported_before_a_stall_stays_said():
    """Only silence nobody was told of is forgotten."""
    scene = Scene(A, B)
    scene.silent.add(A)
    scene.pass_time(7)
    scene.stall(10)
    scene.pass_time(0.2)
    assert (set(scene.reports), scene.statement.abstains) == ({A}, True)


def test_who_is_silent_beyond_a_stall_is_reported_when_we_count_again():
    """Abstention delays a report and loses none."""
    scene = Scene(A, B)
    scene.stall(10)
    scene.silent.add(A)
    scene.pass_time(watching.ABSTAIN_S - 0.5)
    assert scene.reports == {}
    scene.pass_time(1)
    assert set(scene.reports) == {A}


def test_a_node_without_any_link_abstains_until_one_is_back():
    """It cannot tell who is silent, they or itself."""
    scene = Scene(A, B)
    for peer in (A, B):
        scene.cut(peer)
    scene.pass_time(5)
    assert scene.statement.abstains
    scene.link(B)
    scene.pass_time(0.1)
    assert not scene.statement.abstains


def test_a_start_without_links_is_not_worth_a_digest():
    """Nobody was ever linked: nothing to say, and nobody to report."""
    bench = Bench()
    bench.pass_time(60)
    assert bench.head(OWN).order.sequence == 1
    assert bench.node.standing.statement(OWN).is_empty


def test_who_hears_nobody_at_all_abstains_and_reports_nobody():
    """Its links stand half open: the silence of all is ours, until anybody is heard."""
    scene = Scene(A, B, C)
    scene.pass_time(10)
    scene.silent.update((A, B, C))
    scene.pass_time(15)
    assert scene.statement.abstains
    assert scene.reports == {}
    scene.silent.difference_update((B, C))
    scene.bench.hear(scene.links[B], Announce(()))
    scene.pass_time(watching.ABSTAIN_S - 0.5)
    assert scene.statement.abstains
    assert scene.reports == {}
    scene.pass_time(5)
    assert not scene.statement.abstains
    assert set(scene.reports) == {A}


def test_one_other_voice_is_enough_to_report():
    """Of three others two are silent: the third is asked where it does not speak by itself."""
    scene = Scene(A, B, C)
    scene.pass_time(10)
    scene.silent.update((A, B))
    scene.pass_time(7)
    assert set(scene.reports) == {A, B}
    assert scene.sequence <= 3


# ----------------------------------------------------------------- bounds


def test_what_is_said_is_paced():
    """A node that comes and goes ten times a second: five digests at once, then one a second."""
    scene = Scene(A, B)
    for _ in range(300):
        scene.cut(A)
        scene.pass_time(0.05)
        scene.link(A)
        scene.pass_time(0.05)
    assert 20 <= scene.sequence <= watching.SAY_BURST + 30 / watching.SAY_EVERY_S + 2


def test_no_more_than_the_most_reports_are_made():
    """At the bound and one above: the rest is left out, the entry stays readable."""
    scene = Scene(A, B)
    scene.pass_time(watching.START_GRACE_S)
    node = scene.bench.node
    gone = [a_line(f"n{number:03}.example.org") for number in range(REPORTS_MOST + 1)]
    for line in gone:
        node.registry.accept(line.verified, {})
    node._watching.assign(
        {line.digest.origin: Duty(0, 5, stands_in=False) for line in gone}, scene.bench.at()
    )
    for line in gone:
        node._watching.dial_failed(line.digest.contact, scene.bench.at())
    assert len(node._watching.reports) == REPORTS_MOST


def test_a_node_that_becomes_mute_changes_who_watches_whom():
    """Verdicts follow from lines alone: one that saw the change and one that starts now agree."""
    peers = [f"p{number}.example.org" for number in range(12)]
    scene = Scene(*peers)
    for peer in peers[:6]:
        scene.publish(peer, 2, contact=(peer, 0))
    scene.pass_time(3)
    again = Scene(disk=scene.bench.disk)
    ours, theirs = scene.bench.node.standing.observers, again.bench.node.standing.observers
    assert [theirs.originals(peer) for peer in peers] == [ours.originals(peer) for peer in peers]


def test_a_stale_timer_of_an_ended_watch_does_nothing():
    """Tokens of an assignment that ended are ignored."""
    scene = Scene(A, B)
    at = scene.bench.at()
    for timer in (
        fx.SendBeat(A, 99, at.mono_s),
        fx.MissAnswer(A, 99, at.mono_s, at.mono_s),
        fx.RepeatReport(A, 99),
        fx.SendBeat("x.example.org", 1, at.mono_s),
    ):
        assert scene.bench.do(scene.bench.node.handle_timer(timer, at)) == []
