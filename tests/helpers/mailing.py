"""The mailing of one node with a clock of its own and a mail server that does as a test says. No test lives here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from random import Random
from typing import Any

import attrs
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import Clock

from esgf_gossip.storage.journal_thread import AtOnce
from esgf_gossip.tracking import address_book, ledger
from esgf_gossip.tracking.changes import changes_after
from esgf_gossip.tracking.database import TrackingDatabase
from esgf_gossip.tracking.doubts import Doubts
from esgf_gossip.tracking.events import DatasetEvent, change_key, encode_event
from esgf_gossip.tracking.identity import DatasetId, parse_dataset
from esgf_gossip.tracking.mail_desk import MailDesk
from esgf_gossip.tracking.mailing import SCRIPTS, Mailing, MailSettings
from esgf_gossip.tracking.matches import Change, FetchedFile, Match
from esgf_gossip.tracking.outbox import Mail, Outcome, Result
from esgf_gossip.tracking.persons import check_key
from esgf_gossip.tracking.resolution import Finding, Resolution
from esgf_gossip.tracking.restored import hold_restored
from esgf_gossip.tracking.versions import successor_of
from esgf_gossip.tracking_room import LOG_SCRIPTS
from esgf_gossip.trust.sealed_values import SealedValues

NODE = "esgf-h.example.org"
URL = "https://esgf-h.example.org/tracking"
NOW_MS = 1_790_000_000_000
DAY_S = 86_400
NAME = "CMIP6.CMIP.NCAR.CESM2.historical.r1i1p1f1.Amon.tas.gn.v20190308"


def a_change(name: str = NAME, kind: str = "retracted", **fields: Any) -> Change:
    """Make a change of one dataset."""
    dataset = parse_dataset(name)
    key = change_key(kind, dataset.instance_id, fields.pop("epoch", 0))
    return Change(**{"key": key, "kind": kind, "datasets": (dataset,), "occurred_ms": NOW_MS} | fields)


def a_match(change: Change, user: str = "jane", files: Sequence[str] = ("tas.nc",), **fields: Any) -> Match:
    """Make the match of a user who fetched files of the first dataset of a change."""
    dataset = fields.pop("dataset", change.datasets[0])
    host, fetched_ms = fields.pop("host", "dn1.example.org"), fields.pop("fetched_ms", NOW_MS - 10**9)
    same = fields.pop("same", ())
    named = tuple(FetchedFile(dataset, name, host, fetched_ms, name in same) for name in files)
    return Match(
        **{
            "change_key": change.key,
            "openid": openid(user),
            "files": named,
            "file_count": len(named),
            "datasets": (dataset,),
            "dataset_count": 1,
            "last_fetched_ms": fetched_ms,
        }
        | fields
    )


def openid(user: str) -> str:
    """Return the OpenID of a user."""
    return f"https://{NODE}/esgf-idp/openid/{user}"


def found(openid: str) -> Deferred[Resolution]:
    """Know everybody: the address is the user at site.org; ``jane-2`` is Jane too, in other letters."""
    user = openid.rpartition("/")[2]
    name = "JANE" if user == "jane-2" else user
    return succeed(Resolution(Finding.FOUND, f"{name}@site.org", source="database"))


def datasets(count: int) -> tuple[DatasetId, ...]:
    """Make names of datasets of thirty experiments."""
    return tuple(
        parse_dataset(f"CMIP6.CMIP.NCAR.CESM2.exp{number % 30}.r{number}i1p1f1.Amon.tas.gn.v20190308")
        for number in range(count)
    )


class FakeServer:
    """A mail server in memory: ``answer`` says what comes of a mail, ``refuses`` whether nobody can connect."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.mails: list[Mail] = []
        self.times: list[float] = []
        self.connections = 0
        self.refuses = False
        self.answer: Callable[[Mail], Outcome | Deferred[Outcome]] = lambda _mail: Outcome(
            Result.ACCEPTED, 250, "ok"
        )

    def open(self) -> Deferred[Any]:
        if self.refuses:
            return fail(ConnectionRefusedError("refused"))
        self.connections += 1
        return succeed(FakeSession(self))

    def messages(self) -> list[EmailMessage]:
        """Return the mails, read."""
        return [message_from_bytes(mail.message, policy=policy.default) for mail in self.mails]

    @property
    def recipients(self) -> list[str]:
        return [mail.recipient for mail in self.mails]


