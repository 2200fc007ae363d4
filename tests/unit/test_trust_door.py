"""esgf-trust/1 without sockets: what a stranger gets, what it costs, and that nothing it says does harm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from esgf_gossip.core import limits
from esgf_gossip.core.codec import decode, encode
from esgf_gossip.core.framing import FrameBuffer, frame
from esgf_gossip.core.messages import GiveTrust, Ping, TrustHeads
from esgf_gossip.core.model import TrustObject
from esgf_gossip.core.trust_lines import TrustTable
from esgf_gossip.net import trust_door
from esgf_gossip.net.trust_door import Host, Visitor, claims

HOST = "node.example.org"


def a_table(*keys: str, number: int = 1, size_bytes: int = 10) -> TrustTable:
    """Return a table with one object under each key."""
    table = TrustTable()
    for key in keys:
        table.merge(TrustObject(key, number, 0, key.encode().ljust(size_bytes, b".")))
    return table


class Ear:
    """The host's end of one visit, and what it did."""

    def __init__(self, table: TrustTable) -> None:
        self.written = b""
        self.closed: list[str] = []
        self.visitor = Visitor(table, self._write, self.closed.append)

    def _write(self, data: bytes) -> None:
        self.written += data

    @property
    def given(self) -> list[str]:
        """Return the keys of what was given, in order."""
        found = [decode(payload) for payload in FrameBuffer().feed(self.written)]
        assert all(isinstance(one, GiveTrust) for one in found)
        return [one.key for one in found if isinstance(one, GiveTrust)]


def visit(table: TrustTable, own: TrustTable, host: str = HOST) -> Ear:
    """Let a node that holds a table visit one that holds another."""
    ear = Ear(table)
    for page in claims(own, host):
        ear.visitor.take(frame(encode(page)))
    return ear


def test_a_visitor_gets_what_it_lacks_bundles_first() -> None:
    """Public objects above its own, in the order in which they can be judged, then the end."""
    table = a_table("crl/01", "crl/02", "roots/000002", "roots/000001")
    own = a_table("crl/02", "roots/000001")
    ear = visit(table, own)
    assert ear.given == ["roots/000002", "crl/01"]
    assert ear.closed == ["told all"]


def test_nothing_else_is_for_strangers() -> None:
    """Secrets, the audit log, contradictions and other nodes' certificates stay among members."""
    table = a_table(
        f"secret/{HOST}/esgcet",
        "audit/fed.example.org",
        "conflict/crl/01/3",
        "certificate/other.example.org",
        f"certificate/{HOST}",
    )
    assert visit(table, TrustTable()).given == [f"certificate/{HOST}"]


def test_a_lower_claim_gets_the_higher_object() -> None:
    """What is above the visitor's own comes, what is equal does not."""
    assert visit(a_table("crl/01", number=4), a_table("crl/01", number=3)).given == ["crl/01"]
    assert visit(a_table("crl/01"), a_table("crl/01")).given == []


def test_a_table_of_many_pages_is_told_in_pages() -> None:
    """More than one message holds is said in several, and only then answered."""
    keys = [f"roots/{number:06}" for number in range(limits.MESSAGE_TRUST + 5)]
    own = a_table(*keys)
    assert len(claims(own, HOST)) == 2
    ear = visit(a_table(*keys, "crl/01"), own)
    assert ear.given == ["crl/01"]


def test_one_visit_brings_no_more_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes and objects of one visit are bounded; the next brings the rest."""
    monkeypatch.setattr(trust_door, "VISIT_OBJECTS", 3)
    assert len(visit(a_table(*(f"crl/{n}" for n in range(9))), TrustTable()).given) == 3
    monkeypatch.setattr(trust_door, "VISIT_BYTES", 250)
    assert len(visit(a_table(*(f"crl/{n}" for n in range(9)), size_bytes=100), TrustTable()).given) == 2


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        frame(b"\xc1"),
        frame(encode(Ping(1, 1))),
        b"".join(frame(encode(TrustHeads((), "", ""))) for _ in range(limits.VISIT_PAGES + 1)),
    ],
    ids=["HTTP", "garbage", "another message", "pages without end"],
)
def test_what_is_no_visit_ends_at_once(data: bytes) -> None:
    """Whatever else is said ends the connection with one reason, and gives nothing."""
    ear = Ear(a_table("crl/01"))
    ear.visitor.take(data)
    ear.visitor.take(data)
    assert ear.given == []
    assert [reason.startswith("not esgf-trust/1") for reason in ear.closed] == [True]


@given(st.binary(max_size=200))
def test_any_bytes_end_or_wait(data: bytes) -> None:
    """No bytes raise anything, and a visit ends once at most."""
    ear = Ear(a_table("crl/01"))
    ear.visitor.take(data)
    assert len(ear.closed) <= 1


def test_an_address_may_come_so_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many visits of one address are refused, others are not, and with time it may come again."""
    monkeypatch.setattr(trust_door, "ADDRESSES_COUNTED", 2)
    clock = Clock()
    host = Host(TrustTable(), clock)
    admitted = [host.admit("192.0.2.1") for _ in range(limits.VISITS_PER_MINUTE + 1)]
    assert admitted == [True] * limits.VISITS_PER_MINUTE + [False]
    assert host.admit("192.0.2.2")
    clock.advance(60 / limits.VISITS_PER_MINUTE)
    assert host.admit("192.0.2.1")
    assert not host.admit("192.0.2.1")
