"""The observer's side: beats, silence, reports, excuses, doubt, quarrels; a node among puppets."""

import pytest

from esgf_gossip.core import effects as fx
from esgf_gossip.core import watching
from esgf_gossip.core.limits import REPORTS_MOST
from esgf_gossip.core.messages import Announce, Farewell, Goodbye
from esgf_gossip.core.observers import Duty
from esgf_gossip.core.reachability import Report
from esgf_gossip.core.verdicts import Verdict
from esgf_gossip.sim.trust import START_MS
from helpers.bench import OWN, Bench, a_line
from helpers.scene import STEP_S, Scene

A, B, C = "a.example.org", "b.example.org", "c.example.org"
HOUR_MS = 3600 * 1000


def goodbye(away_s=30, farewell=Farewell.STOPPING):
    """Return the goodbye of a node that stops."""
    return Goodbye(farewell, away_s, "")


def own_report(scene, **changes):
    """Return a report on the node's own newest digest."""
    head = scene.bench.head(OWN)
    fields = {"epoch": head.order.epoch, "sequence": head.order.sequence, "since_ms": START_MS, **changes}
    return Report(OWN, **fields)


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


# ----------------------------------------------------------------- quarrels


def test_a_newer_digest_is_an_answer_and_repeats_are_held_ever_longer():
    """4, 8, 16 ... 600 s: the observer does not hear it, the subject says it lives."""
    scene = Scene(A, B)
    scene.silent.add(A)
    scene.pass_time(7)
    holds = []
    for sequence in range(2, 13):
        assert scene.reports[A].sequence == sequence - 1
        scene.publish(A, sequence, via=B)
        scene.pass_time(0.1)
        assert scene.reports == {}
        start_s = scene.bench.now_s
        while not scene.reports:
            scene.pass_time(0.5)
            assert scene.bench.now_s - start_s < 700
        holds.append(scene.bench.now_s - start_s)
    expected = [min(watching.REPEAT_MOST_S, watching.REPEAT_FIRST_S * 2**turn) for turn in range(11)]
    assert holds == pytest.approx(expected, abs=0.6)


def test_a_node_that_is_heard_again_starts_with_a_clean_slate():
    """The hold of an old quarrel does not delay the next report."""
    scene = Scene(A, B)
    scene.silent.add(A)
    scene.pass_time(7)
    for sequence in range(2, 6):
        scene.publish(A, sequence, via=B)
        scene.pass_time(5)
    scene.silent.discard(A)
    scene.pass_time(8)
    assert scene.reports == {}
    scene.silent.add(A)
    scene.pass_time(6.2)
    assert set(scene.reports) == {A}


def test_last_words_that_come_late_are_no_answer():
    """A digest signed before the silence, brought by another: reported at once as well."""
    scene = Scene(A, B)
    issued_at_ms = scene.bench.at().wall_ms
    scene.pass_time(4)
    scene.silent.add(A)
    scene.pass_time(7)
    assert scene.reports[A].sequence == 1
    scene.publish(A, 2, via=B, issued_at_ms=issued_at_ms)
    scene.pass_time(0.2)
    assert scene.reports[A].sequence == 2


@pytest.mark.parametrize("ahead_ms", [-3 * HOUR_MS, 3 * HOUR_MS])
@pytest.mark.parametrize("whose", ["subject", "observer"])
def test_wrong_clocks_do_not_feed_a_quarrel(ahead_ms, whose):
    """Whoever's clock is hours off: a subject that answers each report is answered ever more rarely."""
    subject_ms = ahead_ms if whose == "subject" else 0
    scene = Scene(A, B, ahead_ms={A: subject_ms}, wall_ahead_ms=ahead_ms if whose == "observer" else 0)
    scene.silent.add(A)
    sequence, end_s = 1, scene.bench.now_s + 120
    while scene.bench.now_s < end_s:
        scene.pass_time(0.5)
        if A in scene.reports:
            sequence += 1
            scene.publish(A, sequence, via=B)
    assert 4 <= sequence <= 8


def test_a_newer_digest_of_a_node_without_a_link_is_dialled_at_once():
    """It lives: an observer that nobody can dial does not wait for its turn."""
    scene = Scene(A, B)
    scene.cut(A)
    for _ in range(6):
        scene.pass_time(5)
        scene.refuse(A)
    scene.bench.dials.clear()
    scene.publish(A, 2, via=B)
    assert (A, 8951) in scene.bench.dials


