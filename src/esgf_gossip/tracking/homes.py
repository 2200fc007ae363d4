"""
Whose user an OpenID is: the node, and the identity provider, of its host.

Matches say who downloaded what, so they go where the certificate says that the host belongs, never where somebody
merely says so. Made of a view, and as immutable. Source: docs/adr/0022-home-nodes.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final
from urllib.parse import urlsplit

import attrs

from esgf_gossip.esgf.openids import openid_host
from esgf_gossip.views.federation import FederationView, NodeStatus, NodeView

_PROVIDER: Final = "OpenIDProvider"
_ATTRIBUTES: Final = "AttributeService"
_AWAY: Final = frozenset({NodeStatus.UNREACHABLE})


@attrs.frozen
class Homes:
    """Nodes and identity providers by host; ``own`` is this node."""

    own: str
    _nodes: Mapping[str, str] = attrs.field(repr=False)
    _providers: Mapping[str, str] = attrs.field(repr=False)

    def home_of(self, openid: str) -> str | None:
        """Return the home node of a user, None where there is none."""
        return self._nodes.get(openid_host(openid))

    def is_ours(self, openid: str) -> bool:
        """Tell whether this node is the user's home."""
        return self.home_of(openid) == self.own

    def provider_of(self, host: str) -> str | None:
        """
        Return the address of the attribute service of a host.

        Empty where it is an identity provider without one; None where it is none.
        """
        return self._providers.get(host)


def homes_of(
    view: FederationView, certified: Mapping[str, Collection[str]], own_homes: Collection[str]
) -> Homes:
    """
    Work out the homes of a federation.

    Args:
        view: the nodes, static ones too.
        certified: by node the host names in its certificate.
        own_homes: ``[tracking] homes`` of this node.
    """
    own = view.own.host
    nodes: dict[str, str] = {}
    members = [node for node in view.members if not node.is_gone]
    names = {node.host: frozenset(certified.get(node.host, ())) | {node.host} for node in members}
    # Two nodes may be certified for one host: first whose name it is, then who offers a provider there, then by name.
    for node in sorted(members, key=lambda node: node.host):
        for host in names[node.host]:
            held = nodes.get(host)
            if held is None or _rank(node, host) > _rank(next(m for m in members if m.host == held), host):
                nodes[host] = node.host
    nodes |= dict.fromkeys((host.lower() for host in own_homes), own)
    nodes.setdefault(own, own)
    return Homes(own, nodes, _providers(view, members, names, nodes))


def sees_most(
    view: FederationView, besides: str, neighbours: Collection[str], linked: Collection[str]
) -> bool:
    """
    Tell whether this node sees more than half of the members, one of them left out: the home that is away.

    A minority behind a cut must not tell users whom the others tell too. It takes two observers to call a node
    unreachable, and who hears nobody calls nobody so: to a few that are cut off all others look up. So this node's own
    links must be up as well, most of those that it should have.

    Args:
        view: of now.
        besides: the home.
        neighbours: the members that this node should be linked to.
        linked: the members that it is linked to.
    """
    others = [node for node in view.members if not node.is_gone and node.host != besides]
    seen = sum(node.status not in _AWAY or node.host == view.own.host for node in others)
    near = frozenset(neighbours) - {besides, view.own.host}
    # With this node among them, as above.
    return 2 * seen > len(others) and 2 * (len(near.intersection(linked)) + 1) > len(near) + 1


def _providers(
    view: FederationView,
    members: Collection[NodeView],
    names: Mapping[str, Collection[str]],
    nodes: Mapping[str, str],
) -> dict[str, str]:
    found: dict[str, str] = {}
    for node in members:
        services = _services(node)
        if services:
            # A member speaks for the hosts it is certified for, and for no other.
            for host in names[node.host]:
                if nodes.get(host) == node.host:
                    found[host] = _secure(services.get(_ATTRIBUTES, ""))
    for node in view.nodes:
        services = _services(node) if node.status is NodeStatus.STATIC else {}
        # This site's administrator vouches for those.
        for host in {node.host, *(_host(endpoint) for endpoint in services.values())} if services else ():
            found.setdefault(host, _secure(services.get(_ATTRIBUTES, "")))
    found.pop("", None)
    return found


def _services(node: NodeView) -> dict[str, str]:
    return {one.type: one.endpoint for one in node.services if one.type in (_PROVIDER, _ATTRIBUTES)}


def _rank(node: NodeView, host: str) -> tuple[bool, bool]:
    return node.host == host, any(_host(endpoint) == host for endpoint in _services(node).values())


def _host(endpoint: str) -> str:
    try:
        return (urlsplit(endpoint).hostname or "").lower()
    except ValueError:
        return ""


def _secure(endpoint: str) -> str:
    return endpoint if endpoint.lower().startswith("https://") and _host(endpoint) else ""
