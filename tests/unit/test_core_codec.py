"""Messages and digests as bytes: core.codec against golden files, bounds and growth."""

from pathlib import Path

import attrs
import msgpack
import pytest

from esgf_gossip.core import codec, limits
from esgf_gossip.core.codec import decode, encode
from esgf_gossip.core.digests import decode_digest, encode_digest
from esgf_gossip.core.errors import WireError
from esgf_gossip.core.messages import (
    Announce,
    Answer,
    Ask,
    AskLeaves,
    AskProof,
    Bodies,
    Farewell,
    Fingerprints,
    Fork,
    Forks,
    GiveTrust,
    Goodbye,
    Heads,
    Hello,
    Leaves,
    Message,
    Ping,
    Pong,
    Proof,
    Roots,
    TrustHeads,
    Unknown,
    Want,
    WantFork,
    WantTrust,
)
from esgf_gossip.core.model import (
    CertificateRank,
    Digest,
    EntryRef,
    Head,
    LogRef,
    Order,
    SignedDigest,
    TrustHead,
)

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "messages"
HASH = bytes(range(32))
SERIAL = bytes(19) + b"\x07"
HEAD = Head("a.example.org", Order(CertificateRank(1_700_000_000, SERIAL), 9, 3), HASH)
SIGNED = SignedDigest(b"payload", b"signature")

MESSAGES = {
    "hello": Hello(1, 2, (7,), "fed.example.org", b"0123456789abcdef", 1_790_000_000_000, {1: HASH}, HEAD),
    "hello-stranger": Hello(1, 1, (), "fed.example.org", b"0123456789abcdef", 0, {}, None),
    "roots": Roots({1: HASH}, is_reply=True),
    "heads": Heads((HEAD,), is_last=False),
    "announce": Announce((HEAD,)),
    "ask": Ask(5, "a.example.org", HEAD, HASH),
    "ask-nothing-held": Ask(6, "a.example.org", None, b""),
    "answer": Answer(5, "a.example.org", SIGNED, (b"leaf", b"issuer"), (b"body",), is_last=True),
    "answer-nothing-newer": Answer(6, "a.example.org", None, (), (), is_last=True),
    "want": Want(7, (HASH,)),
    "bodies": Bodies(7, (b"body", b""), is_last=True),
    "ping": Ping(300, 1_790_000_000_000),
    "pong": Pong(300, 1_790_000_000_000),
    "goodbye": Goodbye(Farewell.STOPPING, 30, "this node stops"),
    "fingerprints": Fingerprints(3, b"saltsalt", b"\xa0", b"headhead"),
    "forks": Forks((HASH,), b"", HASH),
    "want-fork": WantFork(HASH),
    "fork": Fork((b"leaf", b"issuer"), SIGNED, SignedDigest(b"another", b"signature"), "", ()),
    "fork-of-a-log": Fork((b"leaf",), SIGNED, SIGNED, "datasets", (HASH,)),
    "ask-leaves": AskLeaves(8, "a.example.org", "datasets", 1 << 50, 4096, 70_000),
    "leaves": Leaves(8, 4096, (b"one", b"two"), (HASH,), (HASH[::-1],), is_last=True),
    "leaves-not-held": Leaves(8, 4096, (), (), (), is_last=True),
    "ask-proof": AskProof(9, "a.example.org", "datasets", 1 << 50, 5, 70_000),
    "proof": Proof(9, (HASH, HASH[::-1])),
    "trust-heads": TrustHeads((TrustHead("crl/0011aabb", 43, 1_790_000_000, HASH),), "", "~"),
    "want-trust": WantTrust("crl/0011aabb"),
    "give-trust": GiveTrust("crl/0011aabb", b"body"),
}
# In the order of their numbers, from 1 on.
KIND_NAMES = (
    "hello roots heads announce ask answer want bodies ping pong goodbye fingerprints forks want-fork fork "
    "ask-leaves leaves ask-proof proof trust-heads want-trust give-trust"
)
KINDS = {name: number for number, name in enumerate(KIND_NAMES.split(), start=1)}
DIGEST = Digest(
    federation="fed.example.org",
    origin="a.example.org",
    certificate_sha256=HASH,
    epoch=1 << 50,
    sequence=4,
    issued_at_ms=1_790_000_000_000,
    expires_at_ms=1_790_604_800_000,
    contact=("gossip.example.org", 8951),
    entries={
        "metrics": EntryRef(HASH, 65536, (1 << 50, 4), 1_790_000_000_000),
        "registration": EntryRef(HASH[::-1], 0, (1, 1), 0),
    },
    logs={"datasets": LogRef(2, 70000, HASH, 10)},
    leaving=True,
)


