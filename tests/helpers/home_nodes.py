"""
Five nodes that bring each other's users their news, in virtual time: real rows, real claims, a network that fails.

A network of tests: what is cut does not arrive, answers get lost after they counted, claims come late, twice and in
any order. Mail is a table; a mail is counted when its quiet time is over and it is not told elsewhere. No test lives here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from esgf_gossip.esgf.openids import openid_host
from esgf_gossip.storage.journal_thread import AtOnce
from esgf_gossip.tracking import address_book, changes, claims, homeward_rows
from esgf_gossip.tracking.database import TrackingDatabase
from esgf_gossip.tracking.events import Claim, EventType, change_key
from esgf_gossip.tracking.fallback import Fallback
from esgf_gossip.tracking.feedback_messages import (
    Answer,
    Question,
    decode_answer,
    decode_question,
    encode_answer,
    encode_question,
)
from esgf_gossip.tracking.homes import Homes
from esgf_gossip.tracking.homeward import DeliveryError, Homeward, receive
from esgf_gossip.tracking.identity import parse_dataset
from esgf_gossip.tracking.matches import Change, FetchedFile, Match
from esgf_gossip.tracking.resolution import Finding, Resolution
from esgf_gossip.trust.sealed_values import SealedValues

MINUTE_MS = 60_000
HOUR_S = 3600.0
START_MS = 1_700_000_000_000
FALLBACK_MS = 60 * MINUTE_MS
QUIET_MS = 45 * MINUTE_MS
GRACE_MS = 5 * MINUTE_MS
STEP_S = 60.0

CLAIM_SCRIPT = """
CREATE TABLE claim (
    token BLOB NOT NULL, origin TEXT NOT NULL, is_sent INTEGER NOT NULL, received_ms INTEGER NOT NULL,
    PRIMARY KEY (token, origin)
) STRICT, WITHOUT ROWID;
"""
MAIL_SCRIPT = """
CREATE TABLE notice (
    openid TEXT NOT NULL, change_key BLOB NOT NULL, from_node TEXT NOT NULL, due_ms INTEGER NOT NULL,
    is_done INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (openid, change_key)
) STRICT;
"""
SCRIPTS = {
    "changes": changes.SCRIPT,
    "addresses": address_book.SCRIPT,
    "homeward": homeward_rows.SCRIPT,
    "claim": CLAIM_SCRIPT,
    "mail": MAIL_SCRIPT,
}

VERSION = parse_dataset("CMIP6.CMIP.NCAR.CESM2.historical.r1i1p1f1.Amon.tas.gn.v20190308")


def host(letter: str) -> str:
    """Return the host of a node, which is also that of its users' OpenIDs."""
    return f"{letter.lower()}.example.org"


def user(name: str, home: str = "H") -> str:
    """Return the OpenID of a user of a node."""
    return f"https://{host(home)}/esgf-idp/openid/{name}"


def a_change(epoch: int = 0) -> Change:
    """Return a retraction."""
    key = change_key(EventType.RETRACTED, VERSION.instance_id, epoch)
    return Change(key, EventType.RETRACTED.value, (VERSION,), START_MS, origin=host("A"))


def a_match(change: Change, openid: str, at: str = "b.example.org", files: int = 1) -> Match:
    """Return what one node knows of one user."""
    held = tuple(FetchedFile(VERSION, f"tas_{n}.nc", at, START_MS - n) for n in range(files))
    return Match(change.key, openid, held, files, (VERSION,), 1, START_MS)


