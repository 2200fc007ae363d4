"""
From the registry to a FederationView: clock and policy are applied here, nowhere earlier.

Pure but for caches of what was parsed, keyed by the content of the bodies. A wrong clock changes what is shown as stale, never what is held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from esgf_gossip.core.model import VerifiedDigest
from esgf_gossip.core.publication import EPOCH_RANDOM_BITS
from esgf_gossip.core.registry import Registry
from esgf_gossip.core.standing import Standing
from esgf_gossip.core.verdicts import Verdict
from esgf_gossip.esgf.bodies import BodyError
from esgf_gossip.esgf.exclusions import Exclusions
from esgf_gossip.esgf.health import NOTHING_KNOWN, SERVICES, HealthByType
from esgf_gossip.esgf.health import from_body as parse_health
from esgf_gossip.esgf.maintenance import MAINTENANCE
from esgf_gossip.esgf.maintenance import from_body as parse_maintenance
from esgf_gossip.esgf.metrics import METRICS
from esgf_gossip.esgf.metrics import from_body as parse_metrics
from esgf_gossip.esgf.node_type import NodeType
from esgf_gossip.esgf.observations import OBSERVATIONS
from esgf_gossip.esgf.observations import from_body as parse_observations
from esgf_gossip.esgf.registration import Registration, RegistrationError
from esgf_gossip.esgf.registration_reader import StaticNode
from esgf_gossip.esgf.resources import NOTHING_SAID, RESOURCES
from esgf_gossip.esgf.resources import from_body as parse_resources
from esgf_gossip.views.explanation import explain
from esgf_gossip.views.federation import FederationView, NodeStatus, NodeView, OwnState
from esgf_gossip.views.outside import seen_down
from esgf_gossip.views.planned import planned_health

REGISTRATION = "registration"

# By the content of the body and the groups of the certificate: the registration to show and the groups left out.
_Read = tuple[Registration, tuple[str, ...]] | str
# What small entries of other nodes say, by the name of the entry and its content; how each is read, and nothing.
_Said = dict[tuple[str, bytes], Any]
_SMALL: Final[dict[str, tuple[Callable[[bytes], Any], Any]]] = {
    SERVICES: (parse_health, NOTHING_KNOWN),
    METRICS: (parse_metrics, None),
    OBSERVATIONS: (parse_observations, None),
    RESOURCES: (parse_resources, NOTHING_SAID),
    MAINTENANCE: (parse_maintenance, None),
}
_Cache = dict[tuple[bytes, frozenset[str]], _Read]


@attrs.frozen
class Policy:
    """
    What one site decides for its own files; nothing of it is gossiped.

    Args:
        exclusions: nodes left out, by type.
        static: nodes shown although they are no members.
        peer_groups: members of at least one of these are in the files; empty: all are.
    """

    exclusions: Exclusions = attrs.field(factory=Exclusions)
    static: tuple[StaticNode, ...] = ()
    peer_groups: frozenset[str] = frozenset()

    def excluded(self, host: str, registration: Registration | None) -> NodeType:
        """Return the types of which a node is left out; PRIVATE: of all files."""
        types = self.exclusions.of(host)
        groups = () if registration is None else registration.peer_groups
        if self.peer_groups and self.peer_groups.isdisjoint(groups):
            types |= NodeType.PRIVATE
        return types

    def changed_since(self, before: Policy) -> list[str]:
        """Name the parts that are others than before."""
        names = {"exclusions": "exclusions", "static": "static nodes", "peer_groups": "peer groups"}
        return [text for name, text in names.items() if getattr(self, name) != getattr(before, name)]


class Judge:
    """Makes views of one registry and of the verdicts on its nodes."""

    def __init__(
        self,
        registry: Registry,
        standing: Standing,
        policy: Callable[[], Policy] = Policy,
    ) -> None:
        """``policy`` gives what is in force whenever a view is made."""
        self._registry = registry
        self._standing = standing
        self._policy = policy
        self._parsed: _Cache = {}
        self._read: _Said = {}

    def view(
        self,
        own: OwnState,
        at_ms: int,
        expiry_ms: int,
        held: frozenset[str] = frozenset(),
    ) -> FederationView:
        """
        Return the picture of this instant.

        Args:
            own: what the daemon says of itself.
            at_ms: now, by our clock.
            expiry_ms: the time by which lines expire; behind ``at_ms`` while nobody confirms our clock.
            held: nodes shown as unreachable for a while longer: they come and go.
        """
        used: _Cache = {}
        said: _Said = {}
        policy = self._policy()
        lines = sorted(self._registry.table, key=lambda line: line.digest.origin)
        nodes = [self._node(line, expiry_ms, held, used, said, policy) for line in lines]
        outside = self._seen_down(nodes)
        nodes = [
            attrs.evolve(node, outside=outside[node.host]) if node.host in outside else node for node in nodes
        ]
        self._parsed, self._read = used, said
        members = {node.host for node in nodes}
        nodes.extend(_static(one, policy) for one in policy.static if one.registration.host not in members)
        nodes.sort(key=lambda node: node.host)
        return FederationView(at_ms, self._registry.table.root, own, tuple(nodes))

    def _seen_down(self, nodes: Sequence[NodeView]) -> dict[str, HealthByType]:
        """Return what a quorum sees to be down; who is unreachable or no member is not asked."""
        speaks = (NodeStatus.UP, NodeStatus.SUSPECT)
        looking = {
            node.host: node.observations
            for node in nodes
            if node.observations is not None and node.status in speaks
        }
        return seen_down(looking, self._standing.observers.originals)

    def observed_by(self, host: str) -> Callable[[str], bool]:
        """Return whether a node is one of those that ``host`` is to look at."""
        return lambda subject: host in self._standing.observers.originals(subject)

    def _node(
        self,
        line: VerifiedDigest,
        expiry_ms: int,
        held: frozenset[str],
        used: _Cache,
        said: _Said,
        policy: Policy,
    ) -> NodeView:
        digest = line.digest
        status, since_ms = self._status(line, expiry_ms, held)
        ref = digest.entries.get(REGISTRATION)
        window = self._said(line, MAINTENANCE, said)
        # Whoever says "from now on" is believed, whatever our clock says of that moment.
        is_away = window is not None and window.holds(max(expiry_ms, digest.issued_at_ms))
        health = self._said(line, SERVICES, said)
        read: _Read = "no registration published"
        if ref is not None:
            read = self._registration(ref.sha256, line, used)
        registration, refused = (None, ()) if isinstance(read, str) else read
        if is_away:
            types = () if registration is None else (one.type for one in registration.services)
            health = {**health, **planned_health(window, types)}
            if window.is_of_node and status not in (NodeStatus.LEFT, NodeStatus.STALE):
                status, since_ms = NodeStatus.MAINTENANCE, window.begins_ms
        return NodeView(
            host=digest.origin,
            status=status,
            since_ms=since_ms,
            epoch=digest.epoch,
            sequence=digest.sequence,
            issued_at_ms=digest.issued_at_ms,
            expires_at_ms=digest.expires_at_ms,
            contact=digest.contact,
            registration=registration,
            registration_issued_at_ms=digest.issued_at_ms if ref is None else ref.changed_at_ms,
            registration_error=read if isinstance(read, str) else "",
            # A proof of an older certificate is no mark on the one that replaced it.
            forked=digest.certificate_sha256 in self._registry.forks,
            groups_refused=refused,
            excluded=policy.excluded(digest.origin, registration),
            health=health,
            metrics=self._said(line, METRICS, said),
            resources=self._said(line, RESOURCES, said),
            observations=self._said(line, OBSERVATIONS, said),
            maintenance=window if is_away or (window is not None and window.begins_ms > expiry_ms) else None,
        )

    def _registration(self, content: bytes, line: VerifiedDigest, used: _Cache) -> _Read:
        key = content, line.groups
        parsed = self._parsed.get(key)
        if parsed is None:
            said = self._parse(content)
            parsed = said if isinstance(said, str) else said.within(line.groups)
        used[key] = parsed
        if not isinstance(parsed, str) and parsed[0].host != line.digest.origin:
            # The name is the certificate's; a registration under another name is a claim about somebody else.
            return f"the registration names {parsed[0].host}, the certificate {line.digest.origin}"
        return parsed

    def _said(self, line: VerifiedDigest, entry: str, used: _Said) -> Any:
        """Read a small entry once for each content; what is not there or cannot be read says nothing."""
        parse, nothing = _SMALL[entry]
        ref = line.digest.entries.get(entry)
        body = None if ref is None else self._registry.body(ref.sha256)
        if ref is None or body is None:
            return nothing
        key = entry, ref.sha256
        if key in self._read:
            used[key] = self._read[key]
        elif key not in used:
            try:
                used[key] = parse(body)
            except BodyError:
                used[key] = nothing
        return used[key]

    def _parse(self, content: bytes) -> Registration | str:
        body = self._registry.body(content)
        if body is None:
            return "the registration is not held any more"
        try:
            return Registration.from_body(body)
        except RegistrationError as error:
            return str(error)

    def _status(self, line: VerifiedDigest, expiry_ms: int, held: frozenset[str]) -> tuple[NodeStatus, int]:
        digest = line.digest
        if digest.leaving:
            return NodeStatus.LEFT, digest.issued_at_ms
        if digest.expires_at_ms <= expiry_ms:
            return NodeStatus.STALE, digest.expires_at_ms
        tally = self._standing.tallies.get(digest.origin)
        if tally is not None and tally.verdict is Verdict.UNREACHABLE:
            return NodeStatus.UNREACHABLE, tally.since_ms
        # The epoch holds the second of the node's start, so that all nodes name the same one.
        started_ms = min((digest.epoch >> EPOCH_RANDOM_BITS) * 1000, digest.issued_at_ms)
        if digest.origin in held:
            return NodeStatus.UNREACHABLE, started_ms
        return (NodeStatus.UP, started_ms) if tally is None else (NodeStatus.SUSPECT, tally.since_ms)

    def explain(self, node: NodeView) -> dict[str, Any]:
        """Return why a node of a view has its status, with the signed evidence."""
        return explain(node, self._registry, self._standing)


def _static(one: StaticNode, policy: Policy) -> NodeView:
    host = one.registration.host
    return NodeView(
        host=host,
        status=NodeStatus.STATIC,
        since_ms=one.timestamp_ms,
        epoch=0,
        sequence=0,
        issued_at_ms=0,
        expires_at_ms=0,
        contact=("", 0),
        registration=one.registration,
        registration_issued_at_ms=one.timestamp_ms,
        excluded=policy.exclusions.of(host),
        metrics=one.metrics,
    )
