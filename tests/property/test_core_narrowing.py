"""Comparison by fingerprints: any two tables end equal, at a cost by their difference, whatever a partner says."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esgf_gossip.core import comparing, limits, narrowing
from esgf_gossip.core.buckets import BUCKET_PRINT_BYTES, BUCKETS, HEAD_PRINT_BYTES, marked, pack_marks, place
from esgf_gossip.core.codec import encode
from esgf_gossip.core.effects import Send
from esgf_gossip.core.errors import WireError
from esgf_gossip.core.messages import Announce, Fingerprints, Heads, Level, Roots
from esgf_gossip.core.model import Moment
from esgf_gossip.core.registry import sha256
from helpers.comparison import Ends, a_name, a_verified, an_end

BASE = [a_verified(a_name(number)) for number in range(comparing.VECTOR_HEADS + 1)]
# What each end holds of an origin beyond the base: a sequence, 0 for nothing; the word makes two branches.
contested = st.dictionaries(
    st.integers(1000, 1060),
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from([b"", b"branch"])),
    max_size=60,
)


def tables(differences):
    """Return the lines of both ends."""
    one, other = list(BASE), list(BASE)
    for number, (first, second, word) in differences.items():
        if first:
            one.append(a_verified(a_name(number), first))
        if second:
            other.append(a_verified(a_name(number), second, word))
    return one, other


def heads_of(end):
    """Return what an end holds."""
    return {head.origin: head for head in end.registry.table.heads()}


def best(one, other):
    """The obvious twin: the higher head of each origin."""
    result = {}
    for line in [*one, *other]:
        if line.head.is_above(result.get(line.head.origin)):
            result[line.head.origin] = line.head
    return result


def by_place(head):
    """Return the order of heads within a bucket."""
    return place(head.origin), head.origin


def hashed(salt, heads):
    """Return the whole hash of which a fingerprint is the beginning."""
    return sha256(salt + b"".join(head.encoded for head in heads))


class Scripted:
    """A source of randomness that says what it was told to."""

    def __init__(self, salts):
        self.salts = salts

    def randbytes(self, _count):
        """Return the next salt."""
        return self.salts.pop(0)


@settings(deadline=None, max_examples=60)
@given(contested, st.integers(0, 2**32))
def test_any_two_tables_end_with_the_maximum_of_both_at_a_cost_by_their_difference(differences, seed):
    """After one comparison and the fetches both hold the best of each origin; bytes and round trips are bounded."""
    one, other = tables(differences)
    ends = Ends(one, other, seed=seed)
    count = sum(
        heads_of(ends.one).get(name) != heads_of(ends.other).get(name) for name in map(a_name, differences)
    )
    ends.compare()
    assert ends.round_trips <= 3
    assert ends.payload_bytes <= (1340 + 140 * count if count else 200)
    assert len(
        [head for message in ends.heard if isinstance(message, Heads | Announce) for head in message.heads]
    ) == (count), "a head that differs was told twice, or one that does not"
    ends.fetch()
    assert heads_of(ends.one) == heads_of(ends.other) == best(one, other)
    ends.compare()
    assert ends.round_trips == 1


@settings(deadline=None, max_examples=15)
@given(contested)
def test_fingerprints_and_the_full_vector_come_to_the_same(differences):
    """The vector that peers without the feature get is the twin."""
    one, other = tables(differences)
    quick, slow = Ends(one, other), Ends(one, other, features=frozenset())
    for ends in (quick, slow):
        ends.compare()
        ends.fetch()
    assert quick.are_equal
    assert slow.are_equal
    assert quick.one.registry.table.root == slow.one.registry.table.root
    assert not [message for message in slow.heard if isinstance(message, Fingerprints)]


@pytest.mark.parametrize("newer", ["the asker", "the answerer", "either"])
@pytest.mark.parametrize("seed", range(3))
def test_a_hundred_changes_of_five_thousand_cost_fifteen_kilobytes_and_three_round_trips(newer, seed):
    """The cost follows the difference, whoever holds the newer heads."""
    random = Random(seed)
    one = [a_verified(a_name(number)) for number in range(5000)]
    other = list(one)
    for number in random.sample(range(5000), 100):
        is_first = newer == "the asker" or (newer == "either" and random.random() < 0.5)
        (one if is_first else other)[number] = a_verified(a_name(number), 1000)
    ends = Ends(one, other, seed=seed)
    ends.compare()
    assert len(one[0].digest.origin) == 25
    assert 10_000 < ends.payload_bytes <= 15_000
    assert ends.round_trips <= 3
    ends.fetch()
    assert ends.are_equal


@pytest.mark.parametrize("count", [7, 50, 1000, 5000])
def test_tables_in_sync_cost_the_same_whatever_their_size(count):
    """One question with a root for each kind of line, one answer that names none."""
    lines = [a_verified(a_name(number)) for number in range(count)]
    ends = Ends(lines, lines)
    ends.compare()
    question = Roots({1: bytes(32), 2: bytes(32), 3: bytes(32)}, is_reply=False)
    assert ends.round_trips == 1
    assert len(encode(question)) + len(encode(Roots({}, is_reply=True))) <= 200
    assert ends.payload_bytes <= 200
    assert ends.one.comparing.agreed == ends.other.comparing.agreed == {"the other"}


def test_a_newcomer_gets_everything_without_fingerprints_of_what_it_lacks():
    """Who holds few heads sends them all, also in answer to fingerprints."""
    ends = Ends(BASE[:3], [*BASE, a_verified(a_name(2000))])
    ends.compare()
    assert [message.level for message in ends.heard if isinstance(message, Fingerprints)] == [Level.BUCKETS]
    ends.fetch()
    assert ends.are_equal


def test_a_difference_that_a_fingerprint_hides_is_found_the_next_time():
    """Two tables that look the same under one salt do not under the next."""
    changed = [*BASE[1:], a_verified(BASE[0].digest.origin, 2)]
    mates = [
        line.head for line in BASE[1:] if place(line.head.origin) >> 3 == place(BASE[0].head.origin) >> 3
    ]
    one, other = (
        sorted([BASE[0].head, *mates], key=by_place),
        sorted([changed[-1].head, *mates], key=by_place),
    )
    random = Random(1)
    salt = next(
        salt
        for salt in iter(lambda: random.randbytes(8), b"")
        if hashed(salt, one)[:BUCKET_PRINT_BYTES] == hashed(salt, other)[:BUCKET_PRINT_BYTES]
    )
    ends = Ends(BASE, changed)
    ends.other.comparing._random = Scripted([salt, random.randbytes(8)])
    ends.compare()
    ends.fetch()
    assert not ends.are_equal, "the salt hides nothing, so nothing is tested"
    ends.compare()
    ends.fetch()
    assert ends.are_equal


# ----------------------------------------------------------------- hostile partners

prints = st.one_of(
    st.just(b""),
    st.just(bytes(BUCKETS * BUCKET_PRINT_BYTES)),
    st.binary(max_size=40),
    st.integers(0, 600).map(lambda count: bytes(count * HEAD_PRINT_BYTES)),
)
marks = st.one_of(st.just(b""), st.just(bytes(64)), st.just(b"\xff" * 64), st.binary(max_size=80))
steps = st.lists(st.tuples(st.integers(0, 7), st.booleans(), marks, prints, st.booleans()), max_size=30)


@settings(deadline=None, max_examples=150)
@given(steps, st.booleans())
def test_a_hostile_partner_gets_an_answer_or_a_wire_error_and_no_end_of_neither(schedule, asked):
    """Any steps in any order: nothing but WireError escapes, and each step is answered at most once a comparison."""
    end = an_end(BASE, frozenset({1}), 1)
    end.hear(Roots({1: bytes(32)}, is_reply=False), Moment(0.0, 0))
    (salt,) = [message.salt for message in end.said() if isinstance(message, Fingerprints)]
    if asked:
        end.session.roots_asked = True
        end.hear(Roots({1: bytes(32)}, is_reply=True), Moment(0.0, 0))
    answered = []
    for level, is_known, bitmap, fingerprints, is_last in schedule:
        try:
            end.hear(
                Fingerprints(level, salt if is_known else bytes(8), bitmap, fingerprints), Moment(0.0, 0)
            )
            end.hear(Heads((BASE[0].head,), is_last=is_last), Moment(0.0, 0))
        except WireError:
            break
        answered += [message.level for message in end.said() if isinstance(message, Fingerprints)]
    assert len(answered) == len(set(answered))
    assert heads_of(end) == {line.head.origin: line.head for line in BASE}


def test_a_flood_makes_us_hash_the_table_once_a_second_at_most(monkeypatch):
    """Questions, openings and empty vectors at any rate cost a bounded share of our time and of the line."""
    made = []
    summary = narrowing.Summary
    monkeypatch.setattr(narrowing, "Summary", lambda heads, salt: made.append(1) or summary(heads, salt))
    end = an_end(BASE, frozenset({1}), 1)
    sent_bytes = 0
    for tick in range(1000):
        at = Moment(tick / 100, 0)
        end.hear(Roots({1: bytes(32)}, is_reply=False), at)
        end.hear(Fingerprints(Level.BUCKETS, bytes(8), b"", bytes(BUCKETS * BUCKET_PRINT_BYTES)), at)
        end.hear(Heads((), is_last=True), at)
        sent_bytes += sum(len(encode(output.message)) for output in end.out if isinstance(output, Send))
        end.out.clear()
    assert len(made) == 10
    assert sent_bytes <= 10 * (100 * len(BASE) + 1500) + 1000 * 50


@pytest.mark.parametrize(
    ("level", "bitmap", "fingerprints"),
    [
        (Level.SUB_BUCKETS, bytes(63), b""),
        (Level.SUB_BUCKETS, b"\x80" + bytes(63), bytes(15)),
        (Level.SUB_BUCKETS, b"\x80" + bytes(63), bytes(17)),
        (Level.BUCKETS, b"", bytes(BUCKETS * BUCKET_PRINT_BYTES - 1)),
        (Level.BUCKETS, b"\x00", bytes(BUCKETS * BUCKET_PRINT_BYTES)),
    ],
)
def test_a_step_that_does_not_fit_is_a_breach(level, bitmap, fingerprints):
    """Lengths follow from the step before; anything else was never meant."""
    end = an_end(BASE, frozenset({1}), 1)
    end.hear(Roots({1: bytes(32)}, is_reply=False), Moment(0.0, 0))
    end.session.roots_asked = True
    end.hear(Roots({1: bytes(32)}, is_reply=True), Moment(0.0, 0))
    salt = next(message.salt for message in end.said() if isinstance(message, Fingerprints))
    with pytest.raises(WireError, match="do not fit"):
        end.hear(Fingerprints(level, salt, bitmap, fingerprints), Moment(0.0, 0))


def test_more_differences_than_a_message_holds_are_found_in_turns(monkeypatch):
    """Tables that share nothing, with room for a few fingerprints only: every comparison brings them nearer."""
    monkeypatch.setattr(narrowing, "SUMMARY_HEADS", 200)
    ends = Ends(
        [a_verified(a_name(number)) for number in range(600)],
        [a_verified(a_name(5000 + number)) for number in range(600)],
    )
    turns = 0
    while not ends.are_equal:
        before = len(ends.other.registry.table)
        ends.compare()
        told = [
            message
            for message in ends.heard
            if isinstance(message, Fingerprints) and message.level == Level.HEADS
        ]
        assert all(len(message.prints) <= 200 * HEAD_PRINT_BYTES for message in told)
        ends.fetch()
        assert len(ends.one.registry.table) + len(ends.other.registry.table) > before + 600
        turns += 1
    assert 2 < turns < 20
    assert len(ends.one.registry.table) == 1200


@given(st.lists(st.booleans(), max_size=70))
def test_a_bitmap_reads_as_it_was_written(flags):
    """Marks come back in their places, and nothing beyond them."""
    assert [number for number, flag in enumerate(flags) if flag] == marked(pack_marks(flags), len(flags))
    assert len(pack_marks(flags)) == -(-len(flags) // 8)


def test_the_bound_of_a_message_leaves_room_in_a_frame():
    """The largest step is far below a frame."""
    largest = Fingerprints(
        Level.HEADS,
        bytes(8),
        bytes(limits.SUMMARY_HEADS // 8),
        bytes(limits.SUMMARY_HEADS * HEAD_PRINT_BYTES),
    )
    assert len(encode(largest)) < limits.FRAME_BYTES
