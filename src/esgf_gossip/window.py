"""
What pages and commands see of the daemon, and the few things they may ask of it.

Only joins: the picture of now, the archive, the figures, trust, configuration. Nothing here changes state.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, Protocol

import attrs
from twisted.internet.defer import Deferred

from esgf_gossip.config import Config, to_toml
from esgf_gossip.core.registry import Registry
from esgf_gossip.document_desk import DocumentDesk
from esgf_gossip.esgf.maintenance import Maintenance
from esgf_gossip.net.figures import Figures
from esgf_gossip.net.trust_keeper import TrustKeeper
from esgf_gossip.net.trust_report import nodes_report
from esgf_gossip.tasks.site_tasks import SiteTasks
from esgf_gossip.tracking_room import TrackingRoom
from esgf_gossip.views.federation import FederationView
from esgf_gossip.web.archive import Archive
from esgf_gossip.web.events import EventHub
from esgf_gossip.web.host_names import is_loopback
from esgf_gossip.web.kept import KeptDocuments
from esgf_gossip.web.log_tail import LogTail
from esgf_gossip.web.picture import Picture

_PASSWORD: Final = re.compile(r"(?i)(://[^\s:/@\"]*:)[^\n\"]*@|\b(password\s*=\s*)(?:'[^\n\"]*'|[^\s\"]+)")
_MASK: Final = "***"


class Actions(Protocol):
    """What the control socket may have done."""

    @property
    def config(self) -> Config:
        """The configuration in force."""

    def reload(self) -> Deferred[dict[str, Any]]:
        """Read properties, trust and configuration again."""

    def stop(self) -> None:
        """Stop the daemon in order."""

    @property
    def maintenance(self) -> Maintenance | None:
        """The window of planned downtime that this node announces."""

    def announce(self, window: Maintenance | None) -> None:
        """Announce a window, or none."""

    def backup(self) -> Deferred[dict[str, Any]]:
        """Copy the databases."""

    def leave(self) -> Deferred[None]:
        """Leave the federation."""

    @property
    def tasks(self) -> SiteTasks:
        """The task queue."""


class Window:
    """One daemon, as seen from outside."""

    def __init__(
        self,
        picture: Picture,
        past: Archive,
        figures: Figures,
        trust: TrustKeeper,
        metadata: DocumentDesk,
        tracking: TrackingRoom,
        registry: Registry,
        actions: Actions,
        now_ms: Callable[[], int],
    ) -> None:
        self.past: Final = past
        self.now_ms: Final = now_ms
        self.metadata: Final = metadata
        self.datasets: Final = tracking.datasets
        self._tracking = tracking
        self.log_tail: Final = LogTail()
        self._picture = picture
        self._figures = figures
        self._trust = trust
        self._registry = registry
        self._actions = actions
        self.reload = actions.reload
        self.stop = actions.stop
        self.leave = actions.leave
        self.backup = actions.backup
        self.announce = actions.announce

    @property
    def notifications(self) -> Any:
        """The desk of mailing, None where tracking is off."""
        return self._tracking.notifications

    @property
    def documents(self) -> KeptDocuments:
        """The documents at hand."""
        return self._picture.documents

    @property
    def events(self) -> EventHub:
        """The events of this run."""
        return self._picture.events

    def view(self) -> FederationView:
        """Return the current view; the same object while nothing changed."""
        return self._picture.view()

    def is_ready(self) -> bool:
        """Tell whether the picture can be relied on."""
        return self._picture.is_ready()

    def explain(self, host: str) -> dict[str, Any] | None:
        """Return why a node has its status, or None where there is no such node."""
        return self._picture.explain(host)

    def on_view_changed(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call back whenever the view may have changed; the result ends it."""
        return self._picture.on_view_changed(callback)

    def trust_report(self) -> dict[str, Any]:
        """Return what each node says of its trust, and what is wrong with ours."""
        return {
            "host": self._actions.config.node.host,
            "nodes": nodes_report(self._registry),
            "error": self._trust.failure,
            "hook_error": self._trust.hook.failure,
            "alarms": list(self._trust.alarms),
            "findings": [attrs.asdict(one) for one in self._trust.material.findings(self.now_ms())],
        }

    def gossip_report(self) -> dict[str, Any]:
        """Return the figures of this daemon and its links."""
        return self._figures.report()

    def wake_tasks(self) -> None:
        """Look at the folder of tasks now."""
        self._actions.tasks.wake()

    @property
    def shard_form(self) -> str:
        """How the list of shards names its hosts."""
        return self._actions.config.outputs.shard_form

    @property
    def maintenance(self) -> Maintenance | None:
        """The window of planned downtime that this node announces."""
        return self._actions.maintenance

    def is_private(self) -> bool:
        """Tell whether the HTTP service listens on an address of this host alone."""
        listen = self._actions.config.http.listen
        return listen is not None and is_loopback(listen[0])

    def configuration(self) -> str:
        """Return the configuration in force as TOML; passwords, and what programs are called with, are masked."""
        config = self._actions.config
        trust = attrs.evolve(config.trust, secret_hook=_program_alone(config.trust.secret_hook))
        documents = attrs.evolve(config.documents, hook=_program_alone(config.documents.hook))
        return masked(to_toml(attrs.evolve(config, trust=trust, documents=documents)))


def _program_alone(command: tuple[str, ...]) -> tuple[str, ...]:
    return (*command[:1], *(_MASK for _ in command[1:]))


def masked(text: str) -> str:
    """Return TOML without the passwords of addresses and of connection strings."""
    return _PASSWORD.sub(lambda found: f"{found[1] or found[2]}{_MASK}{'@' if found[1] else ''}", text)
