"""Any bytes give a message or a WireError, never another exception: framing and codec against hostile input."""

import os
from pathlib import Path
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esgf_gossip.core.codec import decode, encode
from esgf_gossip.core.digests import decode_digest
from esgf_gossip.core.errors import WireError
from esgf_gossip.core.framing import PREFIX_BYTES, FrameBuffer, frame
from esgf_gossip.core.limits import FRAME_BYTES
from esgf_gossip.core.messages import Message, Unknown
from esgf_gossip.core.model import Digest

EXAMPLES = int(os.environ.get("HOSTILE_EXAMPLES", "3000"))
MANY = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=EXAMPLES <= 3000,
)
FEW = settings(max_examples=max(100, EXAMPLES // 100), deadline=None, suppress_health_check=list(HealthCheck))

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "messages"
VALID = [
    bytes.fromhex("".join(line.split("#")[0] for line in path.read_text().splitlines()))
    for path in sorted(GOLDEN.glob("*.hex"))
]
HUGE = [
    b"\xdc\xff\xff",
    b"\xdd\x00\x01\xff\x00",
    b"\xdd\xff\xff\xff\xff",
    b"\xde\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc5\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xda\xff\xff",
    b"\xdb\x7f\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x01",
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00",
    b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",
    b"\xc1",
    b"\xd6\xff\x00\x00\x00\x00",
    b"\xc7\x00\xff",
]


# Deep enough for any recursion to be found, wide enough to be expensive if lengths were believed.
NESTS = [level * depth for level in (b"\x91", b"\x81\xa1a", b"\x92\xc0") for depth in (1, 2, 600, 2000)]


def mutated(random):
    """Return a valid payload after accidents: bits turned, cut, spliced, lengths blown up, nested."""
    data = bytearray(random.choice(VALID))
    for _ in range(random.randint(1, 4)):
        place = random.randint(0, len(data))
        accident = random.randrange(6)
        if accident == 0 and place < len(data):
            data[place] ^= 1 << random.randrange(8)
        elif accident == 1:
            del data[place:]
        elif accident == 2:
            other = random.choice(VALID)
            data[place:] = other[random.randint(0, len(other)) :]
        elif accident == 3:
            data[place:place] = random.choice(HUGE)
        elif accident == 4:
            data[place:place] = random.randbytes(random.randrange(9))
        else:
            data[place : place + 1] = random.choice(NESTS)
    return bytes(data[:FRAME_BYTES])


def a_value(random, depth=0):
    """Return well-formed msgpack of any shape, and now and then a length that lies."""
    choice = random.randrange(8 if depth < 4 else 5)
    if choice == 0:
        return bytes([random.randrange(128)])
    if choice == 1:
        return random.choice([b"\xc0", b"\xc2", b"\xc3", *HUGE])
    if choice == 2:
        size = random.choice([0, 1, 16, 20, 32, 33])
        return b"\xc4" + bytes([size]) + random.randbytes(size)
    if choice == 3:
        text = random.choice([b"a.example.org", b"a", b"", b"\xff\xfe", b"A", b"registration"])
        return bytes([0xA0 | len(text)]) + text
    if choice == 4:
        return b"\xcf" + random.randbytes(8)
    count = random.randrange(9)
    if choice == 5:
        return bytes([0x80 | count]) + b"".join(a_value(random, depth + 1) for _ in range(2 * count))
    return bytes([0x90 | count]) + b"".join(a_value(random, depth + 1) for _ in range(count))


def shaped(random):
    """Return an array that begins as a message or a digest does and goes on as it likes."""
    count = random.randrange(13)
    start = bytes([0x90 | (count + 1), random.randrange(22)])
    return start + b"".join(a_value(random) for _ in range(count))


def hostile(seed):
    """Return the payload of a seed: the seed is what Hypothesis draws, because drawing bytes one by one is slow."""
    random = Random(seed)
    return random.choice([mutated, mutated, shaped])(random)


payloads = st.one_of(st.binary(max_size=200), *[st.integers(0, 2**64).map(hostile)] * 3)


def heard(read, payload):
    """Return what a reader makes of a payload: a value or WireError, nothing else."""
    try:
        return read(payload)
    except WireError:
        return WireError


def stream(chunks):
    """Return what a receiver makes of a stream: messages, and WireError as the last where it ends in one."""
    buffer = FrameBuffer()
    found = []
    try:
        for chunk in chunks:
            # One by one: what came before the stream is lost has been heard.
            for payload in buffer.feed(chunk):
                found.append(heard(decode, payload))  # noqa: PERF401
    except WireError:
        found.append("the stream is lost")
    return found


@MANY
@given(payloads)
def test_any_payload_is_a_message_a_digest_or_a_wire_error(payload):
    """Hostile bytes, as a message or under a signature, raise nothing but WireError; what they give can be said again."""
    digest = heard(decode_digest, payload)
    assert digest is WireError or isinstance(digest, Digest)
    message = heard(decode, payload)
    assert message is WireError or isinstance(message, Message)
    if message is not WireError and not isinstance(message, Unknown):
        assert message == decode(encode(message))


@FEW
@given(st.lists(payloads.filter(bool), max_size=4), st.binary(max_size=12), st.data())
def test_whole_byte_by_byte_and_in_chunks_are_the_same(frames, tail, data):
    """How TCP cuts the stream changes nothing, nor does what comes after a frame."""
    whole = b"".join(map(frame, frames)) + tail
    expected = stream([whole])
    assert expected == stream([bytes([byte]) for byte in whole])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert expected == stream(pieces)
    assert [heard(decode, payload) for payload in frames] == expected[: len(frames)]


@FEW
@given(st.binary(max_size=4000))
def test_arbitrary_streams_are_the_same_however_cut(data):
    """A stream that never was our protocol ends the same way, whole or byte by byte."""
    assert stream([data]) == stream([bytes([byte]) for byte in data])


@FEW
@given(st.integers(0, 2**32 - 1), st.binary(max_size=20))
def test_a_declared_length_reserves_nothing(length, rest):
    """A frame above the bound is refused by its first four bytes; below it only what came is kept."""
    prefix = length.to_bytes(PREFIX_BYTES, "big")
    if not 0 < length <= FRAME_BYTES:
        assert stream([prefix + rest]) == ["the stream is lost"]
        return
    buffer = FrameBuffer()
    frames = buffer.feed(prefix + rest)
    assert (rest[:length] if len(rest) >= length else None) == next(frames, None)
    frames.close()
    assert len(buffer._buffer) <= PREFIX_BYTES + len(rest)


@FEW
@given(st.integers(1, 900), st.sampled_from([b"\x91", b"\x81\x01", b"\x92\x01", b"\xdc\x00\x01"]))
def test_deep_nesting_is_no_recursion(depth, level):
    """A thousand arrays one inside the other are refused or read, but never end the process."""
    assert heard(decode, level * depth * 10) in (WireError, *map(Unknown, range(2)))