def golden(name):
    """Return the bytes of a golden file: hexadecimal, a comment after each #."""
    lines = (GOLDEN / f"{name}.hex").read_text().splitlines()
    return bytes.fromhex("".join(line.split("#")[0] for line in lines))


def fields(name):
    """Return the fields of a message as msgpack sees them."""
    return msgpack.unpackb(golden(name))


def packed(value):
    """Return any value as msgpack, however wrong."""
    return msgpack.packb(value, use_bin_type=True)


def changed(name, place, value):
    """Return a golden message with one field replaced."""
    array = fields(name)
    array[place] = value
    return packed(array)


def a_host(characters):
    """Return a host name of exactly so many characters, 255 at most."""
    return ".".join(["a" * 63] * 4)[-characters:]


# ----------------------------------------------------------------- golden files


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_a_message_is_written_as_the_golden_file_says(name):
    """Bytes once spoken never change, or old peers hear something else."""
    assert golden(name).hex() == encode(MESSAGES[name]).hex()


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_a_golden_file_reads_as_its_message(name):
    """What an old peer says is understood for ever."""
    assert MESSAGES[name] == decode(golden(name))


def test_the_digest_is_written_as_its_golden_file_says():
    """The bytes under a signature are the same on every machine."""
    assert golden("digest").hex() == encode_digest(DIGEST).hex()


def test_the_golden_digest_reads_as_its_digest():
    """A digest signed years ago is read as it was meant."""
    assert decode_digest(golden("digest")) == DIGEST


def test_every_kind_of_message_has_a_golden_file():
    """A new kind comes with its bytes, and no file lies about without a test."""
    assert set(MESSAGES) | {"digest"} == {path.stem for path in GOLDEN.glob("*.hex")}
    assert set(Message.__args__) - {Unknown} == {type(message) for message in MESSAGES.values()}


def test_kinds_keep_their_numbers():
    """A number, once given, keeps its meaning for ever; new ones come after."""
    assert {name: fields(name)[0] for name in KINDS} == KINDS
    assert list(codec._READERS) == sorted(KINDS.values())


# ----------------------------------------------------------------- growth


@pytest.mark.parametrize("kind", [0, 99, 255, 65535])
def test_a_kind_of_the_future_is_no_error(kind):
    """A newer peer may say more than we know: it is heard as Unknown, whatever it carries."""
    assert Unknown(kind) == decode(packed([kind, "anything", {"x": [1]}]))


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_fields_of_the_future_are_left_out(name):
    """Arrays grow at their end only, so the rest is ignored."""
    assert MESSAGES[name] == decode(packed([*fields(name), "new", [1, {}]]))


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_a_missing_field_is_an_error(name):
    """Fewer fields than ever were is not our protocol."""
    with pytest.raises(WireError, match="at least"):
        decode(packed(fields(name)[:-1]))


def test_a_digest_of_the_future_is_read():
    """New fields at the end of a digest, an entry, a log or the flags leave the rest as it was."""
    array = fields("digest")
    array[8].append("new")
    array[9]["metrics"].append("new")
    array[9]["metrics"][2].append(0)
    array[10]["datasets"].append("new")
    array[11] |= 0b1110
    assert decode_digest(packed([*array, "new"])) == DIGEST


def test_a_digest_with_a_missing_field_is_an_error():
    """A digest never shrinks."""
    with pytest.raises(WireError, match="at least"):
        decode_digest(packed(fields("digest")[:-1]))


def test_heads_of_the_future_are_read():
    """A head may grow at its end too."""
    array = fields("announce")
    array[1][0].append("new")
    assert MESSAGES["announce"] == decode(packed(array))


# ----------------------------------------------------------------- bounds

HEAD_FIELDS = HEAD.as_array()


def _head(place, value):
    array = list(HEAD_FIELDS)
    array[place] = value
    return [array]


