"""
What this node says of its own site: read from files, a database and looks at services, kept, and made into entries.

Joins the rooms of ``sources``; when an entry changes, ``on_change`` is called and the service publishes anew.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from random import SystemRandom
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from esgf_gossip.config import Config
from esgf_gossip.esgf.health import SERVICES, ServiceHealth
from esgf_gossip.esgf.health import to_body as health_body
from esgf_gossip.esgf.maintenance import MAINTENANCE, Maintenance
from esgf_gossip.esgf.maintenance import to_body as maintenance_body
from esgf_gossip.esgf.metrics import METRICS, Metrics, Number
from esgf_gossip.esgf.metrics import to_body as metrics_body
from esgf_gossip.esgf.observations import OBSERVATIONS, Observations
from esgf_gossip.esgf.observations import to_body as observations_body
from esgf_gossip.esgf.registration import Group
from esgf_gossip.esgf.resources import NOTHING_SAID, RESOURCES, Resources
from esgf_gossip.esgf.resources import to_body as resources_body
from esgf_gossip.esgf.services import Service
from esgf_gossip.esgf.site_data import SiteError
from esgf_gossip.sources.gauge import Gauge, in_thread
from esgf_gossip.sources.host import read_host
from esgf_gossip.sources.metrics_files import Numbers, read_data_users, read_own
from esgf_gossip.sources.observing import Observing, Subjects
from esgf_gossip.sources.postgres import ask
from esgf_gossip.sources.probes import Prober
from esgf_gossip.sources.probing import Probing
from esgf_gossip.sources.reach import Network, OpenEndpoint
from esgf_gossip.sources.roots import SERVING, DataRoots
from esgf_gossip.sources.site import Site, SiteFiles, read_site, with_groups
from esgf_gossip.views.federation import NodeView
from esgf_gossip.views.judgement import REGISTRATION, Policy

# Beside registration.xml: nodes that run no daemon yet, written by the administrator.
STATIC_FILE: Final = "registration_static.xml"
# Other programs write files every few minutes; a database has more to do than to answer us.
FILE_EVERY_S: Final = 60.0
DATABASE_EVERY_S: Final = 300.0
HOST_EVERY_S: Final = 60.0
# Each node may change that often what it measures, however many there are: their sum is one digest a second.
SECONDS_PER_NODE: Final = 1.0


def read_own_site(config: Config, groups: tuple[Group, ...] | None = None) -> Site:
    """
    Read the files that ``[esgf]`` names; ``groups`` are those of the database, None: those of the file.

    Raises:
        SiteError: one of them is missing, wrong, or cannot be published.
    """
    esgf = config.esgf
    files = SiteFiles(
        esgf.properties,
        esgf.config_type,
        esgf.groups,
        esgf.host_certificate,
        esgf.excludes,
        config.outputs.directory / STATIC_FILE,
    )
    return read_site(
        files, config.node.host, publish=esgf.publish, check_app_home=esgf.check_app_home, groups=groups
    )


@attrs.frozen
class Neighbourhood:
    """What the site asks of the federation: how many nodes there are, and whose services this one is to look at."""

    size: Callable[[], int]
    subjects: Callable[[], Subjects]


class OwnSite:
    """
    The site of this node.

    Args:
        config: what is in force at the start.
        site: as ``read_own_site`` found it.
        on_change: called when an entry changed by itself.
        federation: whom to look at, and how many nodes there are.
        reactor: clock, threads and connections.
        now_ms: Unix milliseconds.
    """

    log = Logger()

    def __init__(
        self,
        config: Config,
        site: Site,
        on_change: Callable[[], object],
        federation: Neighbourhood,
        reactor: Any,
        now_ms: Callable[[], int],
    ) -> None:
        self._config = config
        self._site = site
        self._on_change: Final = on_change
        self._reactor: Final = reactor
        self._now_ms: Final = now_ms
        self._maintenance: Maintenance | None = None
        self._ending: IDelayedCall | None = None
        self._prober: Final = Prober(reactor)
        self._roots = DataRoots((), reactor)
        self._probing: Final = Probing(self._look, on_change, reactor, now_ms, SystemRandom())
        self._allowed: tuple[Network, ...] = ()
        outside = Prober(reactor, lambda host, port: OpenEndpoint(reactor, host, port, self._allowed))
        self._observing: Final = Observing(
            federation.subjects, outside.look, on_change, reactor, now_ms, SystemRandom()
        )
        least_s = lambda: federation.size() * SECONDS_PER_NODE  # noqa: E731 - said once, for three
        self._numbers: Final = Gauge("download numbers", Numbers(), self._numbers_changed, reactor, least_s)
        nothing: tuple[tuple[str, Number], ...] = ()
        self._own_numbers: Final = Gauge("the site's own metrics", nothing, on_change, reactor, least_s)
        self._resources: Final = Gauge("resources of this host", NOTHING_SAID, on_change, reactor, least_s)

    @property
    def policy(self) -> Policy:
        """Whom this site leaves out of its own files, and whom it shows besides the members."""
        return Policy(self._site.exclusions, self._site.static, frozenset(self._config.outputs.peer_groups))

    def start(self, told: NodeView | None) -> None:
        """
        Begin to look.

        Args:
            told: what this node said in its last run; it stands until a look contradicts it. None: nothing.
        """
        self.announce(None if told is None else told.maintenance)
        metrics = (None if told is None else told.metrics) or Metrics()
        groups = None if told is None or told.registration is None else told.registration.groups
        self._measure(
            Numbers(attrs.evolve(metrics, own=()), groups),
            metrics.own,
            NOTHING_SAID if told is None else told.resources,
        )
        self._take_groups()
        self._probe({} if told is None else dict(told.health), None if told is None else told.observations)

    def stop(self) -> None:
        """Look no more."""
        if self._ending is not None and self._ending.active():
            self._ending.cancel()
        self._probing.stop()
        self._observing.stop()
        for gauge in (self._numbers, self._own_numbers, self._resources):
            gauge.stop()

    def read(self, config: Config) -> Site:
        """
        Read the files again; nothing is in force yet.

        Raises:
            SiteError: as ``read_own_site``.
        """
        if not _asks_for_groups(config):
            return read_own_site(config)
        found = self._numbers.value.groups
        # Until a database that was named just now has answered, the groups of before stand.
        return read_own_site(config, self._site.data.groups if found is None else found)

    def take(self, config: Config, site: Site) -> None:
        """Put into force what ``read`` returned."""
        before, self._config = self._config, config
        is_moved = config.services != before.services or (
            site.registration.services != self._site.registration.services
        )
        self._site = site
        self._measure(self._numbers.value, self._own_numbers.value, self._resources.value)
        if is_moved:
            self._probe(dict(self._probing.health), self._observing.seen)

    @property
    def maintenance(self) -> Maintenance | None:
        """The window this node announces; None where it announces none, or it is over."""
        window = self._maintenance
        return None if window is None or window.ends_ms <= self._now_ms() else window

    def announce(self, window: Maintenance | None) -> None:
        """Announce a window of planned downtime in place of the one before; None: none."""
        self._maintenance = window
        if self._ending is not None and self._ending.active():
            self._ending.cancel()
        if window is not None:
            after_s = max(0, window.ends_ms - self._now_ms()) / 1000
            self._ending = self._reactor.callLater(after_s, self._on_change)

    def entries(self) -> dict[str, bytes]:
        """Return what this node says of its site, by the name of the entry."""
        entries = {REGISTRATION: self._site.registration.to_body()}
        window = self.maintenance
        if window is not None:
            entries[MAINTENANCE] = maintenance_body(window)
        if self._probing.health:
            entries[SERVICES] = health_body(self._probing.health)
        seen = self._observing.seen
        if seen is not None:
            entries[OBSERVATIONS] = observations_body(seen)
        metrics = attrs.evolve(self._numbers.value.metrics or Metrics(), own=self._own_numbers.value)
        if metrics != Metrics():
            entries[METRICS] = metrics_body(metrics)
        if self._resources.value != NOTHING_SAID:
            entries[RESOURCES] = resources_body(self._resources.value)
        return entries

    def _probe(self, told: dict[str, ServiceHealth], seen: Observations | None) -> None:
        services = self._config.services
        self._roots = DataRoots(services.data_roots, self._reactor)
        watched = self._site.registration.services if services.probe else ()
        self._probing.start(watched, services.probe_every_s, told)
        self._allowed = tuple(ipaddress.ip_network(text) for text in services.allow)
        self._observing.stop()
        if services.probe and services.probe_others:
            self._observing.start(services.probe_every_s, self._allowed, seen)

    def _look(self, service: Service, timeout_s: float) -> Deferred[str | None]:
        if service.type not in SERVING or not self._config.services.data_roots:
            return self._prober.look(service, timeout_s)
        first: Deferred[Any] = self._roots.look(timeout_s)
        return first.addCallback(lambda reason: reason or self._prober.look(service, timeout_s))

    def _measure(self, numbers: Numbers, own: tuple[tuple[str, Number], ...], resources: Resources) -> None:
        metrics = self._config.metrics
        if metrics.database is not None:
            address = metrics.database
            source = lambda: in_thread(lambda: ask(address, metrics.password_file), self._reactor)  # noqa: E731
            self._numbers.start(source, DATABASE_EVERY_S, numbers)
        elif metrics.data_users is not None:
            path = metrics.data_users
            self._numbers.start(lambda: read_data_users(path), FILE_EVERY_S, numbers)
        else:
            self._numbers.start(None, 0.0, Numbers())
        self._own_numbers.start(
            (lambda: read_own(metrics.files)) if metrics.files else None, FILE_EVERY_S, own
        )
        self._resources.start(self._host if metrics.resources else None, HOST_EVERY_S, resources)

    def _host(self) -> Resources | Deferred[Resources]:
        metrics = self._config.metrics

        def found() -> Resources:
            return read_host(metrics.storage, metrics.compute).coarse(self._resources.value)

        # A mount that hangs would hold up all else; what the system itself says comes at once.
        return in_thread(found, self._reactor) if metrics.storage else found()

    def _numbers_changed(self) -> None:
        self._take_groups()
        self._on_change()

    def _take_groups(self) -> None:
        groups = self._numbers.value.groups
        if groups is None or not _asks_for_groups(self._config) or groups == self._site.data.groups:
            return
        try:
            self._site = with_groups(self._site, groups)
        except SiteError as error:
            self.log.warn("the groups stay as they are: {error}", error=str(error))


def _asks_for_groups(config: Config) -> bool:
    """Tell whether the groups are the database's: a file that is named goes first."""
    return config.metrics.database is not None and config.esgf.groups is None
