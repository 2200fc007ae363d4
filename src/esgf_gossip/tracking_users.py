"""
From downloads to mails: everything of one node that knows users, assembled from ``[tracking]``.

Downloads are matched here, matches go home, and what has come home becomes mail. Each part is on when what it needs
is named: a node without users of its own still brings matches home, a home without downloads still takes them.
Source: docs/adr/0021-tracking.md, docs/adr/0022-home-nodes.md.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import SystemRandom
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred, succeed

from esgf_gossip.config_tracking import TrackingTable
from esgf_gossip.core.model import Address
from esgf_gossip.esgf.openids import canonical_openid
from esgf_gossip.files import read_file
from esgf_gossip.sources.access_files import AccessFiles
from esgf_gossip.sources.access_log import AccessLog
from esgf_gossip.sources.gauge import in_thread
from esgf_gossip.sources.identity_provider import IdentityProviders
from esgf_gossip.sources.reach import Network, OpenEndpoint
from esgf_gossip.sources.user_addresses import AccountQuestions, ask_accounts, ask_cog, ask_file
from esgf_gossip.sources.user_file import UserFile
from esgf_gossip.storage.state_files import TRACKING_KEY
from esgf_gossip.tracking import (
    address_book,
    contested,
    errata_store,
    file_learning,
    homeward_rows,
    persons,
    pipeline,
)
from esgf_gossip.tracking.address_book import Addresses
from esgf_gossip.tracking.claims import is_told_elsewhere
from esgf_gossip.tracking.database import TrackingDatabase
from esgf_gossip.tracking.downloads import FILE_NAME as DOWNLOADS
from esgf_gossip.tracking.downloads import Downloads, DownloadsError
from esgf_gossip.tracking.downloads_postgres import PostgresDownloads
from esgf_gossip.tracking.downloads_sqlite import SqliteDownloads
from esgf_gossip.tracking.fallback import Fallback
from esgf_gossip.tracking.feedback_messages import Answer, Question, Verdict
from esgf_gossip.tracking.file_learning import FileLearning
from esgf_gossip.tracking.holds import CONTESTED
from esgf_gossip.tracking.homes import Homes
from esgf_gossip.tracking.homeward import Homeward, Send, receive
from esgf_gossip.tracking.mail_signing import make_signer
from esgf_gossip.tracking.mailing import SCRIPTS as MAILING
from esgf_gossip.tracking.mailing import Mailing, MailSettings
from esgf_gossip.tracking.matches import Change, Match
from esgf_gossip.tracking.pipeline import Pipeline
from esgf_gossip.tracking.projecting import Projector, StoppedError
from esgf_gossip.tracking.restored import hold_restored
from esgf_gossip.tracking.smtp_session import Login, SmtpServer, open_session
from esgf_gossip.tracking.versions import successor_of
from esgf_gossip.trust.sealed_values import SealedValues
from esgf_gossip.trust.web_tls import ServicePolicy
from esgf_gossip.user_desk import UserDesk

SCRIPTS: Final[Mapping[str, str]] = {
    "contested": contested.SCRIPT,
    "errata": errata_store.SCRIPT,
    "addresses": address_book.SCRIPT,
    "homeward": homeward_rows.SCRIPT,
    "pipeline": pipeline.SCRIPT,
    "file-learning": file_learning.SCRIPT,
    **MAILING,
}
ACCESS_PLACES: Final = "access-logs.json"
_PASSWORD_BYTES: Final = 4096
_MINUTE_MS: Final = 60_000
_DAY_MS: Final = 24 * 60 * _MINUTE_MS


class Users:
    """
    The users of one node.

    ``desk`` answers administrators and receivers; ``is_mailing``: whether this node writes to its users.

    Args:
        table: ``[tracking]``.
        host: of this node.
        state: the folder of its files.
        database: with ``SCRIPTS`` among its scripts.
        homes: of now; may be called in the tracker's thread.
        send: brings matches to a home node.
        publish_claims: writes claims into this node's log.
        may_act: whether this node may tell users of a home that is away.
        provider_policy: makes the TLS to identity providers.
        issuer: the distinguished name we ask those by.
        allowed: networks that are asked beside those that are everybody's, ``[services] allow``.
        reactor: of everything.
        now_ms: Unix milliseconds.

    Raises:
        TrustError, SigningError, OSError: a key or a password cannot be read.
        TrackingError: the database is of another key.
    """

    def __init__(
        self,
        table: TrackingTable,
        host: str,
        state: Path,
        database: TrackingDatabase,
        *,
        homes: Callable[[], Homes],
        send: Send,
        publish_claims: Callable[..., Deferred[None]],
        may_act: Callable[[str], bool],
        provider_policy: Any,
        issuer: str,
        allowed: Sequence[Network],
        reactor: Any,
        now_ms: Callable[[], int],
    ) -> None:
        self._host: Final = host
        self._database: Final = database
        self._homes: Final = homes
        self._reactor: Final = reactor
        self._now_ms: Final = now_ms
        self._values: Final = SealedValues(state / TRACKING_KEY)
        database.now(persons.check_key, self._values)
        self._max_age_ms: Final = table.max_age_days * _DAY_MS
        database.now(hold_restored, now_ms(), self._max_age_ms)
        providers = IdentityProviders(
            reactor,
            provider_policy,
            lambda name: homes().provider_of(name),
            issuer,
            now_ms,
            # Addresses inside this site are nobody's identity provider.
            lambda name, port: OpenEndpoint(reactor, name, port, allowed),
        )
        self.addresses: Final = Addresses(
            database,
            self._values,
            accounts=self._accounts(table),
            provider=providers.ask if table.identity_providers else None,
            is_home=lambda openid: homes().is_ours(openid),
            now_ms=now_ms,
            keep_ms=table.address_days * _DAY_MS,
        )
        self.mailing: Final = self._mailing(table)
        self.projector: Final = self._projector(table, state)
        self.is_mailing: Final = table.smtp is not None or table.dry_run
        self._is_mailing_started = False
        self._is_dry_run: Final = table.dry_run
        fallback = None
        # In a dry run nobody is told, so this node must not say of others' users that they were.
        if self.is_mailing and not table.dry_run:
            fallback = Fallback(
                database,
                self._values,
                host,
                publish_claims=publish_claims,
                resolve=self.addresses.resolve,
                take=self._take,
                may_act=may_act,
                now_ms=now_ms,
                after_ms=table.fallback_minutes * _MINUTE_MS,
            )
        self.homeward: Final = Homeward(
            database,
            reactor,
            self._values,
            homes=homes,
            send=send,
            take=self._take,
            fallback=fallback,
            now_ms=now_ms,
            max_age_ms=self._max_age_ms,
            random=SystemRandom(),
            is_mailing=self.is_mailing,
        )
        self.pipeline: Final = self._pipeline()
        self.desk: Final = UserDesk(
            self.mailing,
            self.projector,
            self._erase_also,
            lambda connection, openids: homeward_rows.known_of(connection, self._values, openids),
            self.addresses.forget,
        )

    # ----------------------------------------------------------------- making

    def _accounts(self, table: TrackingTable) -> list[tuple[str, Any]]:
        questions: list[tuple[str, Any]] = []
        if table.users_file is not None:
            users = UserFile(table.users_file, canonical_openid)
            questions.append(("file", partial(ask_file, users)))
        if table.database is not None:
            questions.append(("database", partial(ask_accounts, table.database, table.password_file)))
        if table.cog_database is not None:
            questions.append(("cog", partial(ask_cog, table.cog_database, table.cog_password_file)))
        return [(name, AccountQuestions(self._reactor, question).ask) for name, question in questions]

    def _mailing(self, table: TrackingTable) -> Mailing:
        smtp = table.smtp
        settings = MailSettings(
            self._host,
            table.sender or "",
            table.public_url or "",
            "" if smtp is None else f"{smtp[0]}:{smtp[1]}",
            table.quiet_minutes,
            table.max_delay_minutes,
            table.rate_per_s,
            table.domain_rate_per_s,
            table.hold_above,
            table.max_age_days,
            table.address_days,
            table.keep_days,
            table.mta_log,
            table.dry_run,
        )
        signer = None
        if table.dkim_key is not None and table.dkim_selector is not None and table.sender is not None:
            signer = make_signer(table.dkim_key, table.dkim_selector, table.sender.rpartition("@")[2])
        session = None if smtp is None else partial(open_session, self._reactor, self._server(table, smtp))
        return Mailing(
            self._database,
            self._values,
            self._reactor,
            settings,
            self.addresses.resolve,
            session,
            self._now_ms,
            SystemRandom(),
            self._in_thread,
            successor_of,
            errata_store.reasons_of,
            signer,
            lambda connection, openid, key: is_told_elsewhere(connection, openid, key, self._host),
            address_book.expire,
            contested.DOUBTS,
        )

    def _server(self, table: TrackingTable, address: Address) -> SmtpServer:
        login = None
        if table.smtp_user is not None and table.smtp_password_file is not None:
            login = Login(table.smtp_user, _password(table.smtp_password_file))
        tls = None
        if table.smtp_security != "none":
            tls = ServicePolicy().creatorForNetloc(address[0].encode("ascii"), address[1])
        return SmtpServer(*address, table.smtp_security, self._host, tls, login)

    def _projector(self, table: TrackingTable, state: Path) -> Projector | None:
        source: Any = None
        if table.access_logs:
            source = AccessFiles(table.access_logs, table.data_nodes[0], state / ACCESS_PLACES)
        elif table.database is not None:
            source = AccessLog(table.database, table.password_file)
        if source is None:
            return None

        def open_store() -> Downloads:
            if table.projection is not None:
                return PostgresDownloads(table.projection, table.projection_password_file)
            return SqliteDownloads(state / DOWNLOADS)

        keep_ms = table.keep_days * _DAY_MS
        return Projector(open_store, source, self._reactor, self._now_ms, keep_ms)

    def _pipeline(self) -> Pipeline | None:
        projector = self.projector
        if projector is None:
            return None
        learning = FileLearning(self._database, projector.learn, lambda: not projector.counts().places)

        def caught_up(at_ms: int) -> Deferred[None]:
            return projector.when_caught_up(at_ms).addCallback(lambda _: learning.learn_new())

        return Pipeline(
            self._database,
            caught_up,
            projector.match,
            self._hand_on,
            self._handed,
            self._max_age_ms,
            self._reactor,
            self._now_ms,
            (DownloadsError, StoppedError),
        )

    def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        # Not the reactor's own threads: a stop would wait for what is under way there.
        return in_thread(lambda: work(*arguments), self._reactor)

    # ----------------------------------------------------------------- running

    def has_past(self) -> bool:
        """Tell whether anything happened before this start that another node may have told users of meanwhile."""
        return bool(self._database.now(_has_past))

    def start_mailing(self) -> None:
        """Begin to write to users: when it is known what other nodes told them while this one was away."""
        if self.is_mailing and not self._is_mailing_started:
            self._is_mailing_started = True
            self.mailing.start()

    def start(self) -> None:
        """Begin with all but the mails."""
        self.homeward.start()
        if self.projector is not None and self.pipeline is not None:
            self.projector.start()
            self.pipeline.start()

    def stop(self) -> list[Deferred[Any]]:
        """End; return what has to be waited for."""
        waits: list[Deferred[Any]] = []
        if self.pipeline is not None:
            self.pipeline.stop()
        if self.projector is not None:
            waits.append(self.projector.stop())
        self.homeward.stop()
        if self._is_mailing_started:
            waits.append(self.mailing.stop())
        return waits

    def wake(self) -> None:
        """Hear that there may be new changes."""
        if self.pipeline is not None:
            self.pipeline.wake()

    def take_question(self, from_node: str, question: Question) -> Deferred[Answer]:
        """
        Take what another node brings home; fires when it is on the disk.

        In a dry run it is told to come again: what was made in one is never sent.
        """
        if self._is_dry_run:
            return succeed(Answer(Verdict.BUSY))
        is_ours = self._homes().is_ours
        taking = self._database.run(
            receive, question, from_node, self._now_ms(), is_ours=is_ours, take=self._take
        )

        def taken(answer: Answer) -> Answer:
            self._handed()
            return answer

        return taking.addCallback(taken)

    def _take(
        self,
        connection: sqlite3.Connection,
        change: Change,
        matches: Sequence[Match],
        from_node: str,
        now_ms: int,
    ) -> int:
        if not self.is_mailing:
            return 0
        wanted = [
            match
            for match in matches
            if not is_told_elsewhere(connection, match.openid, change.key, self._host)
        ]
        return self.mailing.take(connection, change, wanted, from_node, now_ms)

    def _hand_on(
        self, connection: sqlite3.Connection, change: Change, matches: Sequence[Match], now_ms: int
    ) -> None:
        del now_ms  # what is put on the way home has its own clock
        self.homeward.enqueue(connection, change, matches)

    def _handed(self) -> None:
        self.homeward.wake()
        if self.is_mailing:
            self.mailing.wake()

    def _erase_also(self, connection: sqlite3.Connection, openids: Sequence[str]) -> Mapping[str, Any]:
        """Forget addresses, and what is on the way home, in the step that forgets the notices."""
        kept = sum(address_book.forget(connection, self._values, openid) for openid in openids)
        return {
            "kept_addresses": kept,
            "on_the_way": sum(homeward_rows.forget(connection, self._values, openid) for openid in openids),
        }

    # ----------------------------------------------------------------- telling

    def faults(self) -> dict[str, str]:
        """Return what an operator must mend, by part."""
        parts = {
            "downloads": self.projector,
            "matching": self.pipeline,
            "homeward": self.homeward,
            "mail": self.mailing,
        }
        faults = {name: part.fault for name, part in parts.items() if part is not None and part.fault}
        if count := self.mailing.counts().get("contested"):
            faults["held"] = (
                f"{CONTESTED}, and not mailed to anybody: {count} of the changes; look at notify list and dataset quarantine: "
                "two people may release it (notify release), or a liar is to be revoked"
            )
        return faults

    def figures(self) -> dict[str, dict[str, int]]:
        """Return what the parts have done, by part and figure."""
        found: dict[str, dict[str, int]] = {}
        if self.projector is not None and self.pipeline is not None:
            found["downloads"] = attrs.asdict(self.projector.counts())
            found["matching"] = {
                "changes": self.pipeline.changes,
                "too_old": self.pipeline.too_old,
                "matches": self.pipeline.matches,
            }
        found["homeward"] = {
            "waiting": sum(one.count for one in self.homeward.waiting),
            **self.homeward.counts,
        }
        if self.is_mailing:
            found["mail"] = {
                name: int(value) for name, value in self.mailing.counts().items() if value is not None
            }
        return found


def _has_past(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM change LIMIT 1").fetchone() is not None


def _password(path: Path) -> str:
    return read_file(path, _PASSWORD_BYTES).decode("utf-8", "replace").partition("\n")[0]
