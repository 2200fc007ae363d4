"""The address book: which source is asked and believed, for how long, what lies on the disk, what is forgotten."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred, fail, succeed

from esgf_gossip.esgf.openids import openid_host
from esgf_gossip.esgf.saml import SamlAnswer
from esgf_gossip.sources.gauge import SourceError
from esgf_gossip.sources.identity_provider import ProviderError
from esgf_gossip.sources.user_addresses import BATCH, Account
from esgf_gossip.storage.journal_thread import AtOnce
from esgf_gossip.tracking import address_book
from esgf_gossip.tracking.address_book import DAY_MS, SCRIPT, UNANSWERED_MS, AddressCounts, Addresses
from esgf_gossip.tracking.database import TrackingDatabase, TrackingError
from esgf_gossip.tracking.resolution import Finding, Resolution
from esgf_gossip.trust.sealed_values import SealedValues

HOME, AWAY = "home.example.org", "away.example.org"
ANN, BOB = f"https://{HOME}/openid/ann", f"https://{AWAY}/openid/bob"


class Book:
    """An address book over sources that a test fills; ``asked`` notes each question."""

    def __init__(self, folder, keep_ms=7 * DAY_MS):
        self.now_ms = 1_000_000
        self.accounts = {"database": {}, "cog": {}}
        self.people = {}
        self.asked = []
        self.held = []
        self.is_held = False
        self.path = folder / "tracking.db"
        self.database = TrackingDatabase(self.path, {"address": SCRIPT}, AtOnce())
        self.sealed = SealedValues(folder / "tracking.key")
        self.addresses = Addresses(
            self.database,
            self.sealed,
            accounts=[
                (name, lambda asked, name=name: self._ask(name, asked)) for name in ("database", "cog")
            ],
            provider=self._provider,
            is_home=lambda openid: openid_host(openid) == HOME,
            now_ms=lambda: self.now_ms,
            keep_ms=keep_ms,
        )

    def _ask(self, source, openids):
        self.asked.append((source, sorted(openids)))
        if self.is_held:
            self.held.append(Deferred())
            return self.held[-1]
        found = self.accounts[source]
        if isinstance(found, Exception):
            return fail(found)
        return succeed({openid: found[openid] for openid in openids if openid in found})

    def _provider(self, openid):
        self.asked.append(("saml", openid))
        found = self.people.get(openid, ProviderError("nobody answers"))
        return fail(found) if isinstance(found, Exception) else succeed(found)

    def resolve(self, openid):
        """Return what comes at once."""
        results = []
        self.addresses.resolve(openid).addBoth(results.append)
        return results[0] if results else None

    def on_disk(self):
        """Return every byte the tracker wrote."""
        return b"".join(path.read_bytes() for path in self.path.parent.glob("tracking.db*"))


@pytest.fixture
def book(tmp_path):
    """An empty book."""
    book = Book(tmp_path)
    yield book
    book.database.close()


def test_sources_are_asked_in_turn_until_one_knows(book):
    """The site's accounts, the CoG, the identity provider; who knew first is told, and its opt-in."""
    book.accounts["database"][ANN] = Account("ann@mail.example.org", is_valid=True, is_opt_in=True)
    assert book.resolve(ANN) == Resolution(
        Finding.FOUND, "ann@mail.example.org", is_opt_in=True, source="database"
    )
    assert [one[0] for one in book.asked] == ["database"]
    book.accounts["cog"][BOB] = Account("bob@cog.example.org", is_valid=True)
    assert book.resolve(BOB) == Resolution(Finding.FOUND, "bob@cog.example.org", source="cog")
    third = f"https://{AWAY}/openid/carol"
    book.people[third] = SamlAnswer(is_known=True, address="carol@mail.example.org")
    assert book.resolve(third) == Resolution(Finding.FOUND, "carol@mail.example.org", source="saml")


def test_a_closed_account_is_final_at_home_alone(book):
    """Of a user of another site a database may hold an old copy: the user's own provider has the last word."""
    book.accounts["database"] = {one: Account("x@mail.example.org", is_valid=False) for one in (ANN, BOB)}
    book.accounts["cog"][ANN] = Account("ann@cog.example.org", is_valid=True)
    assert book.resolve(ANN).finding is Finding.UNKNOWN
    book.people[BOB] = SamlAnswer(is_known=True, address="bob@mail.example.org")
    assert book.resolve(BOB).address == "bob@mail.example.org"


def test_nobody_is_unknown_while_a_source_is_silent(book):
    """The database that is away may know whom the provider does not: asked again, and unknown once it has said so."""
    book.accounts["database"] = SourceError("[tracking] database: down")
    book.people[ANN] = SamlAnswer(is_known=False, address="")
    found = book.resolve(ANN)
    assert (found.finding, found.reason) == (Finding.UNANSWERED, "[tracking] database: down")
    book.accounts["database"] = {}
    book.now_ms += UNANSWERED_MS
    assert book.resolve(ANN).finding is Finding.UNKNOWN


def test_failures_are_told_without_the_user_and_asked_again(book):
    """A database that is down does not stop the next source; nobody: unanswered, for a short while."""
    book.accounts["database"] = SourceError("[tracking] database: down")
    found = book.resolve(BOB)
    assert (found.finding, found.reason) == (Finding.UNANSWERED, "[tracking] database: down; nobody answers")
    assert book.resolve(BOB).source == "cache"
    book.now_ms += UNANSWERED_MS
    book.people[BOB] = SamlAnswer(is_known=True, address="bob@mail.example.org")
    assert book.resolve(BOB).finding is Finding.FOUND