class FakeSession:
    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.is_open = True

    def send(self, mail: Mail) -> Deferred[Outcome]:
        self.server.times.append(self.server.clock.seconds())
        self.server.mails.append(mail)

        def told(outcome: Outcome) -> Outcome:
            self.is_open = self.is_open and outcome.result not in (Result.UNSENT, Result.UNKNOWN)
            return outcome

        answer = maybeDeferred(self.server.answer, mail).addCallback(told)
        # A reply takes a turn of the reactor.
        later: Deferred[Outcome] = Deferred()
        self.server.clock.callLater(0.001, answer.chainDeferred, later)
        return later

    def quit(self) -> None:
        self.is_open = False


class Office:
    """A node's mailing, its clock, its server and its desk; ``scripts`` of other parts, whose ``doubts`` it asks."""

    scripts: Mapping[str, str] = {}
    doubts = Doubts()

    def __init__(self, folder: Path, resolve: Callable[[str], Any] = found, **settings: Any) -> None:
        self.folder = folder
        self.resolve = resolve
        self.clock = Clock()
        self.server = FakeServer(self.clock)
        self.issues: list[tuple[str, str, str]] = []
        self.places: dict[str, Any] = {}
        self.settings = MailSettings(
            **{"node": NODE, "sender": "news@example.org", "public_url": URL, "server": "mx:25"}
            | {"quiet_minutes": 0, "max_delay_minutes": 0, "rate_per_s": 1000, "domain_rate_per_s": 1000}
            | settings
        )
        self.values = SealedValues(folder / "tracking.key")
        self.open()

    def open(self, **changes: Any) -> None:
        """Begin as a new process would."""
        self.settings = attrs.evolve(self.settings, **changes)
        scripts = {**LOG_SCRIPTS, **SCRIPTS, "addresses": address_book.SCRIPT, **self.scripts}
        self.database = TrackingDatabase(self.folder / "tracking.db", scripts, AtOnce())
        self.database.now(check_key, self.values)
        self.database.now(hold_restored, self.now_ms(), self.settings.bounds.max_age_ms)
        self.mailing = Mailing(
            self.database,
            self.values,
            self.clock,
            self.settings,
            self.resolve,
            self.server.open,
            self.now_ms,
            Random(1),
            maybeDeferred,
            successor_of,
            lambda _connection, _datasets: self.issues,
            also_forget=address_book.expire,
            doubts=self.doubts,
        )
        self.desk = MailDesk(self.mailing)
        self.mailing.start()

    def close(self, *, in_order: bool = True) -> None:
        """End, in order or as a kill would."""
        if in_order:
            self.mailing.stop()
        self.database.close()
        for call in self.clock.getDelayedCalls():
            call.cancel()

    def now_ms(self) -> int:
        return NOW_MS + int(self.clock.seconds() * 1000)

    def take(self, change: Change, *matches: Match, node: str = "esgf-a.example.org") -> int:
        """Take matches as the integrator does, and wake."""
        count = self.database.now(self.mailing.take, change, matches, node, self.now_ms())
        self.mailing.wake()
        return count

    def hear(self, *events: DatasetEvent) -> list[Change]:
        """Let the ledger take the next leaves of one origin's log; return the changes that users are to be told of."""
        origin = events[0].data_node
        place = self.places.get(origin) or self.database.now(ledger.begin, origin, 1, 0, {origin})
        leaves = [encode_event(one) for one in events]
        taken = self.database.now(ledger.take, place, 1, leaves, NODE, self.now_ms())
        self.places[origin] = taken.place
        changes = [one for _, one in self.database.now(changes_after, 0, 10_000)]
        return changes[len(changes) - taken.changes :]

    def wait(self, seconds: float, step_s: float = 0.5) -> None:
        """Let time pass."""
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.clock.advance(min(step_s, end - self.clock.seconds() + 1e-6))

    def sql(self, text: str, *values: Any) -> list[Any]:
        """Ask the database."""
        return self.database.now(lambda connection: connection.execute(text, values).fetchall())

    def audit(self, step: str) -> list[str]:
        """Return what the audit says of a step."""
        return [detail for (detail,) in self.sql("SELECT detail FROM audit WHERE step = ?", step)]

    def result(self, answer: Deferred[Any]) -> Any:
        """Return what fired already; raise what failed."""
        got: list[Any] = []
        answer.addBoth(got.append)
        assert got, "not fired"
        if hasattr(got[0], "raiseException"):
            got[0].raiseException()
        return got[0]


def link_of(message: EmailMessage, purpose: str) -> str:
    """Return the token of a link in a mail."""
    text = message.get_body(("plain",)).get_content()
    start = text.rindex(f"{URL}/{purpose}/") + len(f"{URL}/{purpose}/")
    return text[start:].split()[0]
