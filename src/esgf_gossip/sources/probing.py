"""
The health of the services of one node: looked at in turn, told only when it changes.

Two looks in vain make a service down, two good ones up; after a look that contradicts what is told the next
comes in half the time. What was told before a restart stays until it is contradicted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from esgf_gossip.esgf.health import Health, HealthByType, ServiceHealth
from esgf_gossip.esgf.services import Service

# So many looks that say the same make the health of a service.
LOOKS: Final = 2
# Of a period: nodes that were started together do not all look at once.
JITTER: Final = 0.1
# One look takes a quarter of a period, within these bounds.
TIMEOUT_S: Final = (1.0, 5.0)

Look = Callable[[Service, float], "Deferred[str | None]"]


@attrs.define
class _Watched:
    """One service: the looks in a row that contradict what is told, and the next look."""

    service: Service
    contrary: int = 0
    call: Any = None


class Probing:
    """
    Looks at services and keeps their health.

    Args:
        look: fires with an empty text where a service answers, else with what was seen, None where nobody could
            look (``Prober.look``).
        on_change: called when a health changed.
        clock: the reactor, or a Clock in tests.
        now_ms: Unix milliseconds.
        random: for the moment of each look.
        whose: how the log calls the node.
    """

    log = Logger()

    def __init__(
        self,
        look: Look,
        on_change: Callable[[], object],
        clock: Any,
        now_ms: Callable[[], int],
        random: Random,
        whose: str = "this node",
    ) -> None:
        self.health: HealthByType = {}
        self._look: Final = look
        self._on_change: Final = on_change
        self._clock: Final = clock
        self._now_ms: Final = now_ms
        self._random: Final = random
        self._whose: Final = whose
        self._every_s = 0.0
        self._watched: dict[str, _Watched] = {}

    def start(self, services: Iterable[Service], every_s: float, known: HealthByType) -> None:
        """
        Look at these services from now on, in place of those before.

        Args:
            services: of this node; where there is none, nothing is looked at.
            every_s: how often.
            known: what was told of them so far.
        """
        self.stop()
        self._every_s = every_s
        for service in services:
            watched = self._watched[service.type] = _Watched(service)
            # Spread over the first half of a period.
            self._next(watched, every_s * self._random.random() / 2)
        self.health = {name: one for name, one in known.items() if name in self._watched}

    def stop(self) -> None:
        """Look no more; what is under way tells nobody."""
        for watched in self._watched.values():
            if watched.call is not None and watched.call.active():
                watched.call.cancel()
        self._watched = {}

    def _next(self, watched: _Watched, after_s: float) -> None:
        watched.call = self._clock.callLater(after_s, self._begin, watched)

    def _begin(self, watched: _Watched) -> None:
        timeout_s = min(max(TIMEOUT_S[0], self._every_s / 4), TIMEOUT_S[1])
        self._look(watched.service, timeout_s).addCallback(self._seen, watched)

    def _seen(self, reason: str | None, watched: _Watched) -> None:
        name = watched.service.type
        if self._watched.get(name) is not watched:
            return
        if reason is None:
            self._next(watched, self._every_s)
            return
        told = self.health.get(name)
        health = Health.DOWN if reason else Health.UP
        is_contrary = told is None or told.health is not health
        watched.contrary = watched.contrary + 1 if is_contrary else 0
        # Nothing told yet: one good look is enough to say that it is up, it never counted as down.
        if is_contrary and (watched.contrary >= LOOKS or (told is None and not reason)):
            watched.contrary = 0
            self.health = {**self.health, name: ServiceHealth(health, self._now_ms(), reason)}
            if reason:
                self.log.warn(
                    "{name} of {whose} is down: {reason}", name=name, whose=self._whose, reason=reason
                )
            else:
                self.log.info("{name} of {whose} is up", name=name, whose=self._whose)
            self._on_change()
        period_s = self._every_s / 2 if watched.contrary else self._every_s
        self._next(watched, period_s * (1 - JITTER * self._random.random()))
