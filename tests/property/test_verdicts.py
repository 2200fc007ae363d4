"""Laws of counting: one least fixpoint in any order, monotone, deaf to one liar, and blind to nobody's death."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esgf_gossip.core import packing
from esgf_gossip.core.errors import WireError
from esgf_gossip.core.limits import ENTRY_BYTES, HOST_CHARACTERS, REPORTS_MOST, TIME_MS_MAX
from esgf_gossip.core.observers import Observers
from esgf_gossip.core.reachability import (
    REACHABILITY,
    Reachability,
    Report,
    decode_reachability,
    encode_reachability,
)
from esgf_gossip.core.registry import Registry, sha256
from esgf_gossip.core.standing import Standing
from esgf_gossip.core.verdicts import Verdict, Vote, judge, tally
from helpers.bench import a_line


def names(count):
    """Return the names of so many nodes."""
    return [f"n{number:02}.example.org" for number in range(count)]


def a_report(subject, **changes):
    """Return a report on the first digest of a node."""
    return Report(**{"subject": subject, "epoch": 1, "sequence": 1, "since_ms": 1000, **changes})


@st.composite
def federations(draw, least=1, most=14):
    """Draw observers, who reports whom, and who abstains."""
    members = names(draw(st.integers(least, most)))
    some = st.frozensets(st.sampled_from(members))
    mute = draw(st.one_of(st.just(frozenset()), some))
    # Whole groups report whole groups: else hardly anybody would be unreachable.
    reported = {}
    for _ in range(draw(st.integers(0, 4))):
        for subject in draw(some):
            for observer in draw(some):
                if observer != subject:
                    reported.setdefault(subject, {})[observer] = a_report(subject)
    statements = {name: Reachability(abstains=True) for name in draw(some)}
    return Observers(frozenset(members), mute), reported, statements


def verdicts(tallies):
    """Return the verdicts alone."""
    return {subject: one.verdict for subject, one in tallies.items()}


def unreachable(tallies):
    """Return who is unreachable."""
    return {subject for subject, one in tallies.items() if one.verdict is Verdict.UNREACHABLE}


def slow_verdicts(observers, reported, statements, members, random):
    """The twin by chaotic iteration: one node at a time, in any order, counted by hand, until nothing moves."""

    def count(subject):
        for_it, against, seats = set(), 0, observers.seats(subject, gone)
        for seat in seats:
            reporting = {holder for holder in seat if holder in reported.get(subject, {})}
            abstaining = {holder for holder in seat if holder in statements and statements[holder].abstains}
            for_it |= reporting
            against += not reporting and not abstaining and seat[-1] not in gone
        return len(for_it), against, len(seats)

    gone = set()
    moved = True
    while moved:
        moved = False
        for subject in random.sample(members, len(members)):
            for_it, against, seats = count(subject)
            if subject not in gone and for_it > against and for_it >= min(2, seats):
                gone.add(subject)
                moved = True
    found = {subject: Verdict.SUSPECT for subject in members if count(subject)[0]}
    return found | dict.fromkeys(gone, Verdict.UNREACHABLE)


@settings(deadline=None, max_examples=300)
@given(federations(), st.randoms(use_true_random=False))
def test_the_least_fixpoint_does_not_depend_on_the_order(federation, random):
    """Whoever is counted first, the result is that of the twin."""
    observers, reported, statements = federation
    expected = slow_verdicts(observers, reported, statements, names(14), random)
    assert expected == verdicts(judge(observers, reported, statements))


@settings(deadline=None, max_examples=200)
@given(federations(least=2), st.data())
def test_more_reports_never_clear_anybody(federation, data):
    """Monotone: one more report only moves verdicts up."""
    observers, reported, statements = federation
    before = judge(observers, reported, statements)
    subject, observer = data.draw(st.permutations(names(14)))[:2]
    more = {one: dict(reports) for one, reports in reported.items()}
    more.setdefault(subject, {})[observer] = a_report(subject)
    after = judge(observers, more, statements)
    assert unreachable(before) <= unreachable(after)
    assert before.keys() <= after.keys()


@settings(deadline=None)
@given(st.integers(3, 30), st.data())
def test_one_liar_never_makes_a_node_unreachable(count, data):
    """Whatever one observer reports, however many others abstain: suspect at most, from three nodes on."""
    members = names(count)
    liar = data.draw(st.sampled_from(members))
    abstaining = data.draw(st.frozensets(st.sampled_from(members)))
    reported = {subject: {liar: a_report(subject)} for subject in members if subject != liar}
    statements = {name: Reachability(abstains=True) for name in abstaining}
    found = judge(Observers(frozenset(members)), reported, statements)
    assert unreachable(found) == set()
    assert set(found) <= set(reported)


@settings(deadline=None)
@given(st.integers(6, 30), st.data())
def test_one_liar_among_the_dead_takes_nobody_with_it(count, data):
    """A third of all is dead and honestly reported, one of the rest lies about all: only the dead are unreachable."""
    members = names(count)
    dead = set(data.draw(st.permutations(members))[: count // 3])
    liar = data.draw(st.sampled_from(sorted(set(members) - dead)))
    honest = set(members) - dead - {liar}
    reported = {subject: {one: a_report(subject) for one in honest} for subject in dead}
    for subject in set(members) - {liar}:
        reported.setdefault(subject, {})[liar] = a_report(subject)
    assert unreachable(judge(Observers(frozenset(members)), reported, {})) <= dead


def test_one_report_is_enough_only_where_nobody_else_can_watch():
    """A federation of two; and a node that only one other can link to: it is in its hands anyway."""
    a, b, c = names(3)
    assert unreachable(judge(Observers(frozenset({a, b})), {a: {b: a_report(a)}}, {})) == {a}
    both_mute = Observers(frozenset({a, b, c}), frozenset({a, c}))
    assert unreachable(judge(both_mute, {a: {b: a_report(a)}}, {})) == {a}
    assert unreachable(judge(both_mute, {b: {a: a_report(b)}}, {c: Reachability(abstains=True)})) == set()


def test_a_verdict_that_rests_on_an_abstention_is_not_undone_by_a_stand_in():
    """The observer abstained, then became unreachable itself: that its stand-in hears the node opens no new count."""
    members = names(14)
    observers = Observers(frozenset(members))
    subject = members[0]
    first, second, third, fourth, fifth = observers.originals(subject)
    reported = {
        subject: {one: a_report(subject) for one in (first, second)},
        fifth: {one: a_report(fifth) for one in observers.originals(fifth)},
    }
    statements = {one: Reachability(abstains=True) for one in (fourth, fifth)}
    assert unreachable(judge(observers, reported, statements)) == {subject, fifth}
    assert third not in unreachable(judge(observers, reported, statements))


def test_who_is_no_observer_does_not_count():
    """A report of somebody without a seat, and of a node outside the roster, is none."""
    members = names(20)
    observers = Observers(frozenset(members))
    subject = members[0]
    others = set(members) - set(observers.originals(subject)) - {subject}
    reported = {subject: {one: a_report(subject) for one in [*others, "stranger.example.org"]}}
    assert judge(observers, reported, {}) == {}
    assert judge(observers, {"stranger.example.org": {one: a_report(subject) for one in members}}, {}) == {}


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("seed", range(20))
def test_all_of_many_dead_are_found(share, seed):
    """10, 30, 50 % of 50 dead at once: what honest observers report in rounds finds them all, and no other."""
    random = Random(f"{seed}/{share}")
    members = names(50)
    dead = set(random.sample(members, round(50 * share)))
    observers = Observers(frozenset(members))
    gone, reported = set(), {}
    for _ in range(10):
        for observer in set(members) - dead:
            for subject in observers.duties(observer, gone).keys() & dead:
                reported.setdefault(subject, {})[observer] = a_report(subject)
        gone = unreachable(judge(observers, reported, {}))
    assert dead == gone
    assert set(reported) == dead


def test_a_tally_tells_who_said_what():
    """Each holder of each seat has one vote; the time is the middle one of those who report."""
    members = names(20)
    observers = Observers(frozenset(members))
    subject = members[0]
    first, second, third, fourth, fifth = observers.originals(subject)
    reported = {
        subject: {
            first: a_report(subject, since_ms=1),
            second: a_report(subject, since_ms=500),
            third: a_report(subject, since_ms=10**12),
        }
    }
    statements = {fourth: Reachability(abstains=True)}
    found = tally(subject, observers, reported, statements, {first, fifth})
    stand_ins = [observers.seats(subject, {first, fifth})[number][1] for number in (0, 4)]
    assert found.votes == (
        (0, first, Vote.REPORTS),
        (0, stand_ins[0], Vote.HEARS),
        (1, second, Vote.REPORTS),
        (2, third, Vote.REPORTS),
        (3, fourth, Vote.ABSTAINS),
        (4, fifth, Vote.UNREACHABLE),
        (4, stand_ins[1], Vote.HEARS),
    )
    assert (found.verdict, found.against, found.since_ms) == (Verdict.UNREACHABLE, 1, 500)
    assert set(found.reports) == {first, second, third}


# ------------------------------------------------------------- what counts as said


def standing_of(*lines, members=None):
    """Return the verdicts of somebody who holds these lines."""
    registry, out = Registry(), []
    standing = Standing(registry, out)
    for line in lines:
        registry.accept(line.verified, dict(zip(map(sha256, line.bodies), line.bodies, strict=True)))
        standing.line_moved(line.digest.origin)
    standing.roster_drawn(frozenset(members or (line.digest.origin for line in lines)), frozenset())
    standing.judge()
    return standing


def saying(origin, *reports):
    """Return the line of an observer."""
    statement = Reachability({report.subject: report for report in reports})
    return a_line(origin, entries={REACHABILITY: encode_reachability(statement)})


@pytest.mark.parametrize(
    "subject_line",
    [
        a_line("a.example.org", 1, 2),
        a_line("a.example.org", 2, 1),
        a_line("a.example.org", 1, 1, leaving=True),
    ],
    ids=["next sequence", "next epoch", "leaving"],
)
def test_reports_about_another_digest_are_void(subject_line):
    """The subject has said something since, or leaves: all reports are void at once."""
    reports = [saying(observer, a_report("a.example.org")) for observer in ("b.example.org", "c.example.org")]
    assert standing_of(*reports, a_line("a.example.org")).unreachable == {"a.example.org"}
    assert standing_of(*reports, subject_line).tallies == {}


def test_reports_about_a_digest_to_come_are_void_until_it_comes():
    """Nobody can be reported ahead of time."""
    reports = [
        saying(observer, a_report("a.example.org", sequence=2))
        for observer in ("b.example.org", "c.example.org")
    ]
    assert standing_of(*reports, a_line("a.example.org")).tallies == {}


def test_reports_on_nobody_known_count_as_nothing():
    """A subject without a line is no subject."""
    reports = [saying(observer, a_report("x.example.org")) for observer in ("b.example.org", "c.example.org")]
    assert standing_of(*reports, members=["b.example.org", "c.example.org", "x.example.org"]).tallies == {}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        packing.pack([]),
        packing.pack([0]),
        packing.pack([0, [["A", 1, 1, 1]]]),
        packing.pack({}),
    ],
)
def test_an_entry_nobody_understands_counts_as_nothing(body):
    """It replaces what was said before, is kept, and harms nobody."""
    report = saying("c.example.org", a_report("a.example.org"))
    unread = a_line("b.example.org", entries={REACHABILITY: body})
    standing = standing_of(a_line("a.example.org"), unread, report)
    assert standing.unreachable == frozenset()
    assert standing.statement("b.example.org").is_empty


@given(st.binary(max_size=200))
def test_any_bytes_are_a_statement_or_a_wire_error(body):
    """Nothing else comes out of a hostile entry."""
    try:
        found = decode_reachability(body)
    except WireError:
        found = Reachability()
    assert isinstance(found, Reachability)


reports = st.builds(
    Report,
    st.sampled_from(names(9)),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**63 - 1),
    st.integers(0, TIME_MS_MAX),
)


@given(st.lists(reports), st.booleans())
def test_a_statement_survives_its_bytes(said, abstains):
    """Encode, decode: the same; equal statements are equal bytes, whatever their order."""
    by_subject = {report.subject: report for report in said}
    statement = Reachability(by_subject, abstains)
    body = encode_reachability(statement)
    assert decode_reachability(body) == statement
    turned = Reachability(dict(reversed(by_subject.items())), abstains)
    assert encode_reachability(turned) == body


def longest(number):
    """Return the longest host name there is, one of many."""
    label = f"{number:04}" + "x" * 57
    return ".".join([label, "x" * 63, "x" * 63, "x" * (HOST_CHARACTERS - 61 - 63 - 63 - 3)])


def test_the_most_reports_fit_into_an_entry():
    """Of the longest names and numbers: what an honest observer says is never above the bound of an entry."""
    most = Reachability(
        {
            longest(number): Report(longest(number), 2**63 - 1, 2**63 - 1, TIME_MS_MAX)
            for number in range(REPORTS_MOST)
        },
        abstains=True,
    )
    assert len(longest(0)) == HOST_CHARACTERS
    body = encode_reachability(most)
    assert len(body) <= ENTRY_BYTES
    assert decode_reachability(body) == most


def test_more_reports_than_the_bound_are_unreadable():
    """One above REPORTS_MOST: the whole entry counts as nothing."""
    rows = [[f"n{number}.example.org", 1, 1, 1] for number in range(REPORTS_MOST + 1)]
    assert len(decode_reachability(packing.pack([0, rows[:-1]])).reports) == REPORTS_MOST
    with pytest.raises(WireError):
        decode_reachability(packing.pack([0, rows]))


def test_later_versions_may_say_more():
    """Fields and flags that came later are left alone."""
    body = packing.pack([3, [["a.example.org", 1, 2, 3, "more"]], "more"])
    assert decode_reachability(body) == Reachability(
        {"a.example.org": Report("a.example.org", 1, 2, 3)}, abstains=True
    )
