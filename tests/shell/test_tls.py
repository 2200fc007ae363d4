"""
TLS between two nodes, over real OpenSSL and in memory: who is let in, and what each side is told.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.trust import (
    BAD_HOST,
    BAD_LEAVES,
    DAY_MS,
    TestFederation,
    a_draft,
    a_federation,
    bad_leaf,
    handshake,
    signed_draft,
)
from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost

from esgf_gossip.trust import profile, tls
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.material import TrustMaterial
from esgf_gossip.trust.tls import ConnectionCreator, refusal_reason

SERVER = "server.example.org"
CLIENT = "client.example.org"


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> TestFederation:
    """Found one federation for all tests that change nothing of it."""
    return a_federation(tmp_path_factory.mktemp("federation"))


def a_creator(federation: TestFederation, host: str, now_ms: int | None = None) -> ConnectionCreator:
    """Return the TLS of a node, at a time of choice."""
    clock = federation.now_ms if now_ms is None else now_ms
    return ConnectionCreator(federation.material(host), lambda: clock)


def reasons(server: Any, client: Any) -> tuple[str, str]:
    """Return what each side says of how the connection ended; "" while it stands."""
    server_reason, client_reason = ("" if end.lost is None else refusal_reason(end.lost) for end in (server, client))
    return server_reason, client_reason


def test_members_of_one_federation_talk(federation: TestFederation) -> None:
    """Two members complete the handshake, each knows the other by its certificate, and the client is admitted."""
    server, client, _ = handshake(a_creator(federation, SERVER), a_creator(federation, CLIENT))
    assert (CLIENT, SERVER) == (server.identity.host, client.identity.host)
    assert (federation.name, ("member",), ()) == (
        client.identity.federation,
        client.identity.groups,
        client.identity.roles,
    )
    assert federation.material(SERVER).signer.certificate_sha256 == client.identity.certificate_sha256
    assert b"admitted" == client.received


BAD_ON_BOTH_SIDES = {
    **{kind: says for kind, (_, says) in BAD_LEAVES.items()},
    "expired": "certificate expired on ",
    "not yet valid": "certificate not yet valid",
    "foreign root": "issuer 'CN=Issuing G1,O=federation.example.org' not found",
    "version 1": "X.509 version v1",
}
# OpenSSL's own checks come first for some; either refusal is right, its words must be there.
OPENSSL_FIRST = {"unknown critical extension": "critical extension"}


@pytest.mark.parametrize("kind", [*BAD_ON_BOTH_SIDES, "serverAuth only"])
def test_server_refuses_bad_client(federation: TestFederation, kind: str) -> None:
    """A server refuses a client whose certificate is wrong in one way, says why, and never greets it."""
    hostile = ConnectionCreator(bad_leaf(federation, kind).material(federation), lambda: federation.now_ms)
    server, client, _ = handshake(a_creator(federation, SERVER), hostile)
    says = BAD_ON_BOTH_SIDES.get(kind, "serverAuth and clientAuth are needed")
    assert says in refusal_reason(server.lost)
    assert (False, b"") == (server.shaken, client.received)
    assert refusal_reason(client.lost).startswith("peer sent alert: ")


@pytest.mark.parametrize("kind", [*BAD_ON_BOTH_SIDES, "clientAuth only"])
def test_client_refuses_bad_server(federation: TestFederation, kind: str) -> None:
    """A client refuses a server whose certificate is wrong in one way before it sends anything of its own."""
    hostile = ConnectionCreator(bad_leaf(federation, kind).material(federation), lambda: federation.now_ms)
    server, client, _ = handshake(hostile, a_creator(federation, CLIENT))
    says = BAD_ON_BOTH_SIDES.get(kind, "serverAuth and clientAuth are needed")
    assert says in refusal_reason(client.lost)
    assert (False, False, None) == (client.shaken, server.shaken, server.identity)
