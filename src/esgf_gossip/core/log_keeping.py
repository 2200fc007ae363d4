"""
Which logs of others a node holds, and how far it believes them.

Part of the node: appends to its output. Each new digest is judged here: its log goes on from what is held,
or was born again with the same past, or has lost leaves (then they are shown to their origin), or was
rewritten (then that is proven). Source: docs/protocol.md, "Logs"; docs/adr/0008-event-logs.md.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

import attrs

from esgf_gossip.core import limits
from esgf_gossip.core.effects import Output, Send, StartTimer
from esgf_gossip.core.log_effects import (
    DropLeaves,
    JudgeLog,
    LeavesAccepted,
    LogRestarted,
    LogRewritten,
    PersistLeaves,
)
from esgf_gossip.core.log_fetching import LogFetching, Want
from esgf_gossip.core.logs import Log, LogKey, Logs, contradicts, ref_of
from esgf_gossip.core.merkle import Tree, consistency_roots
from esgf_gossip.core.messages import Answer, AskProof, Feature, Proof
from esgf_gossip.core.model import Link, LogRef, Moment, RewriteEvidence, VerifiedDigest
from esgf_gossip.core.own_logs import OwnLogs
from esgf_gossip.core.registry import Registry
from esgf_gossip.core.sessions import Session, Sessions

# Leaves that their origin seems to have lost are kept for it so long.
LOST_KEPT_S: Final = 300.0


@attrs.frozen
class _Question:
    """A proof that was asked of a peer: does the tree of ``want`` have this past?"""

    request: int
    key: LogKey
    want: Want
    first_size: int
    first_root: bytes


@attrs.define
class _Estranged:
    """A log whose newest birth does not go on from what is held; ``root`` is the newest found not to."""

    since_s: float
    root: bytes


class LogKeeping:
    """
    The logs of a node's peers, and the keeper of all fetches; those of its own are ``own``'s.

    ``rewrite_proven`` is told the chain of the newer digest and the evidence.
    """

    def __init__(
        self,
        logs: Logs,
        own: OwnLogs,
        registry: Registry,
        sessions: Sessions,
        random: Random,
        out: list[Output],
        rewrite_proven: Callable[[tuple[bytes, ...], RewriteEvidence], None],
    ) -> None:
        self._rewrite_proven = rewrite_proven
        self._logs = logs
        self._own = own
        self._registry = registry
        self._sessions = sessions
        self._out = out
        self.fetching: Final = LogFetching(own.name, sessions, random, out, self)
        self._estranged: dict[LogKey, _Estranged] = {}
        # By origin and name, the birth under which a log was proven to be rewritten: no more of it is fetched.
        self._rewritten: dict[str, dict[str, int]] = {}
        self._questions: dict[Link, _Question] = {}
        self._shown: dict[Link, set[bytes]] = {}
        self._request = 0

    # ------------------------------------------------------------- lines

    def line_moved(self, before: VerifiedDigest | None, line: VerifiedDigest, at: Moment) -> None:
        """Judge the logs of a new line of another origin."""
        origin = line.digest.origin
        told = self._rewritten.pop(origin, {})
        still = {name: born for name, born in told.items() if name in line.digest.logs}
        if still:
            self._rewritten[origin] = still
        if before is not None:
            for name in line.digest.logs:
                self._note_contradiction((origin, name), before, line)
        held = self._logs.names(origin)
        gone = [name for name in held if name not in line.digest.logs]
        # A name that is no longer used costs memory: no more of them than a digest may name.
        for name in gone[: -limits.DIGEST_LOGS]:
            self._give_up((origin, name))
        for name in dict.fromkeys([*line.digest.logs, *gone[-limits.DIGEST_LOGS :]]):
            self.judge((origin, name), at)

    def line_gone(self, origin: str) -> None:
        """Forget the logs of an origin that trust no longer carries."""
        self._rewritten.pop(origin, None)
        for name in self._logs.names(origin):
            self._give_up((origin, name))

    def judge(self, key: LogKey, at: Moment) -> None:
        """Bring what is held of a log in line with its origin's newest digest, as far as no leaf is needed."""
        line, log = self._registry.table.line(key[0]), self._logs.get(*key)
        if line is None:
            return
        ref = ref_of(line, key[1])
        if log is not None and log.word is not None:
            self._note_contradiction(key, log.word, line)
        if log is None or self._is_rewritten(key, ref):
            pass
        elif ref is None:
            if not line.digest.leaving:
                self._estrange(key, b"", at)
        elif ref.born == log.born:
            if ref.first_retained > log.tree.start and log.tree.size >= ref.first_retained:
                self._keep(key, log.without(ref.first_retained))
        elif ref.size < log.tree.size:
            self._estrange(key, ref.root, at)
        elif ref.size == log.tree.size:
            if ref.root == log.tree.root:
                # The origin has started again: a new birth with the same past.
                self._estranged.pop(key, None)
                self._keep(key, attrs.evolve(log, born=ref.born, word=line).marked())
                self.judge(key, at)
            else:
                self._estrange(key, ref.root, at)
        self.fetching.want(key, at)

    def _keep(self, key: LogKey, log: Log) -> None:
        self._logs.put(key, log)
        self._out.append(PersistLeaves(*key, log, log.tree.size, ()))

    def _give_up(self, key: LogKey) -> None:
        self._estranged.pop(key, None)
        self._logs.drop(key)
        self._out.append(DropLeaves(*key))

    # ------------------------------------------------------------- the keeper of fetches

    def wanted(self, key: LogKey) -> Want | None:
        """Return what is to be fetched of a log now, None for nothing."""
        if key[0] == self._own.name:
            return self._own.wanted(key[1])
        line, log = self._registry.table.line(key[0]), self._logs.get(*key)
        ref = None if line is None else ref_of(line, key[1])
        if line is None or ref is None or self._is_rewritten(key, ref):
            return None
        estranged = self._estranged.get(key)
        if log is None or log.tree.size < ref.first_retained:
            # Nothing is held that the retained leaves would follow.
            tree = Tree() if ref.first_retained == 0 else None
            want = Want(line, ref, ref.first_retained, tree)
        elif estranged is not None and estranged.root == ref.root:
            return None
        else:
            want = Want(line, ref, log.tree.size, log.tree)
        return want if want.start < ref.size else None

    def verified(self, key: LogKey, want: Want, leaves: list[bytes], tree: Tree, at: Moment) -> None:
        """Keep leaves that were verified."""
        if key[0] == self._own.name:
            self._own.recovered(key[1], want, leaves, tree, at)
            return
        log = self._logs.get(*key)
        is_anew = want.tree is None or want.tree.size == 0
        if not is_anew and (log is None or log.tree != want.tree):
            return  # it was dropped or cut meanwhile
        marks = () if log is None or is_anew else log.marks
        kept = Log(want.ref.born, tree, want.line, marks)
        if tree.size == want.ref.size:
            kept = kept.marked()
        if log is not None and is_anew:
            self._out.append(LogRestarted(*key))
        self._estranged.pop(key, None)
        self._logs.put(key, kept)
        self._out.append(PersistLeaves(*key, kept, want.start, tuple(leaves), is_anew))
        self._out.append(LeavesAccepted(*key, kept.born, want.start, len(leaves)))

    def given_up(self, key: LogKey, at: Moment) -> None:
        """Hear that nobody had the leaves that this node lost."""
        self._own.given_up(key[1], at)
        if self._own.wanted(key[1]) is not None:
            self.fetching.want(key, at)

    def differs(self, key: LogKey, want: Want, session: Session) -> None:
        """Ask the peer whose leaves do not follow what is held for a proof: it lies, or the past is another."""
        log = self._logs.get(*key)
        if key[0] == self._own.name or want.tree is None or want.tree.size == 0 or log is None:
            return  # nothing is held that could be contradicted
        first_size, first_root = log.tree.size, log.tree.root
        if log.word is not None and log.born == want.ref.born:
            # Under one birth the older signed root is the one that can be shown to everybody.
            ref = log.word.digest.logs[key[1]]
            first_size, first_root = ref.size, ref.root
        self._request += 1
        self._questions[session.link] = _Question(self._request, key, want, first_size, first_root)
        ask = AskProof(self._request, *key, want.ref.born, first_size, want.ref.size)
        self._out.append(Send(session.link, ask))

    def proof(self, session: Session, proof: Proof, at: Moment) -> None:
        """Take a proof; one that does not hold says something about its sender only."""
        question = self._questions.get(session.link)
        if question is None or question.request != proof.request:
            return
        del self._questions[session.link]
        want, key = question.want, question.key
        log = self._logs.get(*key)
        try:
            first, second = consistency_roots(question.first_size, want.ref.size, proof.hashes)
        except ValueError:
            return
        if log is None or second != want.ref.root or first == question.first_root:
            return
        if log.born != want.ref.born:
            self._estrange(key, want.ref.root, at)
        elif log.word is not None and log.word.digest.logs[key[1]].root == question.first_root:
            self._prove(key, log.word, want.line, proof.hashes)
        self.fetching.want(key, at)

    # ------------------------------------------------------------- rewritten

    def _is_rewritten(self, key: LogKey, ref: LogRef | None) -> bool:
        return ref is not None and self._rewritten.get(key[0], {}).get(key[1]) == ref.born

    def _note_contradiction(self, key: LogKey, older: VerifiedDigest, newer: VerifiedDigest) -> None:
        before, after = older.digest.logs.get(key[1]), newer.digest.logs.get(key[1])
        if before is None or after is None or not newer.head.is_above(older.head):
            return
        if contradicts(before, after):
            self._prove(key, older, newer, ())

    def _prove(
        self, key: LogKey, older: VerifiedDigest, newer: VerifiedDigest, hashes: tuple[bytes, ...]
    ) -> None:
        born = newer.digest.logs[key[1]].born
        told = self._rewritten.setdefault(key[0], {})
        if told.get(key[1]) != born:
            told[key[1]] = born
            evidence = RewriteEvidence(older.signed, newer.signed, key[1], hashes)
            self._out.append(LogRewritten(*key, evidence))
            self._rewrite_proven(newer.chain, evidence)

    # ------------------------------------------------------------- lost by their origin

    def _estrange(self, key: LogKey, root: bytes, at: Moment) -> None:
        """Keep what does not fit the origin's newest birth of the log for a while, and show it to the origin."""
        estranged = self._estranged.get(key)
        if estranged is None:
            self._estranged[key] = _Estranged(at.mono_s, root)
            self._out.append(StartTimer(JudgeLog(*key), LOST_KEPT_S))
        else:
            estranged.root = root
        for session in self._sessions.of(key[0]):
            self._show(session, key)

    def _show(self, session: Session, key: LogKey) -> None:
        log = self._logs.get(*key)
        if log is None or log.word is None or Feature.LOGS not in session.features:
            return
        shown = self._shown.setdefault(session.link, set())
        is_whole = log.word.digest.logs[key[1]].size == log.tree.size
        if is_whole and log.word.payload_sha256 not in shown and len(shown) < limits.OWN_DIGESTS_PER_LINK:
            shown.add(log.word.payload_sha256)
            answer = Answer(0, key[0], log.word.signed, log.word.chain, (), is_last=True)
            self._out.append(Send(session.link, answer))

    def due(self, key: LogKey, at: Moment) -> None:
        """Give up what an origin did not take back in time."""
        estranged = self._estranged.get(key)
        # A timer of an earlier estrangement comes much too early, this one's own by no more than rounding.
        if estranged is not None and at.mono_s - estranged.since_s > LOST_KEPT_S - 1:
            self._give_up(key)
            self._out.append(LogRestarted(*key))
            self.judge(key, at)

    def own_digest_shown(self, session: Session, answer: Answer, at: Moment) -> None:
        """Hear from a peer that this node seems to have lost leaves, and take them back; raises WireError."""
        for name in self._own.shown(session.link, answer, at):
            self.fetching.want((self._own.name, name), at)

    # ------------------------------------------------------------- links

    def opened(self, session: Session, at: Moment) -> None:
        """Show a new peer what it seems to have lost, and ask it for what is missing here."""
        if Feature.LOGS in session.features:
            for key in list(self._estranged):
                if key[0] == session.peer:
                    self._show(session, key)
            self.fetching.opened(at)

    def lost(self, link: Link, at: Moment) -> None:
        """Forget a link."""
        self._questions.pop(link, None)
        self._shown.pop(link, None)
        self._own.lost(link)
        self.fetching.lost(link, at)
