"""Homes of users and turns of claimants: who is trusted for a host, who is not, and that all who see the same agree."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esgf_gossip.esgf.node_type import ALL
from esgf_gossip.esgf.registration import Registration
from esgf_gossip.esgf.services import RULES
from esgf_gossip.tracking.claims import SETTLE_MS, TURN_MS, is_told_elsewhere, is_turn, rank, token
from esgf_gossip.tracking.homes import homes_of, sees_most
from esgf_gossip.tracking.homeward_rows import SCRIPT
from esgf_gossip.views.federation import FederationView, NodeStatus, NodeView, OwnState
from helpers.home_nodes import CLAIM_SCRIPT

OWN, IDP, INDEX, LIAR = "own.example.org", "idp.site.example", "index.site.example", "liar.example.net"
KEY = bytes(32)


def a_node(host, status=NodeStatus.UP, **services):
    """Return a node of the view with these services, by type their endpoints."""
    keys = {rule.type: rule.endpoint_key for rule in RULES}
    properties = {"esgf.host": host} | {keys[kind]: at for kind, at in services.items()}
    registration = Registration(host, int(ALL), properties)
    return NodeView(
        host=host, status=status, since_ms=0, epoch=1, sequence=1, issued_at_ms=0, expires_at_ms=0, contact=(host, 1),
        registration=registration, registration_issued_at_ms=0,
    )  # fmt: skip


def a_view(*nodes):
    """Return a view of these nodes and the own one."""
    own = OwnState(OWN, "f.example.org", "1", 1, 1, 0, 0, 0, 0)
    return FederationView(0, b"", own, (a_node(OWN), *nodes))


def an_openid(host):
    """Return an OpenID of a host."""
    return f"https://{host.upper()}/esgf-idp/openid/ann"


def test_a_host_is_its_own_nodes_or_of_who_is_certified_for_it():
    """The name itself, a further name of the certificate, a home that this node's settings name; others are nobody's."""
    homes = homes_of(a_view(a_node(INDEX)), {INDEX: [INDEX, IDP], OWN: [OWN]}, ["login.own.example"])
    found = [
        homes.home_of(an_openid(one)) for one in (INDEX, IDP, OWN, "login.own.example", "else.example.org")
    ]
    assert found == [INDEX, INDEX, OWN, OWN, None]
    assert homes.home_of("<no-id>") is None
    assert [homes.is_ours(an_openid(one)) for one in (OWN, IDP)] == [True, False]


def test_who_merely_says_so_gets_nobodys_matches_and_no_questions():
    """A member that lists another site's provider as its own is neither the home of its users nor asked for them."""
    liar = a_node(LIAR, OpenIDProvider=f"https://{IDP}/openid", AttributeService=f"https://{LIAR}/saml")
    homes = homes_of(a_view(liar), {LIAR: [LIAR]}, [OWN])
    assert homes.home_of(an_openid(IDP)) is None
    assert homes.provider_of(IDP) is None
    assert homes.provider_of(LIAR) == f"https://{LIAR}/saml"


def test_of_two_that_are_certified_one_is_chosen_by_all():
    """Whose name it is; else who offers a provider there; else the first name, whatever the order of the view."""
    certified = {
        IDP: [IDP],
        INDEX: [INDEX, IDP],
        "a.site.example": ["a.site.example", IDP, "x.site.example"],
        LIAR: [LIAR, "x.site.example"],
    }
    plain = [a_node(one) for one in (IDP, INDEX, "a.site.example")]
    offering = a_node(LIAR, OpenIDProvider="https://x.site.example/openid")
    for nodes in ((*plain, offering), (offering, *reversed(plain))):
        homes = homes_of(a_view(*nodes), certified, [OWN])
        assert homes.home_of(an_openid(IDP)) == IDP
        assert homes.home_of(an_openid("x.site.example")) == LIAR
    assert homes_of(a_view(*plain[1:]), certified, [OWN]).home_of(an_openid(IDP)) == "a.site.example"


@pytest.mark.parametrize("status", [NodeStatus.LEFT, NodeStatus.STALE])
def test_who_has_gone_is_nobodys_home(status):
    """A node that left or expired has no users; one that is merely away keeps them."""
    assert homes_of(a_view(a_node(IDP, status)), {}, [OWN]).home_of(an_openid(IDP)) is None
    assert homes_of(a_view(a_node(IDP, NodeStatus.UNREACHABLE)), {}, [OWN]).home_of(an_openid(IDP)) == IDP


