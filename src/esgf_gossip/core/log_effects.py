"""
What the core wants done for event logs, and what it has to tell of them.

Part of the words of ``effects``: timers, effects and notices that carry leaves, proofs and the states of logs.
Source: docs/adr/0004-effects.md, docs/adr/0008-event-logs.md.
"""

from __future__ import annotations

import attrs

from esgf_gossip.core.logs import Log
from esgf_gossip.core.merkle import Tree
from esgf_gossip.core.model import Link, RewriteEvidence

# ----------------------------------------------------------------- timers


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

# ----------------------------------------------------------------- effects


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


PersistLog = PersistLeaves | DropLeaves
SendLog = SendLeaves | SendProof

# ----------------------------------------------------------------- notices


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


LogNotice = LeavesAccepted | LogRestarted | LogRewritten | LogRecovered
