"""
What the core wants done and what it has to tell.

An effect is an order to the shell, a notice a fact for views and operators. A
batch is carried out in the order persist, send, timers, notices
(docs/adr/0004-effects.md).
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from esgf_gossip.core.forks import ForkLine
from esgf_gossip.core.log_effects import LogNotice, LogTimer, PersistLog, SendLog
from esgf_gossip.core.messages import Message
from esgf_gossip.core.model import Address, Link, TrustObject, VerifiedDigest
from esgf_gossip.core.verdicts import Verdict

# ----------------------------------------------------------------- timers


@attrs.frozen
class RetryFetch:
    """Ask the next announcer of this origin, unless the request was answered."""

    origin: str
    request: int


@attrs.frozen
class AnnounceHeads:
    """Announce together what was accepted within a moment."""


@attrs.frozen
class FetchDue:
    """Ask for the newest line of an origin that had published too much to be asked for at once."""

    origin: str


@attrs.frozen
class RetryFork:
    """Ask the next claimant for the proof about this certificate, unless the link asked last is another."""

    certificate_sha256: bytes
    link: Link


@attrs.frozen
class RetryTrust:
    """Ask the next claimant for the trust object under this key, unless the link asked last is another."""

    key: str
    link: Link


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
class SendBeat:
    """Ping a watched node; ``due_s`` tells our own lateness, ``token`` an assignment that ended."""

    subject: str
    token: int
    due_s: float


@attrs.frozen
class MissAnswer:
    """
    Miss a watched node of which nothing was heard since ``since_s``.

    ``by_link``: there should have been a link since; ``others_asked``: nobody else was heard either, so they
    were asked too.
    """

    subject: str
    token: int
    since_s: float
    due_s: float
    by_link: bool = False
    others_asked: bool = False


@attrs.frozen
class RepeatReport:
    """Report a watched node again that answered, or stayed away longer than it said."""

    subject: str
    token: int


@attrs.frozen
class CountAgain:
    """End the abstention after a stall of our own loop."""


@attrs.frozen
class SayReachability:
    """Publish what we have to say of the nodes we watch."""


WatchTimer = SendBeat | MissAnswer | RepeatReport | CountAgain | SayReachability
Timer = (
    RetryFetch
    | FetchDue
    | AnnounceHeads
    | RetryFork
    | RetryTrust
    | CompareRoots
    | CheckLinks
    | DrawRings
    | DialNext
    | DrawPartner
    | SignAnew
    | WatchTimer
    | LogTimer
)

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
class PersistFork:
    """Make a fork line durable."""

    line: ForkLine


@attrs.frozen
class RemoveFork:
    """Forget a fork line that trust no longer carries."""

    certificate_sha256: bytes


@attrs.frozen
class PersistTrust:
    """Make a trust object durable, in place of the one under its key."""

    held: TrustObject


@attrs.frozen
class RemoveTrust:
    """Forget a trust object whose issuer is trusted no more."""

    key: str


@attrs.frozen
class Send:
    """Send a message over a link; lost with the link."""

    link: Link
    message: Message


@attrs.frozen
class Disconnect:
    """Close a link after what was sent, and say why in the log. No further message of it is delivered."""

    link: Link
    reason: str


@attrs.frozen
class PauseReading:
    """Read nothing from a link for so many seconds: its peer makes more work than it may. Never an error."""

    link: Link
    for_s: float


@attrs.frozen
class Dial:
    """Connect to an address and answer with ``peer_connected`` or ``dial_failed``."""

    address: Address


@attrs.frozen
class StartTimer:
    """Call ``handle_timer`` with this timer after so many seconds. Never cancelled: stale ones are ignored."""

    timer: Timer
    after_s: float


Persist = (
    PersistEpoch
    | PersistLine
    | RemoveLine
    | DropBodies
    | PersistFork
    | RemoveFork
    | PersistTrust
    | RemoveTrust
    | PersistLog
)
Effect = Persist | Send | SendLog | Disconnect | PauseReading | Dial | StartTimer

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
class ForkProven:
    """A certificate signed what contradicts itself: its key is used twice, or the origin lies. Told once."""

    origin: str
    certificate_sha256: bytes


@attrs.frozen
class TrustAccepted:
    """A trust object came in force here, ours or a peer's: to be applied, and trust to be loaded again."""

    held: TrustObject


@attrs.frozen
class TrustTurnedAway:
    """
    A trust object was refused; nothing changed. ``peer`` is empty for what this node's own files offered.

    ``lasting`` is False for what only comes too early, by our clock or before what it follows.
    """

    key: str
    peer: str
    reason: str
    lasting: bool = True


@attrs.frozen
class TrustConflict:
    """An issuer signed two different objects of one number: its key is used twice, or was stolen. Told once."""

    key: str
    number: int


@attrs.frozen
class VerdictChanged:
    """The reports on a node come to something else than before."""

    host: str
    verdict: Verdict


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
    | ForkProven
    | TrustAccepted
    | TrustTurnedAway
    | TrustConflict
    | LogNotice
    | VerdictChanged
    | PeerJoined
    | PeerParted
    | DialFailed
    | EpochTaken
    | PublishingStopped
)

Output = Effect | Notice
