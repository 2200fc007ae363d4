"""
Persons: whom OpenIDs lead to. One address is one person, however many OpenIDs it has.

A person is the keyed hash of the lower-cased address; the address itself and the OpenIDs lie here only sealed. An
erased person leaves a tombstone, a keyed hash too. Source: docs/adr/0021-tracking.md.
"""

from __future__ import annotations

import re
import sqlite3
from typing import Final

import attrs

from esgf_gossip.tracking.database import TrackingError
from esgf_gossip.tracking.openids import fold_openid
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.sealed_values import SealedValues

KEY_BYTES: Final = 16
PERSON_BYTES: Final = KEY_BYTES
ADDRESS_CHARACTERS: Final = 254

SCRIPT: Final = """
CREATE TABLE identity (
    key BLOB PRIMARY KEY, openid BLOB NOT NULL, state TEXT NOT NULL CHECK (state IN ('waiting', 'found', 'unknown')),
    person BLOB, tries INTEGER NOT NULL DEFAULT 0, due_ms INTEGER NOT NULL, found_ms INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX identity_due ON identity (due_ms) WHERE state = 'waiting';
CREATE INDEX identity_person ON identity (person) WHERE person IS NOT NULL;
CREATE TABLE person (
    key BLOB PRIMARY KEY, address BLOB, domain BLOB NOT NULL, found_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE tombstone (key BLOB PRIMARY KEY, at_ms INTEGER NOT NULL) STRICT;
CREATE TABLE seal (one INTEGER PRIMARY KEY CHECK (one = 1), sealed BLOB NOT NULL) STRICT
"""

# What every server takes without quoting; a local part beyond ASCII would need SMTPUTF8 all the way.
_ADDRESS: Final = re.compile(
    r"(?P<local>[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*)"
    r"@(?P<domain>(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z0-9-]{2,63})"
)
_LOCAL_CHARACTERS: Final = 64
_SEAL_CONTEXT: Final = "seal"


def check_key(connection: sqlite3.Connection, values: SealedValues) -> None:
    """
    See that this is the key by which everything here was sealed; at the first start: from now on it is.

    Raises:
        TrackingError: it is another one.
    """
    row = connection.execute("SELECT sealed FROM seal").fetchone()
    if row is None:
        connection.execute("INSERT INTO seal VALUES (1, ?)", (values.seal(b"", _SEAL_CONTEXT),))
        return
    try:
        values.open(row[0], _SEAL_CONTEXT)
    except TrustError:
        raise TrackingError(
            "tracking.key is not the key that tracking.db beside it was sealed by; put it back from a backup, or move"
            " both away: who waits to be told is forgotten then"
        ) from None


def openid_key(values: SealedValues, openid: str) -> bytes:
    """Return the key of an OpenID, the same for every spelling of it."""
    return values.keyed_hash("openid", fold_openid(openid))[:KEY_BYTES]


def person_key(values: SealedValues, address: str) -> bytes:
    """Return the key of the person behind an address."""
    return values.keyed_hash("person", usable_address(address).lower() or address.strip().lower())[:KEY_BYTES]


def usable_address(address: str) -> str:
    """Return an address as it can stand in a header and an envelope; empty where it cannot be mailed to."""
    local, _, domain = address.strip().rpartition("@")
    try:
        domain = domain.encode("idna").decode()
    except UnicodeError:
        return ""
    found = _ADDRESS.fullmatch(f"{local}@{domain}")
    if found is None or len(found[0]) > ADDRESS_CHARACTERS or len(local) > _LOCAL_CHARACTERS:
        return ""
    return found[0]


@attrs.frozen
class Identity:
    """An OpenID and what is known of it; ``person`` and ``found_ms`` of one that was found."""

    key: bytes
    state: str
    person: bytes | None
    tries: int
    found_ms: int


def get_identity(connection: sqlite3.Connection, key: bytes) -> Identity | None:
    """Return what is known of an OpenID; None: nothing."""
    row = connection.execute(
        "SELECT key, state, person, tries, found_ms FROM identity WHERE key = ?", (key,)
    ).fetchone()
    return None if row is None else Identity(*row)


