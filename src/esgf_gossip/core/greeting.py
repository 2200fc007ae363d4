"""
How two nodes begin: the hello of each, what version and features they have in common.

Part of the node: appends to its output. What follows a hello (duplicates,
comparison, claims) is the node's. Source: docs/protocol.md, "Links".
"""

from __future__ import annotations

from typing import Final

from esgf_gossip.core import limits, reconciliation
from esgf_gossip.core.effects import Output, Send
from esgf_gossip.core.errors import VersionMismatchError, WireError
from esgf_gossip.core.messages import Feature, Hello
from esgf_gossip.core.model import Moment
from esgf_gossip.core.publication import Publication
from esgf_gossip.core.registry import Registry
from esgf_gossip.core.sessions import Session

# What this version can do beyond version 1 without features: numbers of messages.Feature.
FEATURES: Final[tuple[int, ...]] = (Feature.BUCKETS, Feature.FORKS, Feature.LOGS, Feature.TRUST)


class Greeting:
    """The hellos of one node; ``instance`` (16 random bytes) is new with every start."""

    def __init__(
        self, registry: Registry, publication: Publication, instance: bytes, out: list[Output]
    ) -> None:
        self._registry = registry
        self._publication = publication
        self._instance = instance
        self._out = out

    def greet(self, session: Session, at: Moment) -> None:
        """Say hello; what changes from now on is announced to this peer."""
        session.we_greeted = True
        hello = Hello(
            version_min=limits.PROTOCOL_VERSION_MIN,
            version_max=limits.PROTOCOL_VERSION_MAX,
            features=FEATURES,
            federation=self._publication.signer.federation,
            instance=self._instance,
            clock_ms=at.wall_ms,
            roots=reconciliation.roots_of(self._registry),
            head_of_you=self._registry.table.head(session.peer),
        )
        self._out.append(Send(session.link, hello))

    def hear(self, session: Session, hello: Hello, at: Moment) -> None:
        """
        Take a peer's hello: the link is open, and greeted by us too.

        Raises:
            VersionMismatchError: no version in common.
            WireError: a second hello, or another federation. The session is not open.
        """
        if session.is_open:
            raise WireError("a second hello")
        version = min(hello.version_max, limits.PROTOCOL_VERSION_MAX)
        if version < max(hello.version_min, limits.PROTOCOL_VERSION_MIN):
            raise VersionMismatchError(
                f"{session.peer} speaks versions {hello.version_min} to {hello.version_max} of the protocol, "
                f"this node {limits.PROTOCOL_VERSION_MIN} to {limits.PROTOCOL_VERSION_MAX}; upgrade the older one"
            )
        if hello.federation != self._publication.signer.federation:
            raise WireError(f"the peer belongs to federation {hello.federation}")
        session.is_open = True
        session.version = version
        session.features = frozenset(FEATURES).intersection(hello.features)
        session.instance = hello.instance
        session.clock_offset_ms = hello.clock_ms - at.wall_ms
        if session.dialled is not None:
            self.greet(session, at)
