"""
How leaves come in: asked of one peer at a time, verified block by block, given on only when verified.

What is wanted is asked of ``log_keeping`` anew before each question, so a fetch always follows the newest
digest; nothing unverified leaves this module. Source: docs/protocol.md, "Logs".
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from random import Random
from typing import Final, Protocol

import attrs

from esgf_gossip.core import limits
from esgf_gossip.core.effects import Output, Send, StartTimer
from esgf_gossip.core.errors import WireError
from esgf_gossip.core.log_effects import RetryLeaves
from esgf_gossip.core.logs import LogKey, answer_end
from esgf_gossip.core.merkle import Tree, root_with_right
from esgf_gossip.core.messages import AskLeaves, Feature, Leaves
from esgf_gossip.core.model import Link, LogRef, Moment, VerifiedDigest
from esgf_gossip.core.quota import TokenBucket
from esgf_gossip.core.sessions import Session, Sessions

# A peer that has sent nothing of an answer for so long is passed over.
SILENCE_S: Final = 5.0
# Nor may an answer take longer, however often a piece of it comes: 18 kB/s for the largest.
ANSWER_MOST_S: Final = 120.0
# When all peers were asked in vain: they may be waiting for the same leaves. Doubles up to the longest.
WAIT_FIRST_S: Final = 0.25
WAIT_MOST_S: Final = 30.0


@attrs.frozen
class Want:
    """
    What is to be fetched of a log: the digest that signs it, and what is verified already.

    ``tree`` None: nothing is, and the leaves before ``start`` were dropped by their origin. ``holders`` are
    asked first; after ``until_s`` nobody is asked any more.
    """

    line: VerifiedDigest
    ref: LogRef
    start: int
    tree: Tree | None
    holders: frozenset[Link] = frozenset()
    until_s: float | None = None


class Keeper(Protocol):
    """Who knows what is wanted, and takes what was verified."""

    def wanted(self, key: LogKey) -> Want | None:
        """Return what is to be fetched of a log now, None for nothing."""
        ...  # pragma: no cover

    def verified(self, key: LogKey, want: Want, leaves: list[bytes], tree: Tree, at: Moment) -> None:
        """Take leaves that follow what ``want`` had, and the tree with them."""
        ...  # pragma: no cover

    def differs(self, key: LogKey, want: Want, session: Session) -> None:
        """Hear that a peer's leaves do not lead from what is held to the signed root: one of three is wrong."""
        ...  # pragma: no cover

    def given_up(self, key: LogKey, at: Moment) -> None:
        """Hear that nobody gave what was wanted until its time was over."""
        ...  # pragma: no cover


@attrs.define(eq=False)
class _Fetch:
    """One log that is being fetched: the question that is out, and what it has brought so far."""

    token: int = 0
    asked: Link | None = None
    request: int = 0
    want: Want | None = None
    end: int = 0
    leaves: list[bytes] = attrs.field(factory=list)
    size_bytes: int = 0
    left: tuple[bytes, ...] = ()
    had: int = 0
    asked_at_s: float = 0.0
    heard_at_s: float = 0.0
    passed_over: set[Link] = attrs.field(factory=set)
    rounds: int = 0