def test_who_is_reported_by_too_few_does_not_answer():
    """Suspect is not worth a digest: one liar makes nobody publish, however often it speaks."""
    scene = Scene(A, B)
    for sequence in range(2, 40):
        scene.report(A, own_report(scene), sequence=sequence)
        scene.pass_time(1)
    assert scene.bench.node.standing.verdict(OWN) is Verdict.SUSPECT
    assert scene.sequence == 1


def test_who_counts_as_unreachable_answers_with_a_newer_digest():
    """All its observers report it: one digest, soon, and it is clear again."""
    scene = Scene(A, B)
    scene.report(A, own_report(scene), sequence=2)
    scene.report(B, own_report(scene), sequence=2)
    assert scene.bench.node.standing.verdict(OWN) is Verdict.UNREACHABLE
    scene.pass_time(0.1)
    assert scene.sequence == 2
    assert scene.bench.node.standing.verdict(OWN) is Verdict.CLEAR
    scene.pass_time(60)
    assert scene.sequence == 2


def test_answers_to_observers_that_never_rest_are_paced():
    """All observers lie for ever: a burst, then a digest a second at most."""
    scene = Scene(A, B)
    for sequence in range(2, 602):
        scene.report(A, own_report(scene), sequence=sequence)
        scene.report(B, own_report(scene), sequence=sequence)
        scene.pass_time(0.1)
    assert 50 <= scene.sequence <= watching.SAY_BURST + 60 / watching.SAY_EVERY_S + 1


def test_a_report_of_an_observer_that_is_gone_is_answered():
    """Nobody would ever take it back, so the node itself voids it."""
    scene = Scene(A, B, C)
    about_a = Report(A, 1, 2, START_MS)
    scene.report(A, own_report(scene), sequence=2)
    scene.pass_time(30)
    assert scene.sequence == 1
    scene.report(B, about_a, sequence=2)
    scene.report(C, about_a, sequence=2)
    assert scene.bench.node.standing.verdict(A) is Verdict.UNREACHABLE
    scene.pass_time(0.1)
    assert scene.sequence == 2
    assert scene.bench.node.standing.verdict(OWN) is Verdict.CLEAR


# ----------------------------------------------------------------- goodbyes


def test_a_node_that_stops_in_good_order_has_the_time_it_asked_for():
    """No report before; then a last dial, and if it fails the report."""
    scene = Scene(A, B)
    scene.bench.hear(scene.links.pop(A), goodbye(20))
    for _ in range(19):
        scene.refuse(A)
        scene.pass_time(1)
    scene.pass_time(1.5)
    assert scene.verdicts() == []
    scene.refuse(A)
    scene.pass_time(0.2)
    assert set(scene.reports) == {A}


def test_who_is_back_when_the_excuse_ends_is_not_reported_for_old_failures():
    """Dials failed while it was away; now one succeeds."""
    scene = Scene(A, B)
    scene.bench.hear(scene.links.pop(A), goodbye(20))
    for _ in range(4):
        scene.pass_time(4.9)
        scene.refuse(A)
    scene.pass_time(0.6)
    scene.link(A, (A, 8951))
    scene.pass_time(10)
    assert scene.verdicts() == []


@pytest.mark.parametrize("away_s", [3600, 3601, 86400])
def test_nobody_is_believed_to_stay_away_longer_than_an_hour(away_s):
    """AWAY_MOST_S and beyond count the same."""
    scene = Scene(A, B)
    scene.bench.hear(scene.links.pop(A), goodbye(away_s))
    scene.pass_time(watching.AWAY_MOST_S - 1)
    assert scene.verdicts() == []
    scene.pass_time(1.5 + watching.LINK_WAIT_S)
    assert set(scene.reports) == {A}


def test_a_goodbye_without_a_time_excuses_nothing():
    """Zero seconds: the next failed dial counts."""
    scene = Scene(A, B)
    scene.bench.hear(scene.links.pop(A), goodbye(0))
    scene.refuse(A)
    scene.pass_time(0.1)
    assert set(scene.reports) == {A}


def test_who_leaves_is_not_watched():
    """Its digest says so: no report, and no longer a member."""
    scene = Scene(A, B)
    scene.publish(A, 2, leaving=True)
    scene.cut(A)
    scene.pass_time(30)
    assert scene.verdicts() == []


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
