"""What a slow peer costs: heads, not messages (core.outbox)."""

from collections import Counter

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from esgf_gossip.core.codec import decode, encode
from esgf_gossip.core.framing import FrameBuffer, frame
from esgf_gossip.core.limits import FRAME_BYTES
from esgf_gossip.core.messages import Announce, Answer, Ask, Bodies, Goodbye, Hello, Ping, Pong, Roots
from esgf_gossip.core.model import CertificateRank, Head, Order
from esgf_gossip.core.outbox import Outbox
from esgf_gossip.core.reconciliation import HEADS_PER_PAGE
from helpers.bench import a_hello, a_line

X = "x.example.org"


def a_head(origin, sequence=1):
    """Return a head."""
    return Head(origin, Order(CertificateRank(1, bytes(20)), 1, sequence), bytes(32))


def read(outbox):
    """Take everything out, as messages."""
    frames = []
    while (data := outbox.take()) is not None:
        frames.append(data)
    return [decode(payload) for payload in FrameBuffer().feed(b"".join(frames))]


def filled(*messages):
    """Return an outbox with these put in."""
    outbox = Outbox()
    for message in messages:
        outbox.put(message)
    return outbox


def a_push(sequence, parts=2):
    """Return an origin's own change in so many parts."""
    line = a_line(X, 1, sequence)
    first = line.answer(0, is_last=parts == 1)
    rest = [
        Answer(0, X, None, (), (b"%d of %d" % (part, sequence),), is_last=part == parts - 1)
        for part in range(1, parts)
    ]
    return [first, *rest]


# ----------------------------------------------------------------- newer replaces older


def test_announcements_become_one_with_the_highest_heads():
    """However often a node changes, a slow peer hears of its newest digest alone."""
    outbox = filled(*(Announce((a_head(X, number), a_head("y.example.org"))) for number in range(1, 1000)))
    assert read(outbox) == [Announce((a_head(X, 999), a_head("y.example.org")))]


def test_a_lower_head_replaces_nothing():
    """The order of arrival does not matter."""
    assert read(filled(Announce((a_head(X, 5),)), Announce((a_head(X, 4),)))) == [Announce((a_head(X, 5),))]


def test_many_heads_leave_in_pages():
    """A page holds what a page of a vector holds, and every head leaves once."""
    heads = tuple(a_head(f"x{number}.example.org") for number in range(HEADS_PER_PAGE + 1))
    pages = read(filled(Announce(heads[:200]), Announce(heads[200:])))
    assert [len(page.heads) for page in pages] == [HEADS_PER_PAGE, 1]
    assert tuple(head for page in pages for head in page.heads) == heads


def test_a_page_of_the_longest_names_fits_into_a_frame():
    """The bound of a page holds for any host name."""
    longest = [".".join(["a" * 63] * 3 + [f"{number:060}"]) for number in range(HEADS_PER_PAGE)]
    head = attrs.evolve(a_head(X), order=Order(CertificateRank(2**63 - 1, bytes(20)), 2**63 - 1, 2**63 - 1))
    outbox = filled(Announce(tuple(attrs.evolve(head, origin=name) for name in longest)))
    data = outbox.take()
    assert len(data) <= FRAME_BYTES
    assert not outbox


def test_an_own_change_is_replaced_whole_by_the_next():
    """All parts of the older go, none of the newer is missing."""
    assert read(filled(*a_push(1, 3), *a_push(2), *a_push(3, 2))) == a_push(3, 2)


def test_an_own_change_that_has_begun_to_leave_is_ended():
    """A peer that has the first part gets the last; the next change follows, the one between is skipped."""
    outbox = filled(*a_push(1, 3))
    first = decode(outbox.take()[4:])
    for part in (*a_push(2), *a_push(3)):
        outbox.put(part)
    assert [first, *read(outbox)] == [*a_push(1, 3), *a_push(3)]


def test_the_rest_of_a_change_whose_beginning_was_written_before_stays():
    """The link was paused in the middle: the outbox gets only the tail, and keeps it."""
    tail = a_push(1, 4)[1:]
    assert read(filled(*tail, *a_push(2), *a_push(3))) == [*tail, *a_push(3)]


def test_of_pings_pongs_and_roots_the_latest_counts():
    """A question for roots is not replaced by an answer about them."""
    asked, said = Roots({1: bytes(32)}, is_reply=False), Roots({1: bytes(32)}, is_reply=True)
    newer = Roots({1: b"\x01" * 32}, is_reply=True)
    outbox = filled(Ping(1, 1), Pong(1, 1), said, asked, Ping(2, 2), Pong(2, 2), newer)
    assert read(outbox) == [Ping(2, 2), Pong(2, 2), newer, asked]