class LogFetching:
    """All fetches of a node. ``keeper`` is asked and told; ``out`` collects effects in the order in which they arise."""

    def __init__(
        self, own: str, sessions: Sessions, random: Random, out: list[Output], keeper: Keeper
    ) -> None:
        self._own = own
        self._sessions = sessions
        self._random = random
        self._out = out
        self._keeper = keeper
        self._fetches: dict[LogKey, _Fetch] = {}
        self._queue: OrderedDict[LogKey, None] = OrderedDict()
        self._asked_of: Counter[Link] = Counter()
        self._buffered_bytes = 0
        self._request = 0
        # Leaves that may still be taken of an origin without delay.
        self._allowances: dict[str, TokenBucket] = {}

    def want(self, key: LogKey, at: Moment) -> None:
        """Fetch what is wanted of a log; a question that is out is waited for."""
        fetch = self._fetches.setdefault(key, _Fetch())
        if fetch.asked is None:
            self._next(key, fetch, at)

    def opened(self, at: Moment) -> None:
        """Ask a new peer for what nobody had so far."""
        for key, fetch in list(self._fetches.items()):
            if fetch.asked is None:
                fetch.rounds = 0
                self._next(key, fetch, at)

    def lost(self, link: Link, at: Moment) -> None:
        """Ask others for what a lost link owes."""
        for key, fetch in list(self._fetches.items()):
            fetch.passed_over.discard(link)
            if fetch.asked == link:
                self._free(fetch)
                self._next(key, fetch, at)
        self._ask_queued(at)

    def due(self, key: LogKey, token: int, at: Moment) -> None:
        """Ask again or somebody else, unless this question was answered."""
        fetch = self._fetches.get(key)
        if fetch is None or fetch.token != token:
            return
        if fetch.asked is not None:
            patience_s = fetch.heard_at_s + SILENCE_S - at.mono_s
            # A remainder of rounding would be waited for again and again at one instant.
            if patience_s > 0.01 and at.mono_s - fetch.asked_at_s < ANSWER_MOST_S:
                self._wait(key, fetch, patience_s)
                return
            self._pass_over(fetch, fetch.asked)
        self._next(key, fetch, at)
        self._ask_queued(at)

    # ------------------------------------------------------------- questions

    def _next(self, key: LogKey, fetch: _Fetch, at: Moment) -> None:
        self._queue.pop(key, None)
        want = self._keeper.wanted(key)
        if want is None:
            del self._fetches[key]
            return
        if want.until_s is not None and at.mono_s > want.until_s:
            del self._fetches[key]
            self._keeper.given_up(key, at)
            return
        end = answer_end(want.start, want.ref.size)
        delay_s = self._delay_s(key[0], end - want.start, at)
        if delay_s > 0:
            self._wait(key, fetch, delay_s)
            return
        able = [one for one in self._sessions.open() if Feature.LOGS in one.features]
        willing = [one for one in able if one.link not in fetch.passed_over]
        if not willing:
            fetch.passed_over.clear()
            wait_s = min(WAIT_MOST_S, WAIT_FIRST_S * 2.0 ** min(fetch.rounds, 20))
            fetch.rounds += 1
            self._wait(key, fetch, wait_s * self._random.uniform(0.75, 1.25))
            return
        free = [one for one in willing if self._asked_of[one.link] < limits.LOG_FETCHES_PER_LINK]
        if not free or self._asked_of.total() >= limits.LOG_FETCHES_AT_ONCE:
            self._queue[key] = None
            return
        best = min(self._rank(one, key, want) for one in free)
        session = self._random.choice([one for one in free if self._rank(one, key, want) == best])
        fetch.want, fetch.end = want, end
        fetch.asked = session.link
        self._asked_of[session.link] += 1
        self._ask(key, fetch, at)

    def _rank(self, session: Session, key: LogKey, want: Want) -> int:
        # The origin has them for certain, who told of the digest is fetching them, the rest may have them.
        if session.link in want.holders or session.peer == key[0]:
            return 0
        return 1 if session.has(want.line.head) else 2

    def _ask(self, key: LogKey, fetch: _Fetch, at: Moment) -> None:
        assert fetch.want is not None
        assert fetch.asked is not None
        self._request += 1
        fetch.request = self._request
        fetch.had = len(fetch.leaves)
        fetch.heard_at_s = fetch.asked_at_s = at.mono_s
        ref = fetch.want.ref
        start = fetch.want.start + len(fetch.leaves)
        self._out.append(
            Send(fetch.asked, AskLeaves(fetch.request, key[0], key[1], ref.born, start, ref.size))
        )
        self._wait(key, fetch, SILENCE_S)

    def _wait(self, key: LogKey, fetch: _Fetch, after_s: float) -> None:
        fetch.token += 1
        self._out.append(StartTimer(RetryLeaves(*key, fetch.token), after_s))

    def _free(self, fetch: _Fetch) -> None:
        """Forget the question that is out and what it has brought."""
        if fetch.asked is not None:
            self._asked_of[fetch.asked] -= 1
            if self._asked_of[fetch.asked] <= 0:
                del self._asked_of[fetch.asked]
        self._buffered_bytes -= fetch.size_bytes
        fetch.asked, fetch.want, fetch.leaves, fetch.size_bytes, fetch.left = None, None, [], 0, ()

    def _pass_over(self, fetch: _Fetch, link: Link) -> None:
        self._free(fetch)
        fetch.passed_over.add(link)

    def _ask_queued(self, at: Moment) -> None:
        for key in list(self._queue):
            if self._asked_of.total() >= limits.LOG_FETCHES_AT_ONCE:
                break
            fetch = self._fetches.get(key)
            if fetch is not None and key in self._queue and fetch.asked is None:
                self._next(key, fetch, at)

    # ------------------------------------------------------------- allowance

    def note_held(self, origin: str, count: int, at: Moment) -> None:
        """Count leaves that the disk gave back: they are not new with every start, nor do they make an hour's wait."""
        most = max(0, limits.LOG_LEAVES_FREE - limits.LOG_LEAVES_PER_HOUR)
        self._allowance(origin).take(min(count, most), at.mono_s)

    def _allowance(self, origin: str) -> TokenBucket:
        bucket = self._allowances.get(origin)
        if bucket is None:
            bucket = TokenBucket(limits.LOG_LEAVES_PER_HOUR / 3600, limits.LOG_LEAVES_FREE)
            self._allowances[origin] = bucket
        return bucket

    def _delay_s(self, origin: str, count: int, at: Moment) -> float:
        return 0.0 if origin == self._own else self._allowance(origin).wait_s(at.mono_s, count)

    # ------------------------------------------------------------- answers

    def leaves(self, session: Session, message: Leaves, at: Moment) -> None:
        """
        Take one part of an answer; late ones are left out.

        Raises:
            WireError: the peer sends what was not asked for. Nothing it sent is kept.
        """
        found = (
            (key, fetch)
            for key, fetch in self._fetches.items()
            if fetch.asked == session.link and fetch.request == message.request
        )
        key, fetch = next(found, (("", ""), None))
        if fetch is None or fetch.want is None:
            return
        if message.start != fetch.want.start + len(fetch.leaves):
            raise WireError(f"leaves from {message.start} on were not asked for")
        if message.start + len(message.leaves) > fetch.end:
            raise WireError("more leaves than were asked for")
        size_bytes = sum(map(len, message.leaves))
        if self._buffered_bytes + size_bytes > limits.LEAVES_BUFFER_BYTES:
            # Another fetch needs the room; it ends, and this one begins again.
            self._free(fetch)
            self._wait(key, fetch, WAIT_MOST_S * self._random.uniform(0.1, 1.0))
            self._ask_queued(at)
            return
        if not fetch.leaves:
            fetch.left = message.left
        fetch.leaves.extend(message.leaves)
        fetch.size_bytes += size_bytes
        self._buffered_bytes += size_bytes
        fetch.heard_at_s = at.mono_s
        if not message.is_last:
            return
        if fetch.want.start + len(fetch.leaves) == fetch.end:
            self._verify(key, fetch, session, message.right, at)
        elif len(fetch.leaves) > fetch.had:
            self._ask(key, fetch, at)
        else:
            self._pass_over(fetch, session.link)
            self._next(key, fetch, at)
        self._ask_queued(at)

    def _verify(
        self, key: LogKey, fetch: _Fetch, session: Session, right: tuple[bytes, ...], at: Moment
    ) -> None:
        want, leaves = fetch.want, fetch.leaves
        assert want is not None
        try:
            base = Tree.after(want.start, fetch.left) if want.tree is None else want.tree
            tree = base.extended(leaves)
            root = root_with_right(tree, want.ref.size, right)
        except ValueError:
            tree, root = Tree(), b""
        if root == want.ref.root:
            self._free(fetch)
            fetch.rounds = 0
            fetch.passed_over.clear()
            if key[0] != self._own:
                self._allowance(key[0]).take(len(leaves), at.mono_s)
            self._keeper.verified(key, want, leaves, tree, at)
            self._next(key, fetch, at)
            return
        self._pass_over(fetch, session.link)
        self._wait(key, fetch, WAIT_FIRST_S)
        self._keeper.differs(key, want, session)
