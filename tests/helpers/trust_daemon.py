"""The trust of one daemon on a clock of the test's: keeper, node, driver and database, without sockets."""

from __future__ import annotations

from pathlib import Path
from random import Random

import attrs
from twisted.internet.task import Clock

from esgf_gossip.core.node import Node
from esgf_gossip.net.driver import Driver
from esgf_gossip.net.trust_keeper import TrustKeeper, TrustPlace
from esgf_gossip.storage.database import FILE_NAME, Database
from esgf_gossip.trust import revocation
from helpers.trust import TestFederation

HOST, OTHER = "node.example.org", "other.example.org"


@attrs.define
class Running:
    """A daemon's trust with all that it needs, on a clock of the test's."""

    federation: TestFederation
    clock: Clock
    keeper: TrustKeeper
    node: Node
    database: Database
    now_ms: list[int]

    @property
    def number(self) -> int:
        """The number of the issuing CA's CRL in force."""
        found = self.keeper.material.anchors.crls.of_issuer(self.federation.issuing.certificate.subject)
        assert found is not None
        return revocation.number(found)

    def wait(self, seconds: float) -> None:
        """Let time pass in steps."""
        for _ in range(int(seconds * 4)):
            self.clock.advance(0.25)


def start(federation: TestFederation, state: Path, now_ms: int | None = None) -> Running:
    """Start a node's trust with what its database holds."""
    clock, now = Clock(), [federation.now_ms if now_ms is None else now_ms]
    keeper = TrustKeeper(TrustPlace(federation.node(HOST), HOST, federation.name), lambda: now[0], clock)
    signer = keeper.material.signer
    node = Node(signer, keeper.verifier, (HOST, 1), (), Random(1), keeper.objects)
    database = Database(state / FILE_NAME)
    driver = Driver(node, database, clock, keeper.notice, lambda: now[0])
    stored = database.load()
    at = driver.at()
    driver.perform(node.restore(stored.epoch, stored.lines, stored.bodies, at, trust=stored.trust))
    driver.perform(node.start({}, at))
    keeper.start(node, driver, database)
    return Running(federation, clock, keeper, node, database, now)