def test_what_answers_keeps_its_order():
    """Questions, answers, hello and goodbye are neither merged nor moved."""
    messages = [
        a_hello(),
        Ask(1, X, None, b""),
        a_line(X).answer(7),
        a_line(X).answer(7),
        Bodies(8, (b"b",), is_last=True),
        Goodbye(1, 30, "bye"),
    ]
    assert read(filled(*messages)) == messages


# ----------------------------------------------------------------- laws

heads = st.builds(
    a_head, st.sampled_from(["a.example.org", "b.example.org", "c.example.org"]), st.integers(1, 9)
)
puts = st.one_of(
    st.builds(Announce, st.lists(heads, max_size=3).map(tuple)).map(lambda message: [message]),
    st.builds(a_push, st.integers(1, 9), st.integers(1, 3)),
    st.builds(Ping, st.integers(0, 9), st.just(1)).map(lambda message: [message]),
    st.builds(Roots, st.just({}), st.booleans()).map(lambda message: [message]),
    st.builds(Ask, st.integers(1, 9), st.just(X), st.none(), st.just(b"")).map(lambda message: [message]),
)
steps = st.lists(st.one_of(puts, st.integers(1, 4)), max_size=40)


@settings(deadline=None)
@given(steps)
def test_any_mixture_of_putting_and_taking_keeps_the_laws(schedule):
    """Sizes are exact, questions complete and in order, changes whole, heads the highest, the last change never lost."""
    outbox, said, asked, last_push, highest = Outbox(), [], [], [], {}
    for step in schedule:
        if isinstance(step, int):
            said += [decode(data[4:]) for _ in range(step) if (data := outbox.take()) is not None]
            continue
        for message in step:
            outbox.put(message)
            if isinstance(message, Ask):
                asked.append(message)
            elif isinstance(message, Announce):
                for head in message.heads:
                    highest[head.origin] = max(
                        highest.get(head.origin, head), head, key=lambda one: one.order
                    )
        if isinstance(step[0], Answer):
            last_push = step
        held = [data for slot in outbox._slots.values() for data in slot.frames]
        assert outbox.size_bytes == sum(map(len, held)) + sum(
            len(head.encoded) for head in outbox._heads.values()
        )
        assert len(outbox._heads) <= 3
    said += read(outbox)
    assert (outbox.size_bytes, bool(outbox)) == (0, False)
    assert [message for message in said if isinstance(message, Ask)] == asked
    parts = [message for message in said if isinstance(message, Answer)]
    assert parts[len(parts) - len(last_push) :] == last_push
    assert Counter(part.signed is not None for part in parts)[True] == sum(part.is_last for part in parts)
    inside = False
    for part in parts:
        assert (part.signed is None) == inside
        inside = not part.is_last
    told = {}
    for message in said:
        if isinstance(message, Announce):
            told.update({head.origin: head for head in message.heads})
    assert told.keys() == highest.keys()
    assert all(highest[origin].order >= head.order for origin, head in told.items())


@given(st.lists(puts, max_size=20))
def test_what_never_leaves_is_bounded_by_what_can_differ(batches):
    """Without questions an outbox holds at most one of each kind, however long its peer sleeps."""
    outbox = Outbox()
    for batch in batches * 5:
        for message in batch:
            if not isinstance(message, Ask):
                outbox.put(message)
    assert len(outbox._slots) <= 5
    assert outbox.size_bytes <= 3 * len(a_head("a.example.org").encoded) + 4 * 2048


def test_a_frame_is_what_the_codec_makes():
    """Nothing is changed on its way through."""
    message = Ping(3, 4)
    assert filled(message).take() == frame(encode(message))


def test_clearing_leaves_nothing():
    """A link that is gone holds no memory."""
    outbox = filled(Announce((a_head(X),)), Ping(1, 1), *a_push(1))
    outbox.clear()
    assert (outbox.size_bytes, bool(outbox), outbox.take()) == (0, False, None)


def test_a_hello_is_never_overtaken():
    """It is the first message of a link, whatever else has something to say."""
    outbox = filled(a_hello(), Announce((a_head(X),)), Pong(1, 1), *a_push(1))
    assert isinstance(read(outbox)[0], Hello)