class World:
    """The network, its clock, and what went over it."""

    def __init__(self, folder: Path, seed: int, letters: str = "ABCHX", homeless: Sequence[str] = ()) -> None:
        self.random = Random(seed)
        self.clock = Clock()
        self.folder = folder
        self.homeless = frozenset(homeless)
        self.down: set[str] = set()
        self.cut: list[set[str]] = []
        self.silent_providers: set[str] = set()
        # Users whom no stand-in can find: their accounts are known at home alone.
        self.strangers: set[str] = set()
        self.lost_answers = 0.0
        self.faults: Counter[str] = Counter()
        # Every mail that went out: who sent it, to whom, of which change.
        self.mails: list[tuple[str, str, bytes]] = []
        self.frames: list[tuple[str, str, bytes]] = []
        self.nodes = {host(letter): SimNode(self, host(letter)) for letter in letters}

    def node(self, letter: str) -> SimNode:
        """Return a node by its letter."""
        return self.nodes[host(letter)]

    def now_ms(self) -> int:
        """Return the time on every wall."""
        return START_MS + int(self.clock.seconds() * 1000)

    def reaches(self, one: str, other: str) -> bool:
        """Tell whether two nodes hear each other."""
        if {one, other} & self.down:
            return False
        return all((one in part) == (other in part) for part in self.cut)

    def heal(self) -> None:
        """End all cuts; nodes see each other come back."""
        self.faults["cut"] += bool(self.cut)
        self.cut = []
        for node in self.nodes.values():
            for one in self.nodes if node.host not in self.down else ():
                node.homeward.heard_of(one)

    def run(self, hours: float) -> None:
        """Let time pass: deliveries by timers, claims by gossip, mails when they are due."""
        for _ in range(int(hours * HOUR_S / STEP_S)):
            self.clock.advance(STEP_S)
            self._gossip()
            for node in self.nodes.values():
                if node.host not in self.down:
                    node.mail()

    def _gossip(self) -> None:
        pairs = [
            (one, other) for one in self.nodes.values() for other in self.nodes.values() if one is not other
        ]
        self.random.shuffle(pairs)
        for one, other in pairs:
            if not self.reaches(one.host, other.host) or self.random.random() < 0.5:
                continue
            said = [(origin, n) for origin in one.logs for n in range(len(one.logs[origin]))]
            # As logs do: complete, whoever brings them; the order among origins is any, and a leaf may come again.
            self.random.shuffle(said)
            for origin, _ in said:
                held, more = other.logs.setdefault(origin, []), one.logs[origin]
                if len(held) < len(more):
                    other.hear(origin, more[len(held)])
                elif held and self.random.random() < 0.01:
                    self.faults["leaf heard twice"] += 1
                    other.read(origin, self.random.choice(held))
            for change in one.events:
                if change.key not in {known.key for known in other.events}:
                    other.learn(change)

    def sent(self, openid: str, change: Change) -> list[str]:
        """Return who mailed a user of a change."""
        return [sender for sender, whom, key in self.mails if (whom, key) == (openid, change.key)]

    def close(self) -> None:
        """Stop all nodes."""
        for node in self.nodes.values():
            node.stop()


class SimNode:
    """One node: the parts under test, around them what the rest of a node would do."""

    def __init__(self, world: World, own: str) -> None:
        self.world = world
        self.host = own
        self.events: list[Change] = []
        # By origin its claims, as this node holds them; its own are on its disk.
        self.logs: dict[str, list[Claim]] = {own: []}
        self.log_is_full = False
        self.path = world.folder / f"{own}.db"
        self.sealed = SealedValues(world.folder / f"{own}.key")
        self.start()

    def start(self) -> None:
        """Start the daemon, anew where it ran before."""
        world = self.world
        self.started_ms = world.now_ms()
        self.database = TrackingDatabase(self.path, SCRIPTS, AtOnce())
        # Crashes of the machine are not simulated.
        self.database._connection.execute("PRAGMA synchronous = OFF")
        self.fallback = Fallback(
            self.database,
            self.sealed,
            self.host,
            publish_claims=self.publish,
            resolve=self.resolve,
            take=take,
            may_act=self.sees_most,
            now_ms=world.now_ms,
            after_ms=FALLBACK_MS,
        )
        self.homeward = Homeward(
            self.database,
            world.clock,
            self.sealed,
            homes=self.homes,
            send=self.send,
            take=take,
            fallback=self.fallback,
            now_ms=world.now_ms,
            max_age_ms=30 * 24 * 60 * MINUTE_MS,
            random=world.random,
        )
        self.homeward.start()

    def stop(self) -> None:
        """End the daemon."""
        self.homeward.stop()
        self.database.close()

    def crash(self) -> None:
        """Go down: nobody reaches it, and it does nothing."""
        self.world.faults["node down"] += 1
        self.world.down.add(self.host)
        self.stop()

    def restart(self) -> None:
        """Come back; the others see it."""
        self.world.down.discard(self.host)
        self.start()
        for node in self.world.nodes.values():
            if node.host not in self.world.down and self.world.random.random() < 0.7:
                node.homeward.heard_of(self.host)

    def homes(self) -> Homes:
        """Return what the view would say: each node is the home of its own host."""
        nodes = {one: one for one in self.world.nodes if one not in self.world.homeless}
        return Homes(self.host, nodes, {})

    def sees_most(self, home: str) -> bool:
        """Tell whether this node is in the larger part, as ``homes.sees_most`` does by the view."""
        others = [one for one in self.world.nodes if one != home]
        seen = [one for one in others if one == self.host or self.world.reaches(self.host, one)]
        is_most = 2 * len(seen) > len(others)
        self.world.faults["minority"] += not is_most
        return is_most

    def learn(self, change: Change) -> None:
        """Hear of an event by the log."""
        self.events.append(change)
        if self.host not in self.world.down:
            self.database.now(changes.add_change, change, self.world.now_ms())

    def match(self, change: Change, *openids: str) -> None:
        """Find users in the own downloads."""
        self.database.now(self.homeward.enqueue, change, [a_match(change, one, self.host) for one in openids])
        self.homeward.wake()

    def send(self, home: str, key: bytes, matches: Sequence[Match]) -> Deferred[Answer]:
        """Bring matches over the wire, byte by byte as they are."""
        world = self.world
        if not world.reaches(self.host, home):
            world.faults["home unreachable"] += 1
            return fail(DeliveryError("no route"))
        payload = encode_question(Question(key, tuple(matches)))
        world.frames.append((self.host, home, payload))
        there = world.nodes[home]
        answer = there.database.now(
            receive,
            decode_question(payload),
            self.host,
            world.now_ms(),
            is_ours=there.homes().is_ours,
            take=take,
        )
        if world.random.random() < world.lost_answers:
            world.faults["answer lost"] += 1
            return fail(DeliveryError("the connection was lost"))
        return succeed(decode_answer(encode_answer(answer)))

    def publish(self, said: Sequence[Claim]) -> None:
        """Append to the own log."""
        if self.log_is_full:
            raise OSError("the log is full")
        for claim in said:
            self.hear(self.host, claim)

    def hear(self, origin: str, claim: Claim) -> None:
        """Take the next leaf of a log."""
        if self.host not in self.world.down:
            self.logs.setdefault(origin, []).append(claim)
            self.read(origin, claim)

    def read(self, origin: str, claim: Claim) -> None:
        """Put a claim into the table, as the reader of the log does."""
        if self.host not in self.world.down:
            self.database.now(_put_claim, origin, claim, self.world.now_ms())

    def resolve(self, openid: str) -> Deferred[Resolution]:
        """Ask the identity provider, which is a server of its own."""
        if openid_host(openid) in self.world.silent_providers:
            self.world.faults["provider silent"] += 1
            return succeed(Resolution(Finding.UNANSWERED))
        if openid in self.world.strangers:
            return succeed(Resolution(Finding.UNKNOWN))
        return succeed(Resolution(Finding.FOUND, "someone@mail.example.org"))

    def mail(self) -> None:
        """Send what is due, unless another has; after a start the claims of the meantime are waited for."""
        if self.world.now_ms() < self.started_ms + GRACE_MS:
            return
        for openid, key in self.database.now(_due, self.world.now_ms(), self.host):
            self.world.mails.append((self.host, openid, key))


