"""
What two peers say to each other: one frozen class per kind of message.

No bytes here (codec) and no reaction (node). Kinds are numbered in the codec;
a number, once given, keeps its meaning for ever. Source: docs/protocol.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

import attrs

from esgf_gossip.core.model import Head, SignedDigest, TrustHead


class LineKind(IntEnum):
    """The kinds of lines in the replicated table; each has a root of its own."""

    DIGESTS = 1
    TRUST = 2
    FORKS = 3


class Feature(IntEnum):
    """Abilities that need both ends, told in the hello: the messages that go with one are sent only where both have it."""

    BUCKETS = 1
    FORKS = 2
    LOGS = 3
    TRUST = 4


class Farewell(IntEnum):
    """Why a link is closed on purpose."""

    STOPPING = 1
    LEAVING = 2
    NOT_NEEDED = 3
    DUPLICATE = 4
    VERSION = 5
    MISBEHAVIOUR = 6
    OVERLOADED = 7
    UNTRUSTED = 8


@attrs.frozen
class Hello:
    """
    Open a link, one from each side; the server's is the admission of the client.

    ``instance`` (16 random bytes) is new with every start of a daemon, so a
    peer that restarted is told from a second link to the same process.
    ``head_of_you`` is the highest head the sender holds of the receiver.
    """

    version_min: int
    version_max: int
    features: tuple[int, ...]
    federation: str
    instance: bytes
    clock_ms: int
    roots: Mapping[int, bytes]
    head_of_you: Head | None


@attrs.frozen
class Roots:
    """
    Compare one root per kind of line; the answer to a request carries ``is_reply``.

    Between peers with ``Feature.BUCKETS`` the answer names only the roots that differ.
    """

    roots: Mapping[int, bytes]
    is_reply: bool


@attrs.frozen
class Heads:
    """
    One page of all heads the sender holds; ``is_last`` marks the end of the vector.

    After ``Fingerprints`` of level LACKING: of those alone that the receiver does not hold.
    """

    heads: tuple[Head, ...]
    is_last: bool


@attrs.frozen
class Announce:
    """Claim to hold these lines, complete. A claim only: nothing is replaced by it."""

    heads: tuple[Head, ...]


@attrs.frozen
class Ask:
    """
    Ask "what of this origin after this head?"; ``held`` is None where no line is held.

    ``certificate_sha256`` names the chain the asker has, empty for none.
    """

    request: int
    origin: str
    held: Head | None
    certificate_sha256: bytes


@attrs.frozen
class Answer:
    """
    Give one part of the newest digest and of the bodies that changed after the head asked about.

    ``signed`` and ``chain`` come with the first part; ``signed`` None says
    "nothing newer". Request 0 is an origin's own change, sent unasked, or shows an
    origin an older digest of its own whose log it seems to have lost.
    """

    request: int
    origin: str
    signed: SignedDigest | None
    chain: tuple[bytes, ...]
    bodies: tuple[bytes, ...]
    is_last: bool


@attrs.frozen
class Want:
    """Ask for bodies by their SHA-256."""

    request: int
    hashes: tuple[bytes, ...]


@attrs.frozen
class Bodies:
    """Give bodies that were asked for; those not held are left out."""

    request: int
    bodies: tuple[bytes, ...]
    is_last: bool


@attrs.frozen
class Ping:
    """Ask for any sign of life; carries the sender's wall clock in ms."""

    token: int
    clock_ms: int


@attrs.frozen
class Pong:
    """Answer a Ping with its token and the sender's wall clock in ms."""

    token: int
    clock_ms: int


@attrs.frozen
class Goodbye:
    """Announce that the sender closes the link; ``away_s`` is how long it expects to be away, 0 unknown."""

    farewell: int
    away_s: int
    text: str


class Level(IntEnum):
    """The steps of a comparison by fingerprints: odd ones from the side that began, even ones from the other."""

    BUCKETS = 1
    SUB_BUCKETS = 2
    HEADS = 3
    LACKING = 4
    ABOVE = 5


@attrs.frozen
class Fingerprints:
    """
    Narrow down where two tables differ, one step of ``Level``; ``salt`` (8 bytes) is that of the comparison.

    ``marks`` is a bitmap over what the step before listed, ``prints`` are fingerprints one directly after the other.
    """

    level: int
    salt: bytes
    marks: bytes
    prints: bytes


@attrs.frozen
class Forks:
    """
    Claim to hold fork lines of these certificates, by their SHA-256.

    All that the sender holds between ``above`` (left out) and ``up_to``; both
    empty where it says nothing of others.
    """

    certificates: tuple[bytes, ...]
    above: bytes
    up_to: bytes


@attrs.frozen
class WantFork:
    """Ask for the fork line of a certificate."""

    certificate_sha256: bytes


@attrs.frozen
class Fork:
    """
    Give the proof that a certificate, the first of ``chain``, signed what contradicts itself.

    ``log`` is empty where the two digests have one number; else it names a log that ``newer``
    shows rewritten, ``hashes`` being the evidence.
    """

    chain: tuple[bytes, ...]
    older: SignedDigest
    newer: SignedDigest
    log: str
    hashes: tuple[bytes, ...]


@attrs.frozen
class AskLeaves:
    """
    Ask for leaves of a log from ``start`` on, as they stand under its root at ``size``.

    The answer goes to the end where that is a block away at most, else to the end of the block of ``start``.
    """

    request: int
    origin: str
    log: str
    born: int
    start: int
    size: int


@attrs.frozen
class Leaves:
    """
    Give leaves that were asked for, in parts; none at all in a last part says "not held".

    ``left`` comes with the first part where ``start`` begins a block, ``right`` with the last where the end
    of the block was asked for and reached. A last part may end early: the rest is asked for again.
    """

    request: int
    start: int
    leaves: tuple[bytes, ...]
    left: tuple[bytes, ...]
    right: tuple[bytes, ...]
    is_last: bool


@attrs.frozen
class AskProof:
    """Ask what the first ``first_size`` leaves of a log are under its root at ``second_size``."""

    request: int
    origin: str
    log: str
    born: int
    first_size: int
    second_size: int


@attrs.frozen
class Proof:
    """Give the hashes of a consistency proof; none says "not held"."""

    request: int
    hashes: tuple[bytes, ...]


@attrs.frozen
class TrustHeads:
    """
    Claim to hold these trust objects.

    All that the sender holds with keys between ``above`` (left out) and ``up_to``; both empty where it says
    nothing of others.
    """

    heads: tuple[TrustHead, ...]
    above: str
    up_to: str


@attrs.frozen
class WantTrust:
    """Ask for the trust object under a key."""

    key: str


@attrs.frozen
class GiveTrust:
    """Give the trust object under a key; its body proves it."""

    key: str
    body: bytes


@attrs.frozen
class Unknown:
    """A kind that this version does not know: ignored and counted, so that newer peers can be understood."""

    kind: int


LogMessage = AskLeaves | Leaves | AskProof | Proof
TrustMessage = TrustHeads | WantTrust | GiveTrust
Message = (
    Hello
    | Roots
    | Heads
    | Announce
    | Ask
    | Answer
    | Want
    | Bodies
    | Ping
    | Pong
    | Goodbye
    | Fingerprints
    | Forks
    | WantFork
    | Fork
    | LogMessage
    | TrustMessage
    | Unknown
)
