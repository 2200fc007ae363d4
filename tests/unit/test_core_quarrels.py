"""What follows a report: answers and quarrels that fade; and goodbyes, which excuse an absence."""

import pytest

from esgf_gossip.core import watching
from esgf_gossip.core.messages import Farewell, Goodbye
from esgf_gossip.core.reachability import Report
from esgf_gossip.core.verdicts import Verdict
from esgf_gossip.sim.trust import START_MS
from helpers.bench import OWN
from helpers.scene import Scene

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


# ----------------------------------------------------------------- quarrels


def test_a_newer_digest_is_an_answer_and_repeats_are_held_ever_longer():
    """12, 24, 48 ... 600 s: the observer does not hear it, the subject says it lives."""
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