def take(connection: Any, change: Change, matches: Sequence[Match], from_node: str, now_ms: int) -> None:
    """Do what the mail does with matches: one notice for each user and change."""
    connection.executemany(
        "INSERT OR IGNORE INTO notice (openid, change_key, from_node, due_ms) VALUES (?, ?, ?, ?)",
        [(match.openid, change.key, from_node, now_ms + QUIET_MS) for match in matches],
    )


def _due(connection: Any, now_ms: int, own: str) -> list[tuple[str, bytes]]:
    rows = connection.execute(
        "SELECT openid, change_key FROM notice WHERE due_ms <= ? AND NOT is_done", [now_ms]
    ).fetchall()
    connection.execute("UPDATE notice SET is_done = 1 WHERE due_ms <= ?", [now_ms])
    return [row for row in rows if not claims.is_told_elsewhere(connection, *row, own)]


def _put_claim(connection: Any, origin: str, claim: Claim, now_ms: int) -> None:
    connection.execute(
        "INSERT INTO claim VALUES (?, ?, ?, ?) ON CONFLICT (token, origin) DO UPDATE SET "
        "is_sent = max(is_sent, excluded.is_sent)",
        [claim.token, origin, claim.is_sent, now_ms],
    )


def random_schedule(world: World, changes_told: int = 4) -> list[tuple[str, Change]]:
    """Let faults of all kinds happen while nodes match users; return who was to be told of what. All is well at the end."""
    random = world.random
    world.lost_answers = 0.2
    told = []
    for epoch in range(changes_told):
        change = a_change(epoch)
        world.node("A").learn(change)
        world.run(0.1)
        users = sorted({user(f"u{n}", random.choice("HX")) for n in range(4)})
        for letter in "ABC":
            if host(letter) not in world.down:
                world.node(letter).match(change, *users)
        told += [(one, change) for one in users]
        if random.random() < 0.7 and not world.down:
            world.node(random.choice("HX")).crash()
        if random.random() < 0.5:
            world.cut = [{host(random.choice("ABC"))}]
        world.run(random.choice([0.3, 1.5, 3.0]))
        world.heal()
        for one in sorted(world.down):
            if random.random() < 0.6:
                world.nodes[one].restart()
        world.run(0.3)
    for one in sorted(world.down):
        world.nodes[one].restart()
    world.run(8.0)
    return told


def wrong_mails(world: World, told: Sequence[tuple[str, Change]]) -> dict[tuple[str, bytes], list[str]]:
    """
    Return whom nobody told, or who was told by more than can be.

    Home tells once, or one other in its place. Both only in this order: home told, and stayed away after it.
    """
    wrong = {}
    for openid, change in told:
        senders, home = world.sent(openid, change), openid_host(openid)
        is_right = len(senders) == 1 or (len(senders) == 2 and senders[0] == home != senders[1])
        if not is_right:
            wrong[openid, change.key] = senders
    return wrong
