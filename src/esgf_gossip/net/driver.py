"""
The driver: feeds the core with what happens and carries out what it wants.

Carries out each batch in the order persist, send, timers, notices. An `if`
about the protocol belongs in the core, not here.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from esgf_gossip.core import effects as fx
from esgf_gossip.core import log_effects as lx
from esgf_gossip.core.errors import WireError
from esgf_gossip.core.limits import LEAF_BYTES, LEAVES_ANSWER_BYTES
from esgf_gossip.core.log_serving import no_leaves, pages, proof
from esgf_gossip.core.merkle import BLOCK_LEAVES
from esgf_gossip.core.messages import Message
from esgf_gossip.core.model import Address, Link, Moment
from esgf_gossip.core.node import Node
from esgf_gossip.net.budget import PeerBudgets
from esgf_gossip.net.clock import wall_clock_ms
from esgf_gossip.net.link import Ear, LinkConnection
from esgf_gossip.net.sparing import Sparing
from esgf_gossip.net.traffic import Traffic
from esgf_gossip.net.trust_door import Host, Visitor
from esgf_gossip.storage.database import Database, StorageError
from esgf_gossip.trust.tls import PeerIdentity

# What could not be written is tried again so often; meanwhile everything is in memory.
PERSIST_AGAIN_S: Final = 5.0
# With more waiting than this a peer gets no leaves: two answers fit into what a link may owe.
LEAVES_QUEUE_BYTES: Final = LEAVES_ANSWER_BYTES // 2

SendOrder = fx.Send | lx.SendLog | fx.Disconnect | fx.PauseReading | fx.Dial


class Driver:
    """
    Join one Node to its database, its connections and the clock.

    ``on_notice`` hears every notice; ``dial`` must answer with ``link_up`` or
    ``dial_failed``. ``storage_error`` is one line while the disk fails, else
    empty: the node goes on in memory and writes what is owed when it can; ``traffic`` is that of all links.
    ``on_fatal`` is told when it cannot go on at all; unset, the fault is raised.
    """

    log = Logger()

    def __init__(
        self,
        node: Node,
        database: Database,
        clock: IReactorTime,
        on_notice: Callable[[fx.Notice], None],
        now_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self.node: Final = node
        self.storage_error = ""
        self.traffic: Final = Traffic()
        self.dial: Callable[[Address], None] = lambda _address: None
        self.on_fatal: Callable[[str], None] | None = None
        # Told of each address that was reached and brought no link: trust may be why.
        self.on_refusal: Callable[[Address], None] = lambda _address: None
        # Who hears members that bring matches of users: net.feedback, where tracking is on.
        self.on_feedback: Callable[[LinkConnection, PeerIdentity], Ear | None] = lambda *_: None
        self._database = database
        self._clock = clock
        self._on_notice = on_notice
        self._now_ms = now_ms
        self._numbers = itertools.count(1)
        self._connections: dict[Link, LinkConnection] = {}
        self._batches: deque[list[fx.Output]] = deque()
        self._performing = False
        # While the disk fails: origins whose removal is owed. Lines need no list, the registry has them.
        self._removals_owed: set[str] = set()
        # Nor are leaves: nobody has them in memory. The logs go back to what is on the disk.
        self._leaves_owed = False
        self._timers: set[Any] = set()
        self._stopped = False
        # Links whose peer has not said hello: the core tells nothing of them.
        self._unopened: dict[Link, str] = {}
        self._budgets = PeerBudgets()
        self._host = Host(node.registry.trust, clock)
        self._sparing = Sparing(clock, self._tell_left_out)

    def at(self) -> Moment:
        """Return this instant on both clocks."""
        return Moment(self._clock.seconds(), self._now_ms())

    @property
    def connections(self) -> list[LinkConnection]:
        """The connections that are up."""
        return list(self._connections.values())

    # ----------------------------------------------------------------- effects

    def perform(self, outputs: list[fx.Output]) -> None:
        """Carry out a batch; what it causes at once is carried out after it, not within."""
        self._batches.append(outputs)
        if self._performing:
            return
        self._performing = True
        try:
            while self._batches:
                self._perform_one(self._batches.popleft())
        finally:
            self._performing = False

    def _perform_one(self, outputs: list[fx.Output]) -> None:
        persists: list[fx.Persist] = []
        sends: list[SendOrder] = []
        timers: list[fx.StartTimer] = []
        notices: list[fx.Notice] = []
        for output in outputs:
            match output:
                case _ if isinstance(output, fx.Persist):
                    persists.append(output)
                case _ if isinstance(output, SendOrder):
                    sends.append(output)
                case fx.StartTimer():
                    timers.append(output)
                case _:
                    notices.append(output)
        if persists and not self._persist(persists):
            return
        for order in sends:
            self._send(order)
        for timer in timers:
            self._start_timer(timer)
        for notice in notices:
            self._on_notice(notice)

    def _persist(self, persists: list[fx.Persist]) -> bool:
        """Write a batch and what is owed; False where the batch must not go on and the process ends."""
        has_leaves = any(isinstance(effect, lx.PersistLog) for effect in persists)
        try:
            self._database.apply(self._with_owed(persists) if self.storage_error else persists)
        except StorageError as error:
            if any(isinstance(effect, fx.PersistEpoch) for effect in persists):
                # An epoch that is not durable must never be used: nothing of this batch leaves the process.
                self._batches.clear()
                if self.on_fatal is None:
                    raise
                self._forget_timers()
                self.on_fatal(str(error))
                return False
            self._removals_owed.update(
                effect.origin for effect in persists if isinstance(effect, fx.RemoveLine)
            )
            self._leaves_owed = self._leaves_owed or has_leaves
            self._storage_failed(str(error))
        else:
            self._removals_owed.clear()
            if self.storage_error:
                self.log.info("the disk works again: everything owed is written")
                self.storage_error = ""
                self.node.origin.can_persist = True
                if self._leaves_owed or has_leaves:
                    self._reload_logs()
        return True

    def _reload_logs(self) -> None:
        try:
            stored = self._database.logs()
        except StorageError as error:
            self._storage_failed(str(error))
            return
        self._leaves_owed = False
        self._batches.append(self.node.restore_logs(stored, self.at()))

    def _storage_failed(self, reason: str) -> None:
        if not self.storage_error:
            self.log.critical("storage: {reason}; going on in memory", reason=reason)
            self._later(PERSIST_AGAIN_S, self._persist_again)
        self.storage_error = reason
        self.node.origin.can_persist = False

    def _with_owed(self, persists: Iterable[fx.Persist]) -> list[fx.Persist]:
        """Return what makes the disk equal to the registry again: every line whole, however long the fault lasted."""
        registry = self.node.registry
        removals = [fx.RemoveLine(origin) for origin in self._removals_owed if origin not in registry.table]
        return [
            *removals,
            *(fx.PersistLine(line, registry.bodies_of(line.digest)) for line in registry.table),
            # A fork line that went meanwhile is judged again, and removed, by the next start.
            *(fx.PersistFork(line) for line in registry.forks),
            *(fx.PersistTrust(held) for held in registry.trust),
            # Leaves that would follow lost ones would leave a hole.
            *(effect for effect in persists if not isinstance(effect, lx.PersistLog)),
        ]

    def _persist_again(self) -> None:
        if self.storage_error:
            self._persist([])
            self.perform([])
            if self.storage_error:
                self._later(PERSIST_AGAIN_S, self._persist_again)

    def append(self, log: str, leaves: Sequence[bytes]) -> None:
        """
        Add events to a log of this node and publish them; they are on the disk when this returns.

        Raises:
            PublicationError: out of bounds, or this node publishes no more; nothing was added.
            StorageError: the disk fails; what was not written has to be added again when it works.
        """
        if self.storage_error:
            raise StorageError(self.storage_error)
        self.perform(self.node.append(log, leaves, self.at()))
        if self.storage_error:
            raise StorageError(self.storage_error)

    def _send(self, order: SendOrder) -> None:
        if isinstance(order, fx.Dial):
            if not self._stopped:
                self.dial(order.address)
            return
        connection = self._connections.get(order.link)
        if connection is None:
            return
        if isinstance(order, fx.Send):
            connection.send(order.message)
        elif isinstance(order, lx.SendLog):
            for message in self._read(order, connection):
                connection.send(message)
        elif isinstance(order, fx.PauseReading):
            connection.pause_reading(order.for_s)
        else:
            # Its loss is no news to the core any more.
            del self._connections[order.link]
            self._tell_unopened(order.link, connection, order.reason)
            connection.close(order.reason)

    def _read(self, order: lx.SendLog, connection: LinkConnection) -> Iterable[Message]:
        if connection.waiting_bytes > LEAVES_QUEUE_BYTES:
            leaves = []
        else:
            is_proof = isinstance(order, lx.SendProof)
            low, high = (order.low, order.high) if is_proof else (order.start, order.end)
            # A proof needs a block whole, and is small whatever its leaves are.
            most_bytes = LEAF_BYTES * BLOCK_LEAVES if is_proof else LEAVES_ANSWER_BYTES
            try:
                leaves = self._database.leaves(order.origin, order.log, low, high, most_bytes)
            except StorageError as error:
                self._storage_failed(str(error))
                leaves = []
        if isinstance(order, lx.SendProof):
            return [proof(order, leaves)]
        return pages(order, leaves) if leaves else [no_leaves(order.request, order.start)]

    def _start_timer(self, order: fx.StartTimer) -> None:
        self._later(order.after_s, self._timer_due, order.timer)

    def _timer_due(self, timer: fx.Timer) -> None:
        self.perform(self.node.handle_timer(timer, self.at()))

    def _later(self, after_s: float, call: Callable[..., None], *arguments: object) -> None:
        if self._stopped:
            return

        def due() -> None:
            self._timers.discard(delayed)
            call(*arguments)

        delayed = self._clock.callLater(after_s, due)
        self._timers.add(delayed)

    def stop(self) -> None:
        """Say goodbye on every link, close them, forget all timers."""
        self._stopped = True
        self.perform(self.node.stop())
        self._forget_timers()
        self._sparing.stop()

    def _forget_timers(self) -> None:
        self._stopped = True
        for delayed in self._timers:
            if delayed.active():
                delayed.cancel()
        self._timers.clear()

    # ----------------------------------------------------------------- links

    def link_up(self, connection: LinkConnection, identity: PeerIdentity) -> Link:
        """Number a connection and show it to the core."""
        link = Link(next(self._numbers))
        self._connections[link] = connection
        self._unopened[link] = identity.host
        # The connection must know its number before the core answers.
        connection.link = link
        connection.traffic.of_all = self.traffic
        connection.budget = self._budgets.of(identity.host, self._clock.seconds())
        self.perform(self.node.peer_connected(link, identity.host, connection.dialled, self.at()))
        return link

    def link_message(self, link: Link, message: Message) -> None:
        """Hand a message to the core."""
        outputs = self.node.handle_message(link, message, self.at())
        if link in self._unopened and any(isinstance(output, fx.PeerJoined) for output in outputs):
            del self._unopened[link]
        self.perform(outputs)

    def link_garbled(self, link: Link, error: WireError) -> None:
        """Tell the core that a peer's bytes are not our protocol."""
        self.perform(self.node.wire_error(link, error, self.at()))

    def link_down(self, link: Link, reason: str) -> None:
        """Tell the core that a link has ended, unless it ended it itself."""
        connection = self._connections.pop(link, None)
        if connection is not None:
            self._tell_unopened(link, connection, reason)
            self.perform(self.node.peer_lost(link, reason, self.at()))

    def visited(self, connection: LinkConnection) -> Visitor | None:
        """Let a stranger have the public trust objects, unless its address comes too often."""
        if self._stopped or not self._host.admit(connection.remote_host):
            return None
        return self._host.receive(connection.transport.write, connection.close)

    def feedback(self, connection: LinkConnection, identity: PeerIdentity) -> Ear | None:
        """Let a member bring matches of this node's users, where somebody takes them."""
        return None if self._stopped else self.on_feedback(connection, identity)

    def link_refused(self, connection: LinkConnection, reason: str) -> None:
        """Report a connection that never came up."""
        if connection.dialled is not None:
            self.on_refusal(connection.dialled)
            self.dial_failed(connection.dialled, reason)
        else:
            self.refused(connection.remote, reason, connection.remote_host)

    def refused(self, remote: str, reason: str, counted_as: str = "") -> None:
        """Tell of a stranger that was not let in; not more often than a log can bear."""
        if not self._stopped and self._sparing.allows(counted_as or remote):
            self.log.warn("refused {remote}: {reason}", remote=remote, reason=reason)

    def _tell_unopened(self, link: Link, connection: LinkConnection, reason: str) -> None:
        peer = self._unopened.pop(link, None)
        if peer is not None and not self._stopped and self._sparing.allows(peer):
            self.log.warn(
                "no link with {peer} at {remote}: {reason}",
                peer=peer,
                remote=connection.remote,
                reason=reason,
            )

    def _tell_left_out(self, subject: str, count: int) -> None:
        self.log.warn(
            "{count} more connections of {subject} were refused within a minute", count=count, subject=subject
        )

    def dial_failed(self, address: Address, reason: str) -> None:
        """Tell the core that a dial came to nothing."""
        if not self._stopped:
            self.perform(self.node.dial_failed(address, reason, self.at()))