# Message, field, value at the bound, value beyond it.
BOUNDS = [
    ("hello", 1, 65535, 65536),
    ("hello", 2, 65535, 65536),
    ("hello", 2, 0, -1),
    ("hello", 3, [65535] * limits.MESSAGE_FEATURES, [1] * (limits.MESSAGE_FEATURES + 1)),
    ("hello", 3, [65535], [65536]),
    ("hello", 4, a_host(253), a_host(254)),
    ("hello", 5, bytes(16), bytes(17)),
    ("hello", 5, bytes(16), bytes(15)),
    ("hello", 6, limits.TIME_MS_MAX, limits.TIME_MS_MAX + 1),
    ("hello", 7, [[255, HASH]] * limits.MESSAGE_KINDS, [[1, HASH]] * (limits.MESSAGE_KINDS + 1)),
    ("hello", 7, [[255, HASH]], [[256, HASH]]),
    ("hello", 7, [[1, HASH]], [[1, HASH + b"x"]]),
    ("roots", 1, [], [[1]]),
    ("roots", 2, False, 0),
    ("heads", 1, [HEAD_FIELDS] * limits.MESSAGE_HEADS, [HEAD_FIELDS] * (limits.MESSAGE_HEADS + 1)),
    ("announce", 1, [HEAD_FIELDS] * limits.MESSAGE_HEADS, [HEAD_FIELDS] * (limits.MESSAGE_HEADS + 1)),
    ("announce", 1, _head(0, a_host(253)), _head(0, a_host(254))),
    ("announce", 1, _head(0, "a"), _head(0, "")),
    ("announce", 1, _head(0, "a-1.example"), _head(0, "A-1.example")),
    ("announce", 1, _head(0, "a-1.example"), _head(0, "a-1.example\n")),
    ("announce", 1, _head(1, limits.COUNTER_MAX), _head(1, limits.COUNTER_MAX + 1)),
    ("announce", 1, _head(2, bytes(20)), _head(2, bytes(21))),
    ("announce", 1, _head(2, bytes(20)), _head(2, bytes(19))),
    ("announce", 1, _head(3, limits.COUNTER_MAX), _head(3, limits.COUNTER_MAX + 1)),
    ("announce", 1, _head(4, limits.COUNTER_MAX), _head(4, limits.COUNTER_MAX + 1)),
    ("announce", 1, _head(4, 0), _head(4, -1)),
    ("announce", 1, _head(5, bytes(32)), _head(5, bytes(33))),
    ("ask", 1, limits.COUNTER_MAX, limits.COUNTER_MAX + 1),
    ("ask", 1, 1, True),
    ("ask", 4, bytes(32), bytes(33)),
    ("answer", 3, [bytes(limits.DIGEST_BYTES), b"s"], [bytes(limits.DIGEST_BYTES + 1), b"s"]),
    ("answer", 3, [b"p", b"s"], [b"", b"s"]),
    ("answer", 3, [b"p", bytes(limits.SIGNATURE_BYTES)], [b"p", bytes(limits.SIGNATURE_BYTES + 1)]),
    ("answer", 3, [b"p", b"s"], [b"p", b""]),
    ("answer", 4, [b"c"] * limits.CHAIN_CERTIFICATES, [b"c"] * (limits.CHAIN_CERTIFICATES + 1)),
    ("answer", 4, [bytes(limits.CHAIN_BYTES)], [bytes(limits.CHAIN_BYTES + 1)]),
    ("answer", 4, [bytes(limits.CHAIN_BYTES - 1), b"c"], [bytes(limits.CHAIN_BYTES), b"c"]),
    ("answer", 4, [b"c"], [b""]),
    ("answer", 5, [b""] * limits.MESSAGE_BODIES, [b""] * (limits.MESSAGE_BODIES + 1)),
    ("answer", 5, [bytes(limits.ENTRY_BYTES)], [bytes(limits.ENTRY_BYTES + 1)]),
    ("want", 2, [HASH] * limits.MESSAGE_HASHES, [HASH] * (limits.MESSAGE_HASHES + 1)),
    ("bodies", 2, [b""] * limits.MESSAGE_BODIES, [b""] * (limits.MESSAGE_BODIES + 1)),
    ("bodies", 2, [bytes(limits.ENTRY_BYTES)], [bytes(limits.ENTRY_BYTES + 1)]),
    ("ping", 1, limits.COUNTER_MAX, limits.COUNTER_MAX + 1),
    ("ping", 2, limits.TIME_MS_MAX, limits.TIME_MS_MAX + 1),
    ("pong", 2, limits.TIME_MS_MAX, limits.TIME_MS_MAX + 1),
    ("goodbye", 1, 255, 256),
    ("goodbye", 2, 10**9, 10**9 + 1),
    ("fingerprints", 1, 255, 256),
    ("fingerprints", 2, bytes(8), bytes(7)),
    ("fingerprints", 2, bytes(8), bytes(9)),
    ("fingerprints", 3, bytes(limits.SUMMARY_HEADS // 8), bytes(limits.SUMMARY_HEADS // 8 + 1)),
    ("fingerprints", 4, bytes(limits.SUMMARY_HEADS * 4), bytes(limits.SUMMARY_HEADS * 4 + 1)),
    ("forks", 1, [HASH] * limits.MESSAGE_FORKS, [HASH] * (limits.MESSAGE_FORKS + 1)),
    ("forks", 1, [HASH], [HASH[1:]]),
    ("forks", 2, HASH, HASH + b"x"),
    ("forks", 3, b"", HASH + b"x"),
    ("want-fork", 1, HASH, HASH[1:]),
    ("fork", 1, [b"c"] * limits.CHAIN_CERTIFICATES, [b"c"] * (limits.CHAIN_CERTIFICATES + 1)),
    ("fork", 2, [bytes(limits.DIGEST_BYTES), b"s"], [bytes(limits.DIGEST_BYTES + 1), b"s"]),
    ("fork", 2, [b"p", b"s"], None),
    ("fork", 3, [b"p", bytes(limits.SIGNATURE_BYTES)], [b"p", bytes(limits.SIGNATURE_BYTES + 1)]),
    ("fork", 4, "", "A"),
    ("fork", 4, "a" * 64, "a" * 65),
    ("fork", 5, [HASH] * limits.FORK_HASHES, [HASH] * (limits.FORK_HASHES + 1)),
    ("goodbye", 3, "x" * limits.TEXT_CHARACTERS, "x" * (limits.TEXT_CHARACTERS + 1)),
]


@pytest.mark.parametrize(("name", "place", "inside", "beyond"), BOUNDS)
def test_a_bound_of_a_message_is_exact(name, place, inside, beyond):
    """What is at the bound is taken, what is one beyond is not."""
    decode(changed(name, place, inside))
    with pytest.raises(WireError):
        decode(changed(name, place, beyond))


def _digest(**changes):
    return encode_digest(attrs.evolve(DIGEST, **changes))


def _entries(count, **changes):
    ref = attrs.evolve(EntryRef(HASH, 1, (1, 1), 1), **changes)
    return {f"entry-{number}": ref for number in range(count)}


def _entry(**changes):
    return {"entries": {"e": attrs.evolve(EntryRef(HASH, 1, (1, 1), 1), **changes)}}


def _logs(count):
    return {f"log-{number}": LogRef(1, 1, HASH, 0) for number in range(count)}


DIGEST_BOUNDS = [
    ({"entries": _entries(limits.DIGEST_ENTRIES)}, {"entries": _entries(limits.DIGEST_ENTRIES + 1)}),
    ({"logs": _logs(limits.DIGEST_LOGS)}, {"logs": _logs(limits.DIGEST_LOGS + 1)}),
    (_entry(size_bytes=limits.ENTRY_BYTES), _entry(size_bytes=limits.ENTRY_BYTES + 1)),
    (
        {"entries": _entries(8, size_bytes=limits.ENTRY_BYTES)},
        {"entries": {**_entries(8, size_bytes=limits.ENTRY_BYTES), "one": EntryRef(HASH, 1, (1, 1), 1)}},
    ),
    (_entry(changed_at=(limits.COUNTER_MAX, 1)), _entry(changed_at=(limits.COUNTER_MAX + 1, 1))),
    (_entry(changed_at_ms=limits.TIME_MS_MAX), _entry(changed_at_ms=limits.TIME_MS_MAX + 1)),
    (_entry(sha256=bytes(32)), _entry(sha256=bytes(31))),
    (
        {"entries": {"a" * 64: EntryRef(HASH, 1, (1, 1), 1)}},
        {"entries": {"a" * 65: EntryRef(HASH, 1, (1, 1), 1)}},
    ),
    ({"entries": {"a": EntryRef(HASH, 1, (1, 1), 1)}}, {"entries": {"A": EntryRef(HASH, 1, (1, 1), 1)}}),
    ({"logs": {"a" * 64: LogRef(1, 1, HASH, 0)}}, {"logs": {"a" * 65: LogRef(1, 1, HASH, 0)}}),
    ({"epoch": limits.COUNTER_MAX}, {"epoch": limits.COUNTER_MAX + 1}),
    ({"sequence": limits.COUNTER_MAX}, {"sequence": limits.COUNTER_MAX + 1}),
    ({"issued_at_ms": limits.TIME_MS_MAX}, {"issued_at_ms": limits.TIME_MS_MAX + 1}),
    ({"expires_at_ms": limits.TIME_MS_MAX}, {"expires_at_ms": limits.TIME_MS_MAX + 1}),
    ({"contact": ("a", 65535)}, {"contact": ("a", 65536)}),
    ({"contact": ("::1", 0)}, {"contact": ("", 0)}),
    ({"contact": ("A" * 253, 1)}, {"contact": ("A" * 254, 1)}),
    ({"contact": ("a", 1)}, {"contact": ("a b", 1)}),
    ({"origin": a_host(253)}, {"origin": a_host(254)}),
    ({"origin": "a"}, {"origin": "a/b"}),
    ({"federation": "a"}, {"federation": "Fed"}),
    ({"certificate_sha256": bytes(32)}, {"certificate_sha256": bytes(33)}),
]


@pytest.mark.parametrize(("inside", "beyond"), DIGEST_BOUNDS)
def test_a_bound_of_a_digest_is_exact(inside, beyond):
    """What is at the bound is read, what is one beyond is not."""
    assert attrs.evolve(DIGEST, **inside) == decode_digest(_digest(**inside))
    with pytest.raises(WireError):
        decode_digest(_digest(**beyond))


def test_a_digest_has_at_most_16_kib():
    """The bound of a digest holds for its bytes, unknown fields included."""
    array = fields("digest")
    rest = limits.DIGEST_BYTES - len(packed([*array, bytes(1000)])) + 1000
    assert decode_digest(packed([*array, bytes(rest)])) == DIGEST
    with pytest.raises(WireError, match="above"):
        decode_digest(packed([*array, bytes(rest + 1)]))


def test_a_digest_of_another_format_is_not_read():
    """The first number says how to read the rest."""
    with pytest.raises(WireError, match="format 2"):
        decode_digest(packed([2, *fields("digest")[1:]]))


def test_one_key_named_twice_is_refused():
    """Two readers never read one signed map differently."""
    whole = golden("digest")
    assert whole.count(b"\xacregistration") == 1
    twice = whole.replace(b"\xacregistration", b"\xa7metrics", 1)
    with pytest.raises(WireError, match="twice"):
        decode_digest(twice)


def test_text_for_the_log_has_no_control_characters():
    """What a stranger says cannot move the cursor of who reads the log."""
    heard = decode(changed("goodbye", 3, "a\nb\x1b[2J\u202ec"))
    assert "a?b?[2J?c" == heard.text  # noqa: SIM300


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x90",
        packed({}),
        packed("text"),
        packed([True]),
        packed(["1"]),
        packed([-1]),
        packed([65536]),
        packed([1.0]),
        packed([9, 1, 2]) + b"\x00",
        packed([9, 1.0, 2]),
        packed([9, None, 2]),
        packed([9, msgpack.ExtType(5, b""), 2]),
        packed([9, msgpack.Timestamp(1), 2]),
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\x91" * 100_000,
        b"\x81\xc0" * 100,
        b"\x92\x09\xa1\xff",
    ],
)
def test_what_is_no_message_is_a_wire_error(payload):
    """Any bytes give a message or a WireError, never another exception."""
    with pytest.raises(WireError):
        decode(payload)


def test_nested_lengths_cost_no_memory():
    """Declared lengths, one inside the other, do not make us reserve what never comes."""
    huge = b"\xdd\x00\x01\xff\x00" * 1000
    with pytest.raises(WireError, match="max_array_len"):
        decode(huge + bytes(limits.FRAME_BYTES - len(huge)))
