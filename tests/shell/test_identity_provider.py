"""Identity providers asked over real mutual TLS: who is asked, who is believed, and that every wrong answer is one line."""

from __future__ import annotations

import pytest
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.task import Clock

from esgf_gossip.esgf.saml import SamlAnswer
from esgf_gossip.sources import identity_provider
from esgf_gossip.sources.identity_provider import ANSWER_BYTES, IdentityProviders, ProviderError
from esgf_gossip.trust.web_client import WebClientPolicy
from helpers.saml_stub import XRDS, SamlStub, response
from helpers.trust import TestFederation, a_federation
from helpers.turning import turned

OWN, IDP, OTHER = "node.example.org", "idp.example.org", "other.example.org"
OPENID = f"https://{IDP}/esgf-idp/openid/ann"
SERVICE = f"https://{IDP}/esgf-idp/saml/soap/secure/attributeService.htm"
ADDRESS = "ann@mail.example.org"


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """A federation whose certificates the providers have too."""
    return a_federation(tmp_path_factory.mktemp("federation"))


@pytest.fixture
def stub(federation):
    """A provider that knows one user."""
    stub = SamlStub(federation, IDP)
    stub.users[OPENID] = ADDRESS
    yield stub
    stub.close()


@pytest.fixture
def ask(federation, stub):
    """Ask by a node of the federation; every name is the stub on loopback, and ``dialled`` notes which were meant."""
    listed = {IDP: SERVICE}
    dialled = []

    def endpoint(host, port):
        dialled.append((host, port))
        return TCP4ClientEndpoint(reactor, "127.0.0.1", stub.port)

    material = federation.material(OWN)
    providers = IdentityProviders(
        reactor,
        WebClientPolicy(lambda: material),
        listed.get,
        f"CN={OWN}",
        lambda: 1_700_000_000_000,
        endpoint,
    )

    def asked(openid=OPENID):
        return turned(providers.ask(openid))

    asked.providers, asked.listed, asked.dialled = providers, listed, dialled
    return asked


def test_an_address_is_found_over_mutual_tls(ask, stub):
    """Yadis fails with 404, the registry gives the endpoint; the provider sees our certificate; only the address is asked for."""
    assert ask() == SamlAnswer(is_known=True, address=ADDRESS)
    (yadis, _, _), (saml, who, question) = stub.seen
    assert (yadis, saml, who) == (
        "GET /esgf-idp/openid/ann",
        "POST /esgf-idp/saml/soap/secure/attributeService.htm",
        OWN,
    )
    assert question.count("<saml:Attribute ") == 1
    assert ask.dialled == [(IDP, 443), (IDP, 443)]


def test_yadis_says_where_to_ask(ask, stub):
    """The lowest priority that the registry lists; a host that it does not list gets no question."""
    ask.listed[OTHER] = ""
    content = XRDS.format(near="https://stranger.example.net/x", far=f"https://{IDP}:8443/far").encode()
    stub.yadis = lambda _: (200, {}, content)
    assert ask().address == ADDRESS
    assert (stub.seen[1][0], ask.dialled[1]) == ("POST /far", (IDP, 8443))
    content = XRDS.format(near="https://stranger.example.net/x", far="https://nobody.example.net/").encode()
    assert ask().address == ADDRESS
    assert stub.seen[3][0].startswith("POST /esgf-idp/saml/")
    assert {host for host, _ in ask.dialled} == {IDP}


def test_a_redirect_within_the_host_is_followed_and_none_to_another(ask, stub):
    """An OpenID goes to its own host alone; a circle ends."""
    where = {"/esgf-idp/openid/ann": "/yadis/ann"}
    content = XRDS.format(near=f"https://{IDP}/near", far=f"https://{IDP}/far").encode()
    stub.yadis = lambda path: (302, {"Location": where[path]}, b"") if path in where else (200, {}, content)
    assert ask().address == ADDRESS
    assert [one[0] for one in stub.seen] == ["GET /esgf-idp/openid/ann", "GET /yadis/ann", "POST /near"]
    for target in (
        f"https://{OTHER}/ann",
        f"http://{IDP}/ann",
        f"https://{IDP}:8443/ann",
        "/esgf-idp/openid/ann",
        "//[x",
    ):
        where["/esgf-idp/openid/ann"] = target
        assert ask().address == ADDRESS
        assert stub.seen[-1][0].startswith("POST /esgf-idp/saml/"), target
    assert set(ask.dialled) == {(IDP, 443)}


def test_a_user_whom_nobody_knows_is_final(ask):
    """UnknownPrincipal is an answer, no failure."""
    assert ask(f"https://{IDP}/esgf-idp/openid/bob") == SamlAnswer(is_known=False)