def test_a_fault_of_a_source_leaves_nobody_waiting(book):
    """An error nobody expected is an answer too, and the next question is asked."""
    book.accounts["database"] = ZeroDivisionError("ann")
    assert book.resolve(ANN).reason == "database: ZeroDivisionError; nobody answers"
    book.accounts["database"] = {}
    assert book.resolve(BOB).finding is Finding.UNANSWERED


def test_unknown_users_are_remembered_for_a_day(book):
    """A final no is not asked for again at once, nor for ever."""
    book.people[BOB] = SamlAnswer(is_known=False)
    assert book.resolve(BOB).finding is Finding.UNKNOWN
    asked = len(book.asked)
    assert (book.resolve(BOB).finding, len(book.asked)) == (Finding.UNKNOWN, asked)
    book.now_ms += DAY_MS
    book.resolve(BOB)
    assert len(book.asked) > asked


def test_what_is_no_openid_is_nobody(book):
    """Nothing is asked or kept of it."""
    assert book.resolve("<no-id>").finding is Finding.UNKNOWN
    assert (book.asked, book.database.now(address_book.counts, 0)) == ([], AddressCounts(0, 0))


def test_addresses_are_kept_sealed_and_expire(book):
    """Neither OpenID nor address is readable on the disk; after its days an address is asked for anew, and cleared."""
    book.accounts["database"][ANN] = Account("ann@mail.example.org", is_valid=True)
    book.resolve(ANN)
    kept = book.resolve(ANN)
    assert (kept.address, kept.source, len(book.asked)) == ("ann@mail.example.org", "cache", 1)
    assert "ann" not in repr(kept)
    for secret in (b"ann", b"mail.example.org", HOME.encode(), b"openid/"):
        assert secret not in book.on_disk(), secret
    assert book.database.now(address_book.counts, book.now_ms) == AddressCounts(1, 0)
    book.now_ms += 7 * DAY_MS
    assert book.database.now(address_book.expire, book.now_ms) == 1
    book.resolve(ANN)
    assert len(book.asked) == 2


def test_what_is_kept_is_exported(book):
    """The address with where it is from, and for how long; of somebody else nothing."""
    book.accounts["database"][ANN] = Account("ann@mail.example.org", is_valid=True)
    book.resolve(ANN)
    told = book.database.now(address_book.kept_of, book.sealed, f"{ANN}/")
    assert (told["address"], told["source"]) == ("ann@mail.example.org", "database")
    assert told["until_ms"] == book.now_ms + 7 * DAY_MS
    assert book.database.now(address_book.kept_of, book.sealed, BOB) is None


def test_a_row_of_another_key_or_person_is_asked_for_anew(book, tmp_path):
    """After a restore without its key file, and where rows were swapped: nothing opens, nobody gets another's mail."""
    for openid, address in ((ANN, "ann@mail.example.org"), (BOB, "bob@mail.example.org")):
        book.accounts["database"][openid] = Account(address, is_valid=True)
        book.resolve(openid)
    book.database.now(_swapped)
    assert [book.resolve(one).source for one in (ANN, BOB)] == ["database", "database"]


def _swapped(connection):
    (one, sealed), (other, sealed_too) = connection.execute("SELECT person, sealed FROM address").fetchall()
    for person, value in ((one, sealed_too), (other, sealed)):
        connection.execute("UPDATE address SET sealed = ? WHERE person = ?", [value, person])


def test_a_user_is_forgotten_even_while_being_looked_up(book):
    """Erased is erased: an answer under way is given to who asked, and not kept."""
    book.accounts["database"][ANN] = Account("ann@mail.example.org", is_valid=True)
    book.resolve(ANN)
    done = []
    book.addresses.forget(f"{ANN}/").addCallback(done.append)
    book.addresses.forget(ANN).addCallback(done.append)
    assert done == [True, False]
    book.is_held = True
    answers = []
    book.addresses.resolve(ANN).addCallback(answers.append)
    book.addresses.forget(ANN)
    book.held[0].callback(book.accounts["database"])
    assert answers[0].address == "ann@mail.example.org"
    assert book.database.now(address_book.counts, 0) == AddressCounts(0, 0)


def test_questions_are_asked_in_batches_and_once(book):
    """While one question is out the others gather; two who ask for one user share the answer."""
    book.is_held = True
    openids = [f"https://{HOME}/openid/u{n}" for n in range(BATCH + 10)]
    answers = []
    for openid in [*openids, openids[0].upper().replace("/OPENID/U", "/openid/u")]:
        book.addresses.resolve(openid).addCallback(answers.append)
    assert [len(one[1]) for one in book.asked] == [1]
    for number in range(20):
        if number < len(book.held):
            book.held[number].callback({})
    assert max(len(one[1]) for one in book.asked if one[0] != "saml") <= BATCH
    asked = [openid for source, names in book.asked if source == "database" for openid in names]
    assert len(answers) == len(openids) + 1
    assert set(openids) <= set(asked)
    assert len(asked) <= len(openids) + 1


def test_a_broken_database_is_told_to_who_asks(book):
    """The tracker's own disk is not the user's fault: the question fails, nobody waits for ever."""
    book.database.close()
    assert book.resolve(ANN).check(TrackingError)
    assert book.resolve(ANN).check(TrackingError)
