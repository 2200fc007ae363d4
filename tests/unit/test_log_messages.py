"""The messages of event logs as bytes: bounds, compression, and what a hostile stream is."""

import zlib

import msgpack
import pytest

from esgf_gossip.core import limits
from esgf_gossip.core.codec import decode, encode
from esgf_gossip.core.errors import WireError
from esgf_gossip.core.messages import AskLeaves, AskProof, Leaves, Proof

HASH = bytes(range(32))
EXAMPLES = {
    "ask": AskLeaves(8, "a.example.org", "datasets", 1 << 50, 4096, 70_000),
    "leaves": Leaves(8, 4096, (b"one", b"two"), (HASH,), (HASH,), is_last=True),
    "ask-proof": AskProof(9, "a.example.org", "datasets", 1 << 50, 5, 70_000),
    "proof": Proof(9, (HASH,)),
}


def changed(name, place, value):
    """Return an example with one field replaced, as bytes."""
    fields = msgpack.unpackb(encode(EXAMPLES[name]))
    fields[place] = value
    return msgpack.packb(fields, use_bin_type=True)


def compressed(value):
    """Return any value as a compressed stream."""
    return zlib.compress(msgpack.packb(value, use_bin_type=True))


@pytest.mark.parametrize(
    ("name", "place", "inside", "beyond"),
    [
        ("ask", 1, limits.COUNTER_MAX, limits.COUNTER_MAX + 1),
        ("ask", 2, "a", "A"),
        ("ask", 3, "a" * limits.NAME_CHARACTERS, "a" * (limits.NAME_CHARACTERS + 1)),
        ("ask", 4, limits.COUNTER_MAX, -1),
        ("ask", 5, limits.COUNTER_MAX, limits.COUNTER_MAX + 1),
        ("ask", 6, limits.COUNTER_MAX, True),
        ("leaves", 2, 0, -1),
        ("leaves", 3, [b"x"] * limits.MESSAGE_LEAVES, [b"x"] * (limits.MESSAGE_LEAVES + 1)),
        ("leaves", 3, [bytes(limits.LEAF_BYTES)], [bytes(limits.LEAF_BYTES + 1)]),
        ("leaves", 3, [b"x"], [b""]),
        ("leaves", 3, [b"x"], ["x"]),
        ("leaves", 4, [HASH] * limits.LOG_HASHES, [HASH] * (limits.LOG_HASHES + 1)),
        ("leaves", 5, [HASH] * limits.LOG_HASHES, [HASH] * (limits.LOG_HASHES + 1)),
        ("leaves", 5, [HASH], [HASH[1:]]),
        ("leaves", 6, False, 0),
        ("ask-proof", 6, limits.COUNTER_MAX, limits.COUNTER_MAX + 1),
        ("proof", 2, [HASH] * limits.LOG_HASHES, [HASH] * (limits.LOG_HASHES + 1)),
        (
            "leaves",
            3,
            compressed([b"x"] * limits.MESSAGE_LEAVES),
            compressed([b"x"] * (limits.MESSAGE_LEAVES + 1)),
        ),
        ("leaves", 3, compressed([b"x"]), compressed([b"x"])[:-1]),
        ("leaves", 3, compressed([b"x"]), compressed([b"x"]) + b"x"),
        ("leaves", 3, compressed([b"x"]), compressed(b"x")),
        ("leaves", 3, compressed([b"x"]), zlib.compress(b"\xc1")),
        ("leaves", 3, compressed([b"x"]), b""),
        ("leaves", 3, compressed([b"x"]), compressed([bytes(limits.LEAF_BYTES + 1)])),
        ("leaves", 3, compressed([bytes(4000)] * 30), compressed([bytes(4000)] * 31)),
    ],
)
def test_a_bound_of_a_log_message_is_exact(name, place, inside, beyond):
    """What is at the bound is taken, what is one beyond is not; a compressed stream is judged like the plain list."""
    decode(changed(name, place, inside))
    with pytest.raises(WireError):
        decode(changed(name, place, beyond))


def test_a_small_stream_of_much_is_not_unpacked():
    """A few kilobytes that would be many megabytes are a breach, read no further than the bound."""
    bomb = zlib.compress(bytes(64 * 1024 * 1024), 9)
    assert len(bomb) < limits.FRAME_BYTES
    with pytest.raises(WireError, match="at most"):
        decode(changed("leaves", 3, bomb))


def test_leaves_that_shrink_are_sent_compressed_and_others_as_they_are():
    """Both forms read as the same message."""
    alike = Leaves(8, 0, tuple(b'{"dataset": "cmip6.%d"}' % number for number in range(500)), (), (), True)
    apart = Leaves(8, 0, (b"\x01\x9f", b"\x55"), (), (), True)
    assert decode(encode(alike)) == alike
    assert decode(encode(apart)) == apart
    assert isinstance(msgpack.unpackb(encode(alike))[3], bytes)
    assert len(encode(alike)) < sum(map(len, alike.leaves)) / 2
    assert msgpack.unpackb(encode(apart))[3] == list(apart.leaves)
