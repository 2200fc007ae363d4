"""
What this node says of its own site: read from files, a database and looks at services, kept, and made into entries.

Joins the rooms of ``sources``; when an entry changes, ``on_change`` is called and the service publishes anew.
"""

from __future__ import annotations

from collections.abc import Callable
from random import SystemRandom
from typing import Any, Final

from twisted.logger import Logger

from esgf_gossip.config import Config
from esgf_gossip.esgf.exclusions import Exclusions
from esgf_gossip.esgf.health import SERVICES
from esgf_gossip.esgf.health import to_body as health_body
from esgf_gossip.esgf.metrics import METRICS
from esgf_gossip.esgf.metrics import to_body as metrics_body
from esgf_gossip.esgf.registration import Group
from esgf_gossip.esgf.site_data import SiteError
from esgf_gossip.sources.metering import (
    DATABASE_EVERY_S,
    FILE_EVERY_S,
    Metering,
    database_source,
    file_source,
)
from esgf_gossip.sources.postgres import Numbers
from esgf_gossip.sources.probes import Prober
from esgf_gossip.sources.probing import Probing
from esgf_gossip.sources.site import Site, SiteFiles, read_site, with_groups
from esgf_gossip.views.federation import NodeView
from esgf_gossip.views.judgement import REGISTRATION


def read_own_site(config: Config, groups: tuple[Group, ...] | None = None) -> Site:
    """
    Read the files that ``[esgf]`` names; ``groups`` are those of the database, None: those of the file.

    Raises:
        SiteError: one of them is missing, wrong, or cannot be published.
    """
    esgf = config.esgf
    files = SiteFiles(esgf.properties, esgf.config_type, esgf.groups, esgf.host_certificate, esgf.excludes)
    return read_site(
        files, config.node.host, publish=esgf.publish, check_app_home=esgf.check_app_home, groups=groups
    )


class OwnSite:
    """
    The site of this node.

    Args:
        config: what is in force at the start.
        site: as ``read_own_site`` found it.
        on_change: called when an entry changed by itself.
        reactor: clock, threads and connections.
        now_ms: Unix milliseconds.
    """

    log = Logger()

    def __init__(
        self,
        config: Config,
        site: Site,
        on_change: Callable[[], object],
        reactor: Any,
        now_ms: Callable[[], int],
    ) -> None:
        self._config = config
        self._site = site
        self._on_change: Final = on_change
        self._reactor: Final = reactor
        self._probing: Final = Probing(Prober(reactor).look, on_change, reactor, now_ms, SystemRandom())
        self._metering: Final = Metering(self._numbers_changed, reactor)

    @property
    def exclusions(self) -> Exclusions:
        """Whom this site leaves out of its own files."""
        return self._site.exclusions

    def start(self, told: NodeView | None) -> None:
        """
        Begin to look.

        Args:
            told: what this node said in its last run; it stands until a look contradicts it. None: nothing.
        """
        metrics = None if told is None else told.metrics
        groups = None if told is None or told.registration is None else told.registration.groups
        self._measure(Numbers(metrics, groups))
        self._take_groups()
        self._probe({} if told is None else dict(told.health))

    def stop(self) -> None:
        """Look no more."""
        self._probing.stop()
        self._metering.stop()

    def read(self, config: Config) -> Site:
        """
        Read the files again; nothing is in force yet.

        Raises:
            SiteError: as ``read_own_site``.
        """
        return read_own_site(config, self._metering.numbers.groups if _asks_for_groups(config) else None)

    def take(self, config: Config, site: Site) -> None:
        """Put into force what ``read`` returned."""
        before, self._config = self._config, config
        is_moved = config.services != before.services or (
            site.registration.services != self._site.registration.services
        )
        self._site = site
        self._measure(self._metering.numbers)
        if is_moved:
            self._probe(dict(self._probing.health))

    def entries(self) -> dict[str, bytes]:
        """Return what this node says of its site, by the name of the entry."""
        entries = {REGISTRATION: self._site.registration.to_body()}
        if self._probing.health:
            entries[SERVICES] = health_body(self._probing.health)
        if self._metering.numbers.metrics is not None:
            entries[METRICS] = metrics_body(self._metering.numbers.metrics)
        return entries

    def _probe(self, told: dict[str, Any]) -> None:
        services = self._config.services
        watched = self._site.registration.services if services.probe else ()
        self._probing.start(watched, services.probe_every_s, told)

    def _measure(self, told: Numbers) -> None:
        metrics = self._config.metrics
        if metrics.database is not None:
            source = database_source(metrics.database, metrics.password_file, self._reactor)
            self._metering.start(source, DATABASE_EVERY_S, told)
        elif metrics.data_users is not None:
            self._metering.start(file_source(metrics.data_users), FILE_EVERY_S, told)
        else:
            self._metering.start(None, 0.0, Numbers())

    def _numbers_changed(self) -> None:
        self._take_groups()
        self._on_change()

    def _take_groups(self) -> None:
        groups = self._metering.numbers.groups
        if groups is None or not _asks_for_groups(self._config) or groups == self._site.data.groups:
            return
        try:
            self._site = with_groups(self._site, groups)
        except SiteError as error:
            self.log.warn("the groups stay as they are: {error}", error=str(error))


def _asks_for_groups(config: Config) -> bool:
    """Tell whether the groups are the database's: a file that is named goes first."""
    return config.metrics.database is not None and config.esgf.groups is None