def test_providers_are_those_of_members_and_of_this_sites_static_nodes():
    """Endpoints by HTTPS alone; a static node is no home, for it runs no daemon, and may be asked all the same."""
    member = a_node(INDEX, AttributeService="https://saml.site.example/x", ThreddsService="https://t/")
    static = a_node(
        "old.example.org",
        NodeStatus.STATIC,
        OpenIDProvider="https://idp.old.example/o",
        AttributeService="https://saml.old.example/a",
    )
    plain = a_node("plain.example.org", AttributeService="http://plain.example.org/a")
    homes = homes_of(a_view(member, static, plain, a_node("none.example.org")), {INDEX: [INDEX, IDP]}, [OWN])
    hosts = (
        INDEX,
        IDP,
        "idp.old.example",
        "saml.old.example",
        "old.example.org",
        "plain.example.org",
        "none.example.org",
    )
    assert [homes.provider_of(one) for one in hosts] == [
        "https://saml.site.example/x", "https://saml.site.example/x", *["https://saml.old.example/a"] * 3, "", None,
    ]  # fmt: skip
    assert homes.home_of(an_openid("old.example.org")) is None


def test_most_of_the_others_must_be_seen():
    """The home that is away does not count, static nodes and those that have gone do not either."""
    away = [a_node(f"n{n}.example.org", NodeStatus.UNREACHABLE) for n in range(3)]
    gone = a_node("gone.example.org", NodeStatus.LEFT)
    static = a_node("static.example.org", NodeStatus.STATIC)
    assert sees_most(a_view(away[0], gone, static), away[0].host, (), ())
    assert not sees_most(a_view(away[0], a_node(IDP), away[1], away[2]), "", (), ())
    assert sees_most(a_view(away[0], a_node(IDP), a_node(INDEX, NodeStatus.SUSPECT)), away[0].host, (), ())


def test_who_is_cut_off_sees_nobody_whatever_its_view_still_says():
    """Few that are cut off cannot tell who is unreachable, so all look up to them: their own links decide."""
    others = [f"n{n}.example.org" for n in range(4)]
    view = a_view(*map(a_node, others))
    home, *rest = others
    assert [sees_most(view, home, others, [OWN, home, *rest[:count]]) for count in range(4)] == [
        False, False, True, True,
    ]  # fmt: skip


def test_a_token_hides_both_and_is_the_same_for_all_spellings():
    """Equal for one user and change however spelled; other users, changes and who knows one of both get another."""
    mine = token("https://idp.example.org/openid/ann", KEY)
    assert mine == token("HTTPS://IDP.example.org:443/openid/ann/", KEY)
    others = {
        token("https://idp.example.org/openid/bob", KEY),
        token("https://idp.example.org/openid/ann", b"\1" * 32),
    }
    assert len(others | {mine}) == 3


HOSTS = st.sets(st.sampled_from([f"n{n}.example.org" for n in range(8)]), min_size=1)


@given(HOSTS, st.binary(min_size=32, max_size=32), st.integers(0, 20 * TURN_MS))
def test_at_most_one_has_the_turn(hosts, of_token, after_ms):
    """Whoever sees the same claims comes to the same; each gets its turn, the first by rank first; none before claims settled."""
    since_ms = dict.fromkeys(hosts, 1_000)
    now_ms = 1_000 + after_ms
    assert sum(is_turn(one, of_token, since_ms, now_ms) for one in hosts) <= (after_ms >= SETTLE_MS)
    first = min(hosts, key=lambda one: rank(of_token, one))
    assert is_turn(first, of_token, since_ms, 1_000 + SETTLE_MS)
    begins = [1_000 + SETTLE_MS + n * TURN_MS for n in range(len(hosts))]
    assert all(any(is_turn(one, of_token, since_ms, at_ms) for at_ms in begins) for one in hosts)


@given(HOSTS, st.sampled_from([f"n{n}.example.org" for n in range(8)]))
def test_of_all_who_have_told_exactly_one_goes_on(tellers, home):
    """However many told a user in the same moment, one mails; the home, which did not, holds back."""
    openid = "https://idp.example.org/openid/ann"

    def holds_back(own):
        with sqlite3.connect(":memory:") as connection:
            connection.executescript(CLAIM_SCRIPT + SCRIPT)
            for one in tellers:
                connection.execute("INSERT INTO claim VALUES (?, ?, 1, 0)", [token(openid, KEY), one])
            if own in tellers:
                connection.execute("INSERT INTO told_here VALUES (?, 0)", [token(openid, KEY)])
            told = is_told_elsewhere(connection, openid, KEY, own)
        connection.close()
        return told

    assert sum(not holds_back(one) for one in tellers) == 1
    assert holds_back(home) or home in tellers
