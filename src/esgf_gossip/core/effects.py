"""
What the core wants done and what it has to tell.

An effect is an order to the shell, a notice a fact for views and operators. A
batch is carried out in the order persist, send, timers, notices
(docs/adr/0004-effects.md).
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from esgf_gossip.core.logs import Log
from esgf_gossip.core.merkle import Tree
from esgf_gossip.core.messages import Message
from esgf_gossip.core.model import Address, Link, Order, RewriteEvidence, VerifiedDigest

# ----------------------------------------------------------------- timers


@attrs.frozen
class RetryFetch:
    """Ask the next announcer of this origin, unless the request was answered."""

    origin: str
    request: int


@attrs.frozen
class CompareRoots:
    """Compare roots with a random peer, or once more with one whose roots differed."""

    link: Link | None = None


@attrs.frozen
class CheckLinks:
    """Ping silent peers, give up dead ones, close links nobody needs."""


@attrs.frozen
class DrawRings:
    """Compute who should be linked, unless the roster moved again (then ``token`` is old)."""

    token: int


@attrs.frozen
class DialNext:
    """Dial what is due; ``token`` tells a newer plan."""

    token: int


@attrs.frozen
class DrawPartner:
    """Dial one node or seed drawn from all ever known."""


@attrs.frozen
class SignAnew:
    """Sign the own digest again before it expires; ``token`` tells a newer digest."""

    token: int


@attrs.frozen
class RetryLeaves:
    """Ask for leaves again, or somebody else; ``token`` tells a newer question."""

    origin: str
    log: str
    token: int


@attrs.frozen
class JudgeLog:
    """Give up leaves that their origin seems to have lost, unless it has them back."""

    origin: str
    log: str


LogTimer = RetryLeaves | JudgeLog
Timer = RetryFetch | CompareRoots | CheckLinks | DrawRings | DialNext | DrawPartner | SignAnew | LogTimer

# ----------------------------------------------------------------- effects


@attrs.frozen
class PersistEpoch:
    """Make an epoch durable before its first use."""

    epoch: int


@attrs.frozen
class PersistLine:
    """Make a line durable: its digest, the bodies that came with it, the hashes nobody refers to any more."""

    line: VerifiedDigest
    bodies: Mapping[bytes, bytes] = attrs.field(repr=False)
    dropped: frozenset[bytes] = frozenset()


@attrs.frozen
class RemoveLine:
    """Forget a line that trust no longer carries: its certificate was revoked or its root retired."""

    origin: str
    dropped: frozenset[bytes] = frozenset()


@attrs.frozen
class DropBodies:
    """Forget bodies that no line refers to."""

    dropped: frozenset[bytes]


@attrs.frozen
class PersistLeaves:
    """
    Make the state of a log durable, with leaves from number ``first`` on at its end, and forget those before its start.

    ``is_anew``: whatever was held under this name goes first.
    """

    origin: str
    log: str
    state: Log
    first: int
    leaves: tuple[bytes, ...] = attrs.field(repr=False)
    is_anew: bool = False


@attrs.frozen
class DropLeaves:
    """Forget a log and all its leaves."""

    origin: str
    log: str


@attrs.frozen
class Send:
    """Send a message over a link; lost with the link."""

    link: Link
    message: Message


@attrs.frozen
class SendLeaves:
    """
    Read leaves from ``start`` to ``end`` and send them, in the messages that ``log_serving.pages`` makes of them.

    The disk may hold fewer or none; at most LEAVES_ANSWER_BYTES are read.
    """

    link: Link
    request: int
    origin: str
    log: str
    start: int
    end: int
    left: tuple[bytes, ...] = attrs.field(repr=False)
    right: tuple[bytes, ...] = attrs.field(repr=False)


@attrs.frozen
class SendProof:
    """Read leaves ``low`` to ``high``, none where they are equal, and send what ``log_serving.proof`` makes of them."""

    link: Link
    request: int
    origin: str
    log: str
    first_size: int
    low: int
    high: int
    tree: Tree = attrs.field(repr=False)


@attrs.frozen
class Disconnect:
    """Close a link after what was sent, and say why in the log. No further message of it is delivered."""

    link: Link
    reason: str


@attrs.frozen
class Dial:
    """Connect to an address and answer with ``peer_connected`` or ``dial_failed``."""

    address: Address


@attrs.frozen
class StartTimer:
    """Call ``handle_timer`` with this timer after so many seconds. Never cancelled: stale ones are ignored."""

    timer: Timer
    after_s: float


Persist = PersistEpoch | PersistLine | RemoveLine | DropBodies | PersistLeaves | DropLeaves
Effect = Persist | Send | SendLeaves | SendProof | Disconnect | Dial | StartTimer

# ----------------------------------------------------------------- notices


@attrs.frozen
class DigestAccepted:
    """A line was replaced by a newer one, complete with its bodies; our own included."""

    origin: str
    epoch: int
    sequence: int
    changed: frozenset[str]
    leaving: bool


@attrs.frozen
class LineWithdrawn:
    """A line ended because trust no longer carries it."""

    origin: str
    reason: str


@attrs.frozen
class DigestTurnedAway:
    """A digest was refused; the table is unchanged."""

    origin: str
    peer: str
    reason: str


@attrs.frozen
class ForkSeen:
    """Two digests of one number: the origin's key is used twice, or it lies."""

    origin: str
    order: Order


@attrs.frozen
class LeavesAccepted:
    """Leaves of a log were verified and kept, our own included; they are on the disk from number ``first`` on."""

    origin: str
    log: str
    born: int
    first: int
    count: int


@attrs.frozen
class LogRestarted:
    """What was held of a log was given up: its origin's newest birth has another past, or begins later, or is gone."""

    origin: str
    log: str


@attrs.frozen
class LogRewritten:
    """An origin shrank or rewrote a log under one birth, and this proves it. Told once a birth."""

    origin: str
    log: str
    evidence: RewriteEvidence


@attrs.frozen
class LogRecovered:
    """Leaves of our own log that this node did not hold any more came back from peers."""

    log: str
    count: int


@attrs.frozen
class PeerJoined:
    """A link is up: both sides have said hello."""

    peer: str


@attrs.frozen
class PeerParted:
    """A link is down."""

    peer: str
    reason: str


@attrs.frozen
class DialFailed:
    """An address could not be reached; it is tried again for ever. ``attempts`` counts since the last success."""

    address: Address
    reason: str
    attempts: int


@attrs.frozen
class EpochTaken:
    """Our own digest was shown to us from a run we do not remember; a higher epoch is in use now."""

    epoch: int


@attrs.frozen
class PublishingStopped:
    """This node must not publish: a clone or a thief uses its name, or its certificate is not accepted."""

    reason: str


Notice = (
    DigestAccepted
    | LineWithdrawn
    | DigestTurnedAway
    | ForkSeen
    | LeavesAccepted
    | LogRestarted
    | LogRewritten
    | LogRecovered
    | PeerJoined
    | PeerParted
    | DialFailed
    | EpochTaken
    | PublishingStopped
)

Output = Effect | Notice
