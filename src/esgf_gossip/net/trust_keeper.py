"""
Trust as the running daemon keeps it: loaded, judged by, applied to, watched on the disk, replaced without a drop.

One generation of trust is in force at a time; a load that fails leaves it in force and says so. What a trust
object or an administrator's file changes comes in by one way, ``load_again``. Source: docs/trust.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from random import SystemRandom
from typing import Any, Final

import attrs
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from esgf_gossip.core import effects as fx
from esgf_gossip.core.messages import TrustHeads
from esgf_gossip.core.model import Address, TrustObject
from esgf_gossip.core.node import Node
from esgf_gossip.net.driver import Driver
from esgf_gossip.net.secret_hook import SecretHook
from esgf_gossip.net.trust_alarms import TrustAlarms
from esgf_gossip.net.trust_door import claims
from esgf_gossip.storage.database import Database, StorageError
from esgf_gossip.trust import bundle_object, crl_object, rekey, revocation, secret_object
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.findings import CRITICAL
from esgf_gossip.trust.install import import_bundles
from esgf_gossip.trust.material import TrustMaterial, trust_files
from esgf_gossip.trust.objects import TrustObjects
from esgf_gossip.trust.renewal import finish
from esgf_gossip.trust.seal_key import certify, ensure_key
from esgf_gossip.trust.secret_store import SecretStore
from esgf_gossip.trust.statement import RECEIPTS_MOST, TrustStatement
from esgf_gossip.trust.tls import ConnectionCreator
from esgf_gossip.trust.verifier import DigestVerifier

# Certificates end and CRLs grow old while links stand.
JUDGE_LINKS_S: Final = 60.0
# Files are looked at so often, and taken in when they have been the same twice: half a copy is no news.
WATCH_FILES_S: Final = 1.0
# New trust reaches all nodes within a second; if each said at once that it has it, N digests would go to N nodes.
SAY_EACH_S: Final = 0.1
SAY_MOST_S: Final = 30.0
# The highest time this node has seen, in Unix seconds; a clock that is so far below has been set back.
TIME_FACT: Final = "highest_time_s"
CLOCK_BACK_S: Final = 300
# So far off the median of the peers' clocks it is worth a word (docs/threats.md).
CLOCK_OFF_S: Final = 60

# An address is visited for trust no sooner again, and so many are remembered.
VISIT_AGAIN_S: Final = 20.0
ADDRESSES_KEPT: Final = 1024

Visits = Callable[[Address, Iterable[TrustHeads], Callable[[list[tuple[str, bytes]]], None]], None]
_Seen = frozenset[tuple[str, int, int, int]]


@attrs.frozen
class TrustPlace:
    """Whose trust it is, and where: ``directory`` and ``secret_hook`` are those of [trust] in node.toml."""

    directory: Path
    host: str
    federation: str
    secret_hook: tuple[str, ...] = ()


class TrustKeeper:
    """
    The trust of one daemon.

    ``material``, ``verifier``, ``creator`` and ``objects`` are of the generation in force. ``failure`` is one line
    while the files hold what cannot be loaded, else empty; ``alarms`` are the last things an administrator must see.
    ``visit`` fetches trust objects from an address (``Connections.visit``).
    """

    log = Logger()

    def __init__(self, place: TrustPlace, now_ms: Callable[[], int], reactor: Any) -> None:
        """
        Load trust for the first time.

        Raises:
            TrustError: one precise reason.
        """
        self.place = place
        self._now_ms: Final = now_ms
        self._reactor: Final = reactor
        self._node: Node
        self._driver: Driver
        self._database: Database
        self._known: Callable[[], Iterable[TrustObject]] = tuple
        self._clock_offset_ms: Callable[[], float | None] = lambda: None
        self._seen = self._look()
        self._moved_to: _Seen | None = None
        self.material = self._load(place)
        self.verifier: Final = DigestVerifier(self.material)
        self.creator: Final = ConnectionCreator(self.material, now_ms)
        self.objects: Final = TrustObjects(place.directory, self.material)
        self.secrets: Final = SecretStore(place.directory)
        self.hook: Final = SecretHook(self.secrets, place.secret_hook, reactor)
        self.failure = ""
        self.on_statement: Callable[[], None] = lambda: None
        self._alarms: Final = TrustAlarms(reactor)
        self._told: set[str] = set()
        self._loops: list[LoopingCall] = []
        self._load_due: Any = None
        self._say_due: Any = None
        self._random: Final = SystemRandom()
        self.visit: Visits = lambda _address, _said, done: done([])
        self._is_visiting = False
        self._visited_at_s: dict[Address, float] = {}
        self._found: list[tuple[str, bytes]] = []

    def start(self, node: Node, driver: Driver, database: Database) -> None:
        """Apply what the node holds, show it what the files hold, and begin to watch; it has been started."""
        self._node, self._driver, self._database = node, driver, database
        self._known = lambda: node.registry.trust
        self._clock_offset_ms = lambda: node.links.clock_offset_ms
        for held in node.registry.trust:
            self._apply(held)
        # Files put back from a backup must not lower what this node knew before it stopped.
        self._seen = self._look()
        self._load_quietly("this node knew of newer CRLs than its files")
        driver.on_refusal = self._visit
        self.hook.run()
        self._remember_time()
        loops = (
            (self._watch, WATCH_FILES_S),
            (self.judge_links, JUDGE_LINKS_S),
            (self._remember_time, JUDGE_LINKS_S),
        )
        for call, every_s in loops:
            loop = LoopingCall(call)
            loop.clock = self._reactor
            loop.start(every_s, now=False)
            self._loops.append(loop)

    def stop(self) -> None:
        """Watch no more."""
        self.hook.stop()
        self._alarms.stop()
        for loop in self._loops:
            if loop.running:
                loop.stop()
        for due in (self._load_due, self._say_due):
            if due is not None and due.active():
                due.cancel()
        self._load_due = self._say_due = None

    # ----------------------------------------------------------------- loading

    def load_again(self, place: TrustPlace | None = None) -> bool:
        """
        Load the files and put them in force; tell whether anything changed.

        Raises:
            TrustError: what is wrong; the generation in force stays, ``failure`` says so.
        """
        place = place or self.place
        try:
            material = self._load(place)
        except TrustError as error:
            if self.failure != str(error):
                self.log.warn("trust: {reason}; the trust in force stays", reason=str(error))
            self.failure = str(error)
            raise
        self.failure = ""
        has_changed = material.fingerprint != self.material.fingerprint
        self.place = place
        self.material = material
        if has_changed:
            self.verifier.replace(material)
            self.creator.replace(material)
            self.objects.replace(material)
        # Unless it changed nothing is judged otherwise, but links by the time that went on.
        self._offer()
        self.judge_links()
        if has_changed or self._node.origin.publication.stopped:
            self._driver.perform(self._node.trust_changed(material.signer, self._driver.at()))
        if has_changed and self._found:
            self._offer_found()
        if place.secret_hook != self.hook.command:
            self.hook.replace(place.secret_hook)
        if not has_changed:
            self.on_statement()  # of what is this node's alone: a request, a receipt
        elif self._say_due is None:
            spread_s = min(SAY_MOST_S, SAY_EACH_S * len(self._node.registry.table))
            self._say_due = self._reactor.callLater(self._random.uniform(0.0, spread_s), self._say)
        self._tell_findings()
        return has_changed

    def _load(self, place: TrustPlace) -> TrustMaterial:
        if finish(place.directory):
            self.log.info("the new key of this node is in force")
        self._keep_bundles(place)
        return TrustMaterial.load(
            place.directory,
            host=place.host,
            federation=place.federation,
            now_ms=self._now_ms(),
            floor=crl_object.among(self._known()),
            may_be_late=True,
        )

    def _keep_bundles(self, place: TrustPlace) -> None:
        """See that the files hold every bundle this node knows: what was put back from a backup lowers nothing."""
        try:
            self._take_bundles(place, takes_forks=False)
        except TrustError as error:
            if error.code != "E-BUNDLE-FORK":
                return  # the load says what is wrong with the files
            try:
                # Proof first, then the one of the two that counts.
                self._driver.perform(
                    self._node.offer_trust(bundle_object.on_disk(place.directory), self._driver.at())
                )
                self._take_bundles(place, takes_forks=True)
            except TrustError as second:
                self._alarms.grave(str(second))

    def _take_bundles(self, place: TrustPlace, *, takes_forks: bool) -> None:
        known = bundle_object.among(self._known())
        if known:
            import_bundles(place.directory, known, federation=place.federation, takes_forks=takes_forks)

    def judge_links(self) -> None:
        """Close the links that trust no longer carries: TLS judged each when it began, time goes on."""
        self._tell_findings()
        for connection in self._driver.connections:
            reason = self.creator.still_trusted(connection.transport)
            if reason:
                connection.close(reason)

    def _remember_time(self) -> None:
        """
        Keep the highest time seen; say it where the clock has been set back below that.

        A clock set back would let expired certificates and old lists pass again; nothing else is refused for it,
        since it may be the earlier time that was wrong.
        """
        now_s = self._now_ms() // 1000
        try:
            known_s = self._database.fact(TIME_FACT)
            if now_s > known_s:
                self._database.set_fact(TIME_FACT, now_s)
            elif known_s - now_s > CLOCK_BACK_S:
                self._alarms.grave(
                    "this host's clock has been set back below a time it has shown before: see that it is right"
                )
        except StorageError as error:
            self.log.warn("the time is not remembered: {error}", error=str(error))

    def _offer(self) -> None:
        self._driver.perform(self._node.offer_trust(self.objects.offered(), self._driver.at()))

    def _say(self) -> None:
        self._say_due = None
        self.on_statement()

    def statement(self) -> bytes:
        """
        Return what this node says of its trust: the body of its entry ``trust``.

        Raises:
            TrustError: the seal key or the secrets cannot be read.
        """
        key = ensure_key(self.place.directory, self._now_ms())
        bundle = self.material.bundle
        return TrustStatement(
            bundle=0 if bundle is None else bundle.version,
            crls=tuple(
                sorted(
                    (key.removeprefix(crl_object.PREFIX), revocation.number(crl))
                    for key, crl in crl_object.by_key(self.material.crls)
                )
            ),
            not_after_ms=self.material.not_after_ms,
            seal=certify(self.material, key),
            receipts=tuple(self.secrets.receipts()[:RECEIPTS_MOST]),
            request=rekey.waiting(self.place.directory),
        ).to_body()

    # ----------------------------------------------------------------- files

    def _look(self) -> _Seen:
        found = []
        for path in trust_files(self.place.directory):
            try:
                status = path.stat()
            except OSError:
                continue
            found.append((str(path), status.st_mtime_ns, status.st_size, status.st_ino))
        return frozenset(found)

    def _watch(self) -> None:
        seen = self._look()
        if seen == self._seen:
            self._moved_to = None
        elif seen != self._moved_to:
            self._moved_to = seen
        else:
            self._seen, self._moved_to = seen, None
            self._load_quietly("its files changed")

    def _load_quietly(self, why: str) -> None:
        try:
            has_changed = self.load_again()
        except TrustError:
            return  # said already
        if has_changed:
            self.log.info("trust loaded again: {why}", why=why)

    # ----------------------------------------------------------------- visits

    def _visit(self, address: Address) -> None:
        """Look for newer trust where a dial brought no link: ours may be too old to be let in."""
        now_s = self._reactor.seconds()
        if self._is_visiting or now_s - self._visited_at_s.get(address, -math.inf) < VISIT_AGAIN_S:
            return
        self._is_visiting = True
        self._visited_at_s[address] = now_s
        if len(self._visited_at_s) > ADDRESSES_KEPT:
            del self._visited_at_s[next(iter(self._visited_at_s))]
        self.visit(address, claims(self._node.registry.trust, self.place.host), self._visited)

    def _visited(self, found: list[tuple[str, bytes]]) -> None:
        self._is_visiting = False
        # What comes too early, a bundle before its predecessor is in force, is offered again after that.
        self._found = found
        self._offer_found()

    def _offer_found(self) -> None:
        offered = self._found
        self._driver.perform(self._node.offer_trust(offered, self._driver.at()))
        held = {one.key: one.body for one in self._node.registry.trust}
        left = [(key, body) for key, body in offered if held.get(key) != body]
        # Of what was all refused nothing will be better later.
        self._found = left if len(left) < len(offered) else []

    # ----------------------------------------------------------------- objects

    def notice(self, notice: fx.Notice) -> None:
        """Hear what the core tells of trust objects; every other notice is left alone."""
        match notice:
            case fx.TrustAccepted():
                self._apply(notice.held)
            case fx.TrustTurnedAway(lasting=False):
                # On the way forward through versions that is every second answer.
                self.log.debug("trust: {key} is too early: {reason}", key=notice.key, reason=notice.reason)
            case fx.TrustTurnedAway():
                source = f", sent by {notice.peer}" if notice.peer else ""
                text = f"refused {notice.key}{source}: {notice.reason}"
                self._alarms.common(text, f"trust objects{source or ' of this node'}")
            case fx.TrustConflict():
                self._alarms.grave(
                    f"two different {notice.key} of number {notice.number} are signed: a stolen key, or an "
                    "administration that runs twice; ask the trust administrator"
                )

    @property
    def alarms(self) -> list[str]:
        """What was raised since the start, then what is critical as long as it is."""
        return [*self._alarms.raised, *self._critical(), *self._clock_off()]

    def _clock_off(self) -> list[str]:
        offset_ms = self._clock_offset_ms()
        if offset_ms is None or abs(offset_ms) <= CLOCK_OFF_S * 1000:
            return []
        return [
            f"this host's clock is {abs(offset_ms) / 1000:.0f} s off the median of its peers': see that it is right"
        ]

    def _critical(self) -> list[str]:
        found = self.material.findings(self._now_ms())
        return [one.text for one in found if one.level == CRITICAL]

    def _tell_findings(self) -> None:
        critical = set(self._critical())
        for text in sorted(critical - self._told):
            self.log.critical("trust: {text}", text=text)
        self._told = critical

    def _apply(self, held: TrustObject) -> None:
        try:
            must_load = self.objects.apply(held, self._now_ms())
        except TrustError as error:
            self._alarms.common(f"{held.key} cannot be put into force: {error}", held.key)
            return
        if held.key.startswith(secret_object.PREFIX + self.place.host):
            self.hook.run()
            self.on_statement()
        # Once for all that came in one message.
        if must_load and self._load_due is None:
            self._load_due = self._reactor.callLater(0.0, self._load_applied)

    def _load_applied(self) -> None:
        self._load_due = None
        self._load_quietly("the federation's trust moved on")
