"""Merge laws: replicas given the same lines in any order, batching or repetition hold the same."""

import hashlib
from collections import Counter

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from esgf_gossip.core.registry import Registry
from esgf_gossip.core.table import Table
from helpers.bench import a_line

NAMES = ("a.example.org", "b.example.org", "c.example.org")

lines = st.builds(
    a_line,
    st.sampled_from(NAMES),
    st.integers(1, 3),
    st.integers(1, 3),
    st.dictionaries(st.sampled_from(["e", "f", "g"]), st.sampled_from([b"1", b"2", b"3"]), max_size=3),
    generation=st.integers(1, 2),
    leaving=st.booleans(),
)


def merged(sequence):
    """Return a table that has seen these lines."""
    table = Table()
    for line in sequence:
        table.merge(line.verified)
    return table


def slow_root(sequence):
    """The obvious twin: the best of each origin by sorting, hashed whole."""
    best = {}
    for line in sequence:
        rank = (line.head.order, bytes(255 - byte for byte in line.head.payload_sha256))
        best[line.head.origin] = max(best.get(line.head.origin, (rank, line.head)), (rank, line.head))
    return hashlib.sha256(b"".join(best[name][1].encoded for name in sorted(best))).digest()


@settings(deadline=None)
@given(st.lists(lines, max_size=8), st.randoms(use_true_random=False))
def test_any_order_and_repetition_give_one_root(sequence, random):
    """Merge is commutative and idempotent, and agrees with its slow twin."""
    shuffled = sequence + random.choices(sequence, k=3) if sequence else []
    random.shuffle(shuffled)
    assert slow_root(sequence) == merged(sequence).root == merged(shuffled).root


@settings(deadline=None)
@given(st.lists(lines, max_size=6), st.lists(lines, max_size=6), st.lists(lines, max_size=6))
def test_any_batching_gives_one_root(first, second, third):
    """Merge is associative: what a relay merged before passing it on changes nothing."""

    def best(sequence):
        table = merged(sequence)
        return [line for line in sequence if table.head(line.head.origin) == line.head]

    whole = merged(first + second + third).root
    assert whole == merged(best(best(first) + second) + third).root
    assert whole == merged(first + best(second + best(third))).root


@settings(deadline=None)
@given(st.lists(lines, min_size=1, max_size=10))
def test_an_accepted_order_never_falls(sequence):
    """The line is the floor: whatever comes, the head held only rises."""
    table = Table()
    for line in sequence:
        before = table.head(line.head.origin)
        assert line.head.is_above(before) == table.merge(line.verified)
        after = table.head(line.head.origin)
        assert before is None or after == before or after.is_above(before)
        assert before is None or after.order >= before.order


@settings(deadline=None)
@given(lines, lines)
def test_equal_numbers_end_with_the_smaller_hash(one, two):
    """An origin that says two things under one number is heard alike everywhere."""
    two = attrs.evolve(two, verified=attrs.evolve(two.verified, order=one.verified.order))
    digest = attrs.evolve(two.verified.digest, origin=one.head.origin)
    two = attrs.evolve(two, verified=attrs.evolve(two.verified, digest=digest))
    smaller = min(one.head.payload_sha256, two.head.payload_sha256)
    for sequence in ([one, two], [two, one]):
        assert smaller == merged(sequence).head(one.head.origin).payload_sha256


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("accept"), lines), st.tuples(st.just("withdraw"), st.sampled_from(NAMES))
        ),
        max_size=14,
    )
)
def test_bodies_are_held_exactly_while_a_line_names_them(steps):
    """No body is lost while named, none is kept when nobody names it; the disk that follows agrees."""
    registry, disk = Registry(), {}
    for step, subject in steps:
        if step == "accept":
            bodies = {hashlib.sha256(body).digest(): body for body in subject.bodies}
            change = registry.accept(subject.verified, bodies)
            if change is not None:
                disk.update(change.added)
                for content in change.dropped:
                    del disk[content]
        else:
            for content in registry.withdraw(subject):
                del disk[content]
        named = Counter(ref.sha256 for line in registry.table for ref in line.digest.entries.values())
        assert named == registry._references
        assert set(named) == set(registry._bodies)
        assert disk == registry._bodies
