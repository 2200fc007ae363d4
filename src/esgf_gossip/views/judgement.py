"""
From the registry to a FederationView: clock and policy are applied here, nowhere earlier.

Pure but for a cache of parsed registrations, keyed by the content of their
bodies. A wrong clock changes what is shown as stale, never what is held.
"""

from __future__ import annotations

from typing import Any

from esgf_gossip.core.model import VerifiedDigest
from esgf_gossip.core.publication import EPOCH_RANDOM_BITS
from esgf_gossip.core.registry import Registry
from esgf_gossip.core.standing import Standing
from esgf_gossip.core.verdicts import Verdict
from esgf_gossip.esgf.registration import Registration, RegistrationError
from esgf_gossip.views.explanation import explain
from esgf_gossip.views.federation import FederationView, NodeStatus, NodeView, OwnState

REGISTRATION = "registration"


class Judge:
    """Makes views of one registry and of the verdicts on its nodes."""

    def __init__(self, registry: Registry, standing: Standing) -> None:
        self._registry = registry
        self._standing = standing
        self._parsed: dict[bytes, Registration | str] = {}

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
        used: dict[bytes, Registration | str] = {}
        lines = sorted(self._registry.table, key=lambda line: line.digest.origin)
        nodes = tuple(self._node(line, expiry_ms, held, used) for line in lines)
        self._parsed = used
        return FederationView(at_ms, self._registry.table.root, own, nodes)

    def _node(
        self,
        line: VerifiedDigest,
        expiry_ms: int,
        held: frozenset[str],
        used: dict[bytes, Registration | str],
    ) -> NodeView:
        digest = line.digest
        status, since_ms = self._status(line, expiry_ms, held)
        ref = digest.entries.get(REGISTRATION)
        registration, error = (None, "no registration published")
        if ref is not None:
            registration, error = self._registration(ref.sha256, digest.origin, used)
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
            registration_error=error,
            # A proof of an older certificate is no mark on the one that replaced it.
            forked=digest.certificate_sha256 in self._registry.forks,
        )

    def _registration(
        self, content: bytes, origin: str, used: dict[bytes, Registration | str]
    ) -> tuple[Registration | None, str]:
        parsed = self._parsed.get(content)
        if parsed is None:
            parsed = self._parse(content)
        used[content] = parsed
        if isinstance(parsed, str):
            return None, parsed
        if parsed.host != origin:
            # The name is the certificate's; a registration under another name is a claim about somebody else.
            return None, f"the registration names {parsed.host}, the certificate {origin}"
        return parsed, ""

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