def ask_for(connection: sqlite3.Connection, values: SealedValues, openid: str, now_ms: int) -> None:
    """Have the address of an OpenID asked for, now and from the beginning."""
    key = openid_key(values, openid)
    connection.execute(
        "INSERT INTO identity (key, openid, state, due_ms) VALUES (?, ?, 'waiting', ?) ON CONFLICT (key) DO UPDATE SET"
        " state = 'waiting', tries = 0, due_ms = excluded.due_ms",
        (key, values.seal(openid.strip().encode("utf-8", "surrogatepass"), _openid_context(key)), now_ms),
    )


def due_identities(
    connection: sqlite3.Connection, values: SealedValues, now_ms: int, most: int, busy: frozenset[bytes]
) -> tuple[list[tuple[bytes, str]], int | None]:
    """Return OpenIDs to ask for now, with their keys, without those that are being asked; and when the next is due."""
    rows = connection.execute(
        "SELECT key, openid, due_ms FROM identity WHERE state = 'waiting' ORDER BY due_ms LIMIT ?",
        (most + len(busy) + 1,),
    ).fetchall()
    waiting = [row for row in rows if row[0] not in busy]
    due = [(key, open_openid(values, key, openid)) for key, openid, due_ms in waiting if due_ms <= now_ms]
    rest = [due_ms for *_, due_ms in waiting[min(len(due), most) :]]
    return due[:most], min(rest, default=None)


def open_openid(values: SealedValues, key: bytes, sealed: bytes) -> str:
    """Return an OpenID as it was logged."""
    return values.open(sealed, _openid_context(key)).decode("utf-8", "surrogatepass")


def keep_person(connection: sqlite3.Connection, values: SealedValues, address: str, now_ms: int) -> bytes:
    """Note a usable address; return its person."""
    key = person_key(values, address)
    domain = values.keyed_hash("domain", address.rpartition("@")[2].lower())[:KEY_BYTES]
    connection.execute(
        "INSERT INTO person (key, address, domain, found_ms) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET"
        " address = excluded.address, found_ms = excluded.found_ms",
        (key, values.seal(address.encode(), _address_context(key)), domain, now_ms),
    )
    return key


def address_of(connection: sqlite3.Connection, values: SealedValues, person: bytes) -> tuple[str, bytes]:
    """Return the address of a person, empty where it is forgotten, and the key of its domain."""
    row = connection.execute("SELECT address, domain FROM person WHERE key = ?", (person,)).fetchone()
    if row is None or row[0] is None:
        return "", b""
    return values.open(row[0], _address_context(person)).decode(), row[1]


def has_address(connection: sqlite3.Connection, person: bytes | None) -> bool:
    """Tell whether the address of a person is at hand."""
    return (
        person is not None
        and connection.execute(
            "SELECT 1 FROM person WHERE key = ? AND address IS NOT NULL", (person,)
        ).fetchone()
        is not None
    )


def openids_of(
    connection: sqlite3.Connection, values: SealedValues, person: bytes
) -> list[tuple[bytes, str]]:
    """Return the OpenIDs that lead to a person, with their keys."""
    rows = connection.execute("SELECT key, openid FROM identity WHERE person = ?", (person,)).fetchall()
    return [(key, open_openid(values, key, sealed)) for key, sealed in rows]


def bury(connection: sqlite3.Connection, key: bytes, now_ms: int) -> None:
    """Leave a tombstone for a person or an OpenID: nothing is mailed about changes up to now."""
    connection.execute(
        "INSERT INTO tombstone VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET at_ms = excluded.at_ms",
        (key, now_ms),
    )


def is_buried(connection: sqlite3.Connection, key: bytes, occurred_ms: int) -> bool:
    """Tell whether a person or an OpenID was erased after something happened."""
    row = connection.execute("SELECT at_ms FROM tombstone WHERE key = ?", (key,)).fetchone()
    return row is not None and occurred_ms <= row[0]


def _openid_context(key: bytes) -> str:
    return f"openid/{key.hex()}"


def _address_context(key: bytes) -> str:
    return f"address/{key.hex()}"
