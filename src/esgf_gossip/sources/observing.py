"""
Looks at the services of other nodes from here, and what they come to.

Which nodes: those this one observes (core.observers); which services: those ``reach`` lets it look at. A node that
sees most of the others down doubts its own network, and says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, Final

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from esgf_gossip.esgf.health import NOTHING_KNOWN, Health
from esgf_gossip.esgf.observations import Observations
from esgf_gossip.esgf.services import Service
from esgf_gossip.sources.probing import Look, Probing
from esgf_gossip.sources.reach import Network, is_own

# So many hosts, more than half of them down, are one broken network: ours.
DOUBT_HOSTS: Final = 2

# Of each node to look at, by its name: the services it tells.
Subjects = Mapping[str, Sequence[Service]]


class Observing:
    """
    Looks at others.

    Args:
        subjects: whom to look at now.
        look: as ``Probing`` takes it, over connections that go to open addresses only.
        on_change: called when ``seen`` changed by a look.
        clock: the reactor, or a Clock in tests.
        now_ms: Unix milliseconds.
        random: for the moment of each look.
    """

    log = Logger()

    def __init__(
        self,
        subjects: Callable[[], Subjects],
        look: Look,
        on_change: Callable[[], object],
        clock: Any,
        now_ms: Callable[[], int],
        random: Random,
    ) -> None:
        self._subjects: Final = subjects
        self._look: Final = look
        self._on_change: Final = on_change
        self._clock: Final = clock
        self._now_ms: Final = now_ms
        self._random: Final = random
        self._every_s = 0.0
        self._allowed: Sequence[Network] = ()
        self._told: Observations | None = None
        self._last: Observations | None = None
        self._has_looked = False
        self._looks: dict[str, tuple[tuple[Service, ...], Probing]] = {}
        self._loop: LoopingCall | None = None

    @property
    def seen(self) -> Observations | None:
        """What is down, by host and type; None: this node does not look, or doubts its own eyes."""
        if not self._has_looked:
            return self._told
        down = {
            host: {name: one for name, one in probing.health.items() if one.health is Health.DOWN}
            for host, (_, probing) in self._looks.items()
        }
        faulty = {host: services for host, services in down.items() if services}
        known = sum(bool(probing.health) for _, probing in self._looks.values())
        dark = sum(
            all(one.health is Health.DOWN for one in probing.health.values())
            for _, probing in self._looks.values()
            if probing.health
        )
        if known >= DOUBT_HOSTS and dark * 2 > known:
            return None
        return faulty

    def start(self, every_s: float, allowed: Sequence[Network], told: Observations | None) -> None:
        """
        Look from now on, at each service so often.

        Args:
            every_s: how often.
            allowed: networks that may be looked at although they are not everybody's.
            told: what this node said in its last run; it stands until looks contradict it. None: nothing.
        """
        self.stop()
        self._every_s, self._allowed = every_s, allowed
        self._told = self._last = told
        self._loop = LoopingCall(self._follow)
        self._loop.clock = self._clock
        self._loop.start(every_s, now=False)

    def stop(self) -> None:
        """Look no more, and forget what was seen."""
        if self._loop is not None and self._loop.running:
            self._loop.stop()
        self._loop = None
        self._told, self._has_looked = None, False
        for _, probing in self._looks.values():
            probing.stop()
        self._looks = {}

    def _follow(self) -> None:
        """Look at those who are to be looked at now, and at nobody else."""
        wanted = {}
        for host, services in self._subjects().items():
            own = tuple(service for service in services if is_own(service, host, self._allowed))
            if own:
                wanted[host] = own
        for host in self._looks.keys() - wanted.keys():
            self._looks.pop(host)[1].stop()
        for host, services in wanted.items():
            if host in self._looks and self._looks[host][0] == services:
                continue
            if host in self._looks:
                probing = self._looks[host][1]
                known = probing.health
            else:
                whose = f"{host}, seen from here,"
                probing = Probing(self._look, self._looked, self._clock, self._now_ms, self._random, whose)
                known = (self._told or {}).get(host, NOTHING_KNOWN)
            self._looks[host] = services, probing
            probing.start(services, self._every_s, known)
        self._has_looked = True
        self._looked()

    def _looked(self) -> None:
        seen = self.seen
        if seen != self._last:
            self._last = seen
            self._on_change()
