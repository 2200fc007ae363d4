"""Peer groups a node claims against those its certificate grants: esgf.registration, views.judgement."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esgf_gossip.core.registry import Registry, sha256
from esgf_gossip.core.standing import Standing
from esgf_gossip.esgf.registration import Registration
from esgf_gossip.sim.trust import START_MS
from esgf_gossip.views.federation import NodeView, OwnState
from esgf_gossip.views.judgement import Judge
from esgf_gossip.views.node_json import node_body
from esgf_gossip.views.registration_xml import render
from helpers.bench import a_line

HOST = "node.example.org"
GROUPS = st.lists(
    st.sampled_from(["esgf-prod", "esgf-test", "cssef", "Esgf-Prod", "esgf-prod-2", "x y"]), unique=True
)


def a_claim(text: str | None) -> Registration:
    """Return a registration with that list of peer groups."""
    return Registration(HOST, 4, {} if text is None else {"node.peer.group": text})


def seen(claim: Registration, *granted: str) -> NodeView:
    """Return the node as a daemon shows it whose verifier found those groups in the certificate."""
    registry = Registry()
    line = a_line(HOST, entries={"registration": claim.to_body()})
    registry.accept(
        attrs.evolve(line.verified, groups=frozenset(granted)), {sha256(body): body for body in line.bodies}
    )
    own = OwnState(HOST, "f", "1", 1, 1, 1, 0, 0, 0)
    node = Judge(registry, Standing(registry, [])).view(own, START_MS, START_MS).node(HOST)
    assert node is not None
    return node


@pytest.mark.parametrize(
    ("claimed", "granted", "shown", "refused"),
    [
        ("esgf-prod", ("esgf-prod",), "esgf-prod", ()),
        ("esgf-prod,esgf-test,cssef", ("esgf-prod", "cssef"), "esgf-prod,cssef", ("esgf-test",)),
        ("esgf-prod , esgf-test", ("member", "esgf-test"), "esgf-test", ("esgf-prod",)),
        ("esgf-prod", ("member",), "unknown", ("esgf-prod",)),
        ("esgf-prod", (), "unknown", ("esgf-prod",)),
        ("Esgf-Prod", ("esgf-prod",), "unknown", ("Esgf-Prod",)),
        ("esgf-prod-2", ("esgf-prod",), "unknown", ("esgf-prod-2",)),
        (None, ("esgf-prod",), "unknown", ()),
    ],
)
def test_only_certified_groups_are_shown(claimed, granted, shown, refused):
    """A group that the certificate does not name, byte for byte, is in no document, and told beside."""
    node = seen(a_claim(claimed), *granted)
    body = node_body(node)
    assert f'nodePeerGroup="{shown}"' in render([node], 1).decode()
    assert body["peer_group"] == ("" if shown == "unknown" else shown)
    assert tuple(body["peer_groups_refused"]) == refused == node.groups_refused


@given(GROUPS, GROUPS)
def test_a_registration_is_bounded_by_what_is_granted(claimed, granted):
    """Shown and refused together are what was claimed; nothing is shown that was not granted; the rest is as it was."""
    claim = a_claim(",".join(claimed))
    shown, refused = claim.within(frozenset(granted))
    assert sorted(shown.peer_groups + refused) == sorted(claimed)
    assert set(shown.peer_groups) <= set(granted)
    assert not set(refused) & set(granted)
    assert (shown is claim) == (not refused)
    assert shown.within(frozenset(granted)) == (shown, ())


def test_a_new_certificate_shows_the_groups_at_once():
    """The same registration under another certificate is judged anew."""
    registry = Registry()
    judge = Judge(registry, Standing(registry, []))
    own = OwnState(HOST, "f", "1", 1, 1, 1, 0, 0, 0)
    shown = []
    for sequence, granted in enumerate(("member", "esgf-prod"), 1):
        line = a_line(HOST, 1, sequence, {"registration": a_claim("esgf-prod").to_body()})
        registry.accept(
            attrs.evolve(line.verified, groups=frozenset({granted})),
            {sha256(body): body for body in line.bodies},
        )
        shown.append(judge.view(own, START_MS, START_MS).node(HOST).registration.peer_groups)
    assert shown == [(), ("esgf-prod",)]
