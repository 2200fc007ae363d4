"""
Event logs as one part of the node: restored, appended to, fetched, judged, served.

The door to own_logs (what this node says), log_keeping (what it holds of others) and log_serving (what it
gives). No leaf is kept in memory. Source: docs/protocol.md, "Logs"; docs/adr/0008-event-logs.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Final

import attrs

from esgf_gossip.core.digests import decode_digest
from esgf_gossip.core.effects import Output
from esgf_gossip.core.errors import DigestRefused, WireError
from esgf_gossip.core.log_effects import DropLeaves, LogTimer, RetryLeaves
from esgf_gossip.core.log_keeping import LogKeeping
from esgf_gossip.core.log_serving import answer_leaves, answer_proof
from esgf_gossip.core.logs import Log, LogKey, Logs, StoredLog
from esgf_gossip.core.messages import AskLeaves, AskProof, Feature, Leaves, LogMessage, Proof
from esgf_gossip.core.model import Moment, RewriteEvidence
from esgf_gossip.core.origin import Origin
from esgf_gossip.core.own_logs import OwnLogs
from esgf_gossip.core.registry import Registry
from esgf_gossip.core.sessions import Session, Sessions
from esgf_gossip.core.verification import Verifier


class EventLogs:
    """All logs of one node; ``held`` may be read at any time."""

    def __init__(
        self,
        origin: Origin,
        registry: Registry,
        sessions: Sessions,
        verifier: Verifier,
        random: Random,
        out: list[Output],
        rewrite_proven: Callable[[tuple[bytes, ...], RewriteEvidence], None],
    ) -> None:
        self.held: Final = Logs()
        self._origin = origin
        self._registry = registry
        self._verifier = verifier
        self._out = out
        self._own = OwnLogs(self.held, origin.publication, verifier, out, origin.publish)
        self._keeping = LogKeeping(self.held, self._own, registry, sessions, random, out, rewrite_proven)
        self.line_moved: Final = self._keeping.line_moved
        self.own_digest_shown: Final = self._keeping.own_digest_shown
        self.opened: Final = self._keeping.opened
        self.lost: Final = self._keeping.lost

    # ------------------------------------------------------------- life

    def restore(self, stored: Iterable[StoredLog], at: Moment) -> None:
        """Take back what a disk holds; what trust no longer carries is dropped there too."""
        for one in stored:
            key = (one.origin, one.name)
            log = self._judged(one, at)
            if log is None:
                self._out.append(DropLeaves(*key))
                continue
            self.held.put(key, log)
            if one.origin != self._own.name:
                self._keeping.fetching.note_held(one.origin, log.tree.size - log.tree.start, at)
        self._own.begin()

    def _judged(self, stored: StoredLog, at: Moment) -> Log | None:
        if stored.origin == self._own.name:
            return Log(stored.born, stored.tree, None).marked()
        if stored.signed is None:
            return None
        try:
            digest = decode_digest(stored.signed.payload)
            wall_ms = max(at.wall_ms, digest.issued_at_ms)
            word = self._verifier.verify(stored.signed, digest, stored.chain, wall_ms)
        except (WireError, DigestRefused):
            return None
        ref, tree = digest.logs.get(stored.name), stored.tree
        if digest.origin != stored.origin or ref is None or ref.born != stored.born or ref.size < tree.size:
            return None
        if ref.size > tree.size:
            return Log(stored.born, tree, word)
        return Log(stored.born, tree, word).marked() if ref.root == tree.root else None

    def start(self, at: Moment) -> None:
        """Judge what was restored by the lines that were, and fetch what is missing."""
        for line in list(self._registry.table):
            if line.digest.origin != self._own.name:
                self._keeping.line_moved(None, line, at)

    def restored_again(self, stored: Iterable[StoredLog], at: Moment) -> None:
        """Hold what the disk has after it failed for a while: leaves that were to be written then are lost."""
        states: dict[LogKey, Log] = {}
        for one in stored:
            log = self._judged(one, at)
            if log is None:
                self._out.append(DropLeaves(one.origin, one.name))
            else:
                states[one.origin, one.name] = log
        for key in self.held:
            if key[0] != self._own.name:
                self.held.drop(key)
        for key, log in states.items():
            if key[0] != self._own.name:
                self.held.put(key, log)
        own = {name: log for (origin, name), log in states.items() if origin == self._own.name}
        if self._own.restored(own):
            self._origin.begin_again(0, at)
        self.start(at)

    def lines_gone(self) -> None:
        """Forget the logs of origins that trust no longer carries."""
        for origin in dict.fromkeys(origin for origin, _ in self.held):
            if origin != self._own.name and origin not in self._registry.table:
                self._keeping.line_gone(origin)

    # ------------------------------------------------------------- our own

    def append(self, log: str, leaves: Sequence[bytes], at: Moment) -> None:
        """Add leaves to a log of ours and publish its new size; raises PublicationError, then nothing changed."""
        self._own.append(log, leaves)
        if leaves:
            self._origin.publish(at)

    def retain(self, log: str, first: int, at: Moment) -> None:
        """Keep the leaves of a log of ours from the block of ``first`` on; raises PublicationError."""
        if self._own.retain(log, first):
            self._origin.publish(at)

    # ------------------------------------------------------------- messages and timers

    def take(self, session: Session, message: LogMessage, at: Moment) -> None:
        """
        Take a message about logs.

        Raises:
            WireError: the link has not this feature, or the peer sends what was not asked for.
        """
        if Feature.LOGS not in session.features:
            raise WireError("logs were not agreed on")
        match message:
            case AskLeaves():
                self._out.append(answer_leaves(session.link, message, self._served(message)))
            case Leaves():
                self._keeping.fetching.leaves(session, message, at)
            case AskProof():
                self._out.append(answer_proof(session.link, message, self._served(message)))
            case Proof():
                self._keeping.proof(session, message, at)

    def _served(self, ask: AskLeaves | AskProof) -> Log | None:
        log = self.held.get(ask.origin, ask.log)
        if log is None or ask.origin != self._own.name:
            return log
        # Our own are born with the epoch, whenever they were written.
        return attrs.evolve(log, born=self._origin.publication.epoch)

    def due(self, timer: LogTimer, at: Moment) -> None:
        """Take a timer; a stale one does nothing."""
        key = (timer.origin, timer.log)
        if isinstance(timer, RetryLeaves):
            self._keeping.fetching.due(key, timer.token, at)
        else:
            self._keeping.due(key, at)
