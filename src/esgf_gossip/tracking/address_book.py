"""
The mail addresses of users: asked of the site and of identity providers, kept for some days, sealed.

An address is kept under a keyed hash of its OpenID, so a copy of the database tells neither; it is never gossiped,
never logged, and gone when its time is over or the user is forgotten. Source: docs/tracking.md, "Addresses".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred, succeed
from twisted.logger import Logger

from esgf_gossip.esgf.openids import canonical_openid
from esgf_gossip.esgf.saml import SamlAnswer
from esgf_gossip.sources.gauge import SourceError
from esgf_gossip.sources.identity_provider import ProviderError
from esgf_gossip.sources.user_addresses import BATCH, Account
from esgf_gossip.tracking.database import TrackingDatabase
from esgf_gossip.tracking.openids import fold_openid
from esgf_gossip.tracking.resolution import Finding, Resolution
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.sealed_values import SealedValues

SCRIPT: Final = """
CREATE TABLE address (
    person BLOB PRIMARY KEY,
    finding TEXT NOT NULL,
    sealed BLOB NOT NULL,
    is_opt_in INTEGER NOT NULL,
    source TEXT NOT NULL,
    reason TEXT NOT NULL,
    until_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX address_until ON address (until_ms);
"""

DAY_MS: Final = 24 * 3600 * 1000
# A user whom nobody knows may register; who gave no answer may be back soon.
UNKNOWN_MS: Final = DAY_MS
UNANSWERED_MS: Final = 10 * 60 * 1000
REASON_CHARACTERS: Final = 200

SAML: Final = "saml"

Accounts = Callable[[Sequence[str]], "Deferred[Mapping[str, Account]]"]
Provider = Callable[[str], "Deferred[SamlAnswer]"]


class Addresses:
    """
    Finds the addresses of users.

    Args:
        database: that has the table of ``SCRIPT``.
        sealed: by which addresses lie in it.
        accounts: asked in this order, by the name that a ``Resolution`` gives: ``file``, ``database``, ``cog``. At most
            ``BATCH`` OpenIDs at a time, one question at a time.
        provider: asked last, of one user; None: never.
        is_home: whether users of an OpenID have their accounts here: then an account that is not valid is the last
            word. Of others a database may hold old copies.
        now_ms: the wall clock.
        keep_ms: for how long an address is kept.
    """

    log = Logger()

    def __init__(
        self,
        database: TrackingDatabase,
        sealed: SealedValues,
        *,
        accounts: Sequence[tuple[str, Accounts]],
        provider: Provider | None,
        is_home: Callable[[str], bool],
        now_ms: Callable[[], int],
        keep_ms: int,
    ) -> None:
        self._database: Final = database
        self._sealed: Final = sealed
        self._accounts: Final = tuple(accounts)
        self._provider: Final = provider
        self._is_home: Final = is_home
        self._now_ms: Final = now_ms
        self._keep_ms: Final = keep_ms
        # By canonical OpenID: who waits for the answer. None may be kept of those forgotten meanwhile.
        self._asked: Final[dict[str, list[Deferred[Resolution]]]] = {}
        self._forgotten: Final[set[str]] = set()
        self._next: Final[list[str]] = []
        # As it was logged: databases and providers compare byte by byte.
        self._spelled: Final[dict[str, str]] = {}
        self._is_asking = False

    def resolve(self, openid: str) -> Deferred[Resolution]:
        """Fire with the address of a user, or why there is none. Fails only where the tracker's database does."""
        name = canonical_openid(openid)
        if not name:
            return succeed(Resolution(Finding.UNKNOWN, reason="this is no OpenID"))
        answer: Deferred[Resolution] = Deferred()
        if name in self._asked:
            self._asked[name].append(answer)
            return answer
        self._asked[name] = [answer]
        self._spelled[name] = openid.strip()
        looking: Deferred[Any] = self._database.run(_kept, self._person(name), self._now_ms())
        looking.addCallback(self._found, name)
        looking.addErrback(self._failed, name)
        return answer

    def forget(self, openid: str) -> Deferred[bool]:
        """Forget what is kept of a user; fires with whether there was anything."""
        name = canonical_openid(openid)
        if name in self._asked:
            self._forgotten.add(name)
        return self._database.run(forget, self._sealed, openid)

    def _found(self, row: tuple[Any, ...] | None, name: str) -> None:
        kept = None if row is None else self._opened(row, name)
        if kept is not None:
            self._tell(name, kept)
            return
        self._next.append(name)
        if not self._is_asking:
            self._is_asking = True
            self._ask_next()

    @inlineCallbacks
    def _ask_next(self) -> Iterator[Any]:
        """Ask for all that wait, in batches; identity providers answer at their own pace beside it."""
        while self._next:
            batch = self._next[: BATCH // 2]
            del self._next[: BATCH // 2]
            found: dict[str, Resolution] = {}
            silent = ""
            for source, ask in self._accounts:
                open_ = [name for name in batch if name not in found]
                if not open_:
                    break
                spellings = sorted({*open_, *(self._spelled[name] for name in open_)})
                try:
                    accounts = yield maybeDeferred(ask, spellings)
                except SourceError as error:
                    silent = silent or str(error)[:REASON_CHARACTERS]
                except Exception as error:  # noqa: BLE001 - those who wait must get an answer
                    self.log.warn("asking {source}: {kind}", source=source, kind=type(error).__name__)
                    silent = silent or f"{source}: {type(error).__name__}"
                else:
                    found |= self._judged(source, open_, accounts)
            for name in batch:
                self._ask_provider(name, found.get(name), silent)
        self._is_asking = False

    def _judged(
        self, source: str, names: Sequence[str], accounts: Mapping[str, Account]
    ) -> dict[str, Resolution]:
        found = {}
        by_name = {canonical_openid(openid): account for openid, account in accounts.items()}
        for name in names:
            account = by_name.get(name)
            if account is None:
                continue
            if account.is_valid:
                found[name] = Resolution(
                    Finding.FOUND, account.address, is_opt_in=account.is_opt_in, source=source
                )
            elif self._is_home(name):
                found[name] = Resolution(
                    Finding.UNKNOWN, source=source, reason="the account is not valid, or has no mail address"
                )
        return found

    def _ask_provider(self, name: str, found: Resolution | None, silent: str) -> None:
        if found is not None:
            self._keep(found, name)
            return
        if self._provider is None:
            nobody = Resolution(
                Finding.UNANSWERED if silent else Finding.UNKNOWN,
                reason=silent or "no source has an account of this user, and no identity provider is asked",
            )
            self._keep(nobody, name)
            return
        asking: Deferred[Any] = maybeDeferred(self._provider, self._spelled[name])
        asking.addCallbacks(
            lambda answer: _resolved(answer, silent), lambda failure: _unanswered(failure, silent)
        )
        asking.addCallback(self._keep, name)
        asking.addErrback(self._failed, name)

    def _keep(self, found: Resolution, name: str) -> None:
        for_ms = {Finding.FOUND: self._keep_ms, Finding.UNKNOWN: UNKNOWN_MS}.get(found.finding, UNANSWERED_MS)
        if name in self._forgotten:
            self._tell(name, found)
            return
        person = self._person(name)
        row = (
            person,
            found.finding.value,
            self._sealed.seal(found.address.encode(), _context(person)),
            int(found.is_opt_in),
            found.source,
            found.reason[:REASON_CHARACTERS],
            self._now_ms() + min(for_ms, self._keep_ms),
        )
        keeping: Deferred[Any] = self._database.run(_keep, row)
        keeping.addCallback(lambda _: self._tell(name, found))
        keeping.addErrback(self._failed, name)

    def _tell(self, name: str, found: Resolution) -> None:
        for answer in self._ended(name):
            answer.callback(found)

    def _failed(self, failure: Any, name: str) -> None:
        for answer in self._ended(name):
            answer.errback(failure.value)

    def _ended(self, name: str) -> list[Deferred[Resolution]]:
        self._forgotten.discard(name)
        self._spelled.pop(name, None)
        return self._asked.pop(name, [])

    def _opened(self, row: tuple[Any, ...], name: str) -> Resolution | None:
        finding, sealed, is_opt_in, _source, reason = row
        try:
            address = self._sealed.open(sealed, _context(self._person(name))).decode()
        except (TrustError, UnicodeDecodeError):
            return None  # of another key, after a restore: asked anew
        return Resolution(Finding(finding), address, is_opt_in=bool(is_opt_in), source="cache", reason=reason)

    def _person(self, name: str) -> bytes:
        return person_of(self._sealed, name)


def person_of(sealed: SealedValues, openid: str) -> bytes:
    """Return the keyed hash by which a user lies in the tracker's tables."""
    return sealed.keyed_hash("openid", fold_openid(openid))


def forget(connection: sqlite3.Connection, sealed: SealedValues, openid: str) -> bool:
    """Forget what is kept of a user, in the transaction of who erases him; return whether there was anything."""
    done = connection.execute("DELETE FROM address WHERE person = ?", [person_of(sealed, openid)])
    return done.rowcount > 0


def kept_of(connection: sqlite3.Connection, sealed: SealedValues, openid: str) -> dict[str, Any] | None:
    """Return what is kept of a user, as JSON values; None: nothing that can be read."""
    person = person_of(sealed, openid)
    row = connection.execute(
        "SELECT finding, sealed, is_opt_in, source, reason, until_ms FROM address WHERE person = ?", [person]
    ).fetchone()
    if row is None:
        return None
    finding, content, is_opt_in, source, reason, until_ms = row
    try:
        address = sealed.open(content, _context(person)).decode()
    except (TrustError, UnicodeDecodeError):
        return None
    return {
        "openid": openid,
        "address": address,
        "finding": finding,
        "is_opt_in": bool(is_opt_in),
        "source": source,
        "reason": reason,
        "until_ms": until_ms,
    }


def _kept(connection: sqlite3.Connection, person: bytes, now_ms: int) -> tuple[Any, ...] | None:
    row: tuple[Any, ...] | None = connection.execute(
        "SELECT finding, sealed, is_opt_in, source, reason FROM address WHERE person = ? AND until_ms > ?",
        [person, now_ms],
    ).fetchone()
    return row


def _keep(connection: sqlite3.Connection, row: Sequence[Any]) -> None:
    connection.execute("INSERT OR REPLACE INTO address VALUES (?, ?, ?, ?, ?, ?, ?)", row)


def expire(connection: sqlite3.Connection, now_ms: int) -> int:
    """Forget what has been kept for long enough; return how many users that were of."""
    return connection.execute("DELETE FROM address WHERE until_ms <= ?", [now_ms]).rowcount


def _context(person: bytes) -> str:
    return f"address/{person.hex()}"


def _resolved(answer: SamlAnswer, silent: str) -> Resolution:
    if not answer.is_known and silent:
        # Who said nothing may know the user.
        return Resolution(Finding.UNANSWERED, source=SAML, reason=silent)
    if not answer.is_known:
        return Resolution(Finding.UNKNOWN, source=SAML, reason="the identity provider does not know the user")
    return Resolution(Finding.FOUND, answer.address, source=SAML)


def _unanswered(failure: Any, silent: str) -> Resolution:
    failure.trap(ProviderError)
    reason = "; ".join(one for one in (silent, str(failure.value)) if one)
    return Resolution(Finding.UNANSWERED, source=SAML, reason=reason[:REASON_CHARACTERS])


@attrs.frozen
class AddressCounts:
    """How many addresses are kept, and how many users are kept as unknown."""

    found: int
    unknown: int


def counts(connection: sqlite3.Connection, now_ms: int) -> AddressCounts:
    """Count what is kept and not over."""
    rows = dict(
        connection.execute(
            "SELECT finding, count(*) FROM address WHERE until_ms > ? GROUP BY finding", [now_ms]
        ).fetchall()
    )
    return AddressCounts(rows.get(Finding.FOUND.value, 0), rows.get(Finding.UNKNOWN.value, 0))