WRONG = {
    "another question": lambda q, o: (200, {}, response("q-0", o, ADDRESS).encode()),
    "another user": lambda q, o: (200, {}, response(q, o + "e", ADDRESS).encode()),
    "no mail address": lambda q, o: (200, {}, response(q, o, "ann&#10;Bcc: x@y.org").encode()),
    "status Responder": lambda q, o: (200, {}, response(q, o, status="Responder").encode()),
    "status 500": lambda q, o: (500, {}, response(q, o, ADDRESS).encode()),
    "status 302": lambda q, o: (302, {"Location": f"https://{OTHER}/"}, b""),
    "no well-formed XML": lambda q, o: (200, {}, b"<html>busy<br>"),
    "more than 65536 bytes": lambda q, o: (200, {}, b" " * (ANSWER_BYTES + 1)),
    "hangs up": lambda q, o: (200, {"Content-Length": "100000"}, response(q, o, ADDRESS).encode()),
}


@pytest.mark.parametrize("says", WRONG)
def test_a_wrong_answer_is_one_line_without_the_user(ask, stub, says):
    """Whatever comes is refused for its own reason; the message names the provider and nobody else."""
    stub.saml = WRONG[says]
    with pytest.raises(ProviderError, match=says) as caught:
        ask()
    assert str(caught.value).startswith(f"{IDP}: ")
    assert not any(secret in str(caught.value) for secret in ("ann", "@", "\n"))


def test_a_provider_that_hangs_is_left(ask, stub, monkeypatch):
    """In either step; the connection is given up too."""
    monkeypatch.setattr(identity_provider, "ANSWER_S", 0.3)
    stub.yadis = lambda _: None
    assert ask().address == ADDRESS
    stub.saml = lambda q, o: None
    with pytest.raises(ProviderError, match="gives no answer within"):
        ask()


def test_nobody_else_is_asked(ask, stub):
    """No provider of the registry, no OpenID, no endpoint: no packet leaves, or none with the user's name in it."""
    for openid in (f"https://{OTHER}/openid/ann", "<no-id>", f"ftp://{IDP}/ann"):
        with pytest.raises(ProviderError, match="no identity provider"):
            ask(openid)
    assert ask.dialled == []
    ask.listed[IDP] = ""
    with pytest.raises(ProviderError, match="answers the OpenID with status 404"):
        ask()
    ask.listed[IDP] = f"http://{IDP}/plain"
    with pytest.raises(ProviderError, match="HTTPS alone"):
        ask()
    assert len(stub.seen) == 2


def test_a_server_that_is_another_gets_no_question(federation, ask, tmp_path):
    """A certificate of another host, of another CA, a revoked one: the handshake ends before the OpenID is sent."""
    ask.listed[OTHER] = f"https://{OTHER}/saml"
    with pytest.raises(ProviderError, match=f"the certificate is not of {OTHER}"):
        ask(f"https://{OTHER}/openid/ann")
    foreign = SamlStub(a_federation(tmp_path, "elsewhere.example.org"), IDP)
    revoking = a_federation(tmp_path / "revoking")
    late = SamlStub(revoking, IDP)
    revoking.node(OWN)
    revoking.revoke([revoking.serial(IDP)], OWN)
    try:
        for stub, home, says in (
            (foreign, federation, "not trusted|not found"),
            (late, revoking, "certificate revoked"),
        ):
            with pytest.raises(ProviderError, match=says):
                turned(_providers(home, stub.port).ask(OPENID))
            assert stub.seen == []
    finally:
        foreign.close()
        late.close()


def _providers(federation: TestFederation, port: int) -> IdentityProviders:
    material = federation.material(OWN)
    return IdentityProviders(
        reactor,
        WebClientPolicy(lambda: material),
        lambda _: SERVICE,
        "CN=x",
        lambda: 0,
        lambda *_: TCP4ClientEndpoint(reactor, "127.0.0.1", port),
    )


def test_nobody_who_is_down_holds_us_up(federation):
    """A refused connection is a line like any other."""
    with pytest.raises(ProviderError, match=rf"{IDP}: Connection was refused"):
        turned(_providers(federation, 1).ask(OPENID))


def test_a_provider_is_asked_at_its_pace():
    """So many at once, so many a second, and not more in the queue than its bound."""
    clock, pace, begun = Clock(), identity_provider._Pace(), []
    for _ in range(20):
        pace.turn(clock, IDP).addCallback(lambda _: begun.append(clock.seconds()))
    for _ in range(20):
        clock.advance(0.5)
    assert len([one for one in begun if one == 0.0]) == identity_provider.QUESTIONS_AT_ONCE
    assert len(begun) == 20
    assert all(sum(t <= one < t + 1.0 for one in begun) <= (2 if t else 7) for t in range(10))
    for _ in range(identity_provider.QUESTIONS_WAITING + identity_provider.QUESTIONS_AT_ONCE + 5):
        turn = pace.turn(clock, IDP)
    with pytest.raises(ProviderError, match="too many questions"):
        turned(turn)


def test_many_at_once_each_get_their_own_answer(ask, stub, monkeypatch):
    """Answers that cross are not mixed up."""
    monkeypatch.setattr(identity_provider, "QUESTIONS_AT_ONCE", 50)
    openids = [f"https://{IDP}/openid/u{number}" for number in range(20)]
    stub.users |= {openid: f"u{number}@mail.example.org" for number, openid in enumerate(openids)}
    answers = turned(gatherResults([ask.providers.ask(openid) for openid in openids]))
    assert [one.address for one in answers] == [stub.users[openid] for openid in openids]
