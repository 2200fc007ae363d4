"""
Tracking, joined: the ways in, the users, the port of the writers, and what binds them to the daemon.

The log of datasets is followed by every node, and is not part of this; here is what ``[tracking]`` switches on.
Source: docs/adr/0021-tracking.md.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.logger import Logger

from esgf_gossip.config import Config
from esgf_gossip.core.effects import Notice, PeerJoined
from esgf_gossip.core.model import Address
from esgf_gossip.core.node import Node
from esgf_gossip.dataset_keeper import DatasetKeeper
from esgf_gossip.net.connections import Connections
from esgf_gossip.net.driver import Driver
from esgf_gossip.net.feedback import FeedbackDialler, FeedbackHost
from esgf_gossip.tracking.database import TrackingDatabase
from esgf_gossip.tracking.homes import Homes, homes_of, sees_most
from esgf_gossip.tracking_inlets import Inlets
from esgf_gossip.tracking_users import Users
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.material import TrustMaterial
from esgf_gossip.trust.web_client import WebClientPolicy
from esgf_gossip.trust.web_tls import HostCertificate
from esgf_gossip.views.federation import FederationView, NodeStatus, TrackingState
from esgf_gossip.web.tracking_site import make_tracking_site, with_certificate
from esgf_gossip.web.unsubscribe import mail_pages

# Whose user is whose is worked out anew so long after something changed.
HOMES_S: Final = 1.0
# After the first comparison with peers their logs come: no mail before, for another node may have stood in. The
# simulator finds two users told twice in 30 histories with half a minute, none with five.
LOGS_S: Final = 300.0
# A node to which nothing has happened yet has missed nothing.
FIRST_S: Final = 2.0
CERTIFICATE_S: Final = 24 * 3600.0


class Scene(Protocol):
    """What of the daemon's picture tracking looks at."""

    def view(self) -> FederationView:
        """Return the federation of now."""

    def is_ready(self) -> bool:
        """Tell whether it was compared with others, or had time to."""

    def on_view_changed(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call back when it changes."""


class TrackingService:
    """
    The tracking of one node.

    Args:
        config: of the node.
        database: with the scripts of ``tracking_inlets`` and ``tracking_users``.
        datasets: says events, and tells of changes.
        node: whose registry says where nodes are reached, and which names they are certified for.
        driver: hears other nodes.
        connections: reach them.
        material: the trust in force.
        picture: the view of now.
        reactor: of everything.
        now_ms: Unix milliseconds.

    Raises:
        TrustError, SigningError, OSError: a certificate, key or password cannot be read.
    """

    log = Logger()

    def __init__(
        self,
        config: Config,
        database: TrackingDatabase,
        datasets: DatasetKeeper,
        node: Node,
        driver: Driver,
        connections: Connections,
        material: Callable[[], TrustMaterial],
        picture: Scene,
        reactor: Any,
        now_ms: Callable[[], int],
    ) -> None:
        table = config.tracking
        self._config: Final = config
        self._datasets: Final = datasets
        self._node: Final = node
        self._driver: Final = driver
        self._picture: Final = picture
        self._reactor: Final = reactor
        self._certificate: Final = (
            HostCertificate(table.certificate, table.key) if table.certificate and table.key else None
        )
        self._homes = Homes(config.node.host, {}, {})
        self._homes_call: Any = None
        self._mail_call: Any = None
        self._reload_call: Any = None
        self._certificate_fault = ""
        self._away: frozenset[str] = frozenset()
        self._forget_view: Callable[[], None] = lambda: None
        self._port: Any = None
        state: Path = config.node.state
        self.users: Final = Users(
            table,
            config.node.host,
            state,
            database,
            homes=lambda: self._homes,
            send=FeedbackDialler(connections, self._contact_of, reactor).send,
            publish_claims=datasets.publish_claims,
            may_act=self._may_act,
            provider_policy=WebClientPolicy(material),
            issuer=material().leaf.subject.rfc4514_string(),
            allowed=[ip_network(text) for text in config.services.allow],
            reactor=reactor,
            now_ms=now_ms,
        )
        self._has_past: Final = self.users.has_past()
        self._host: Final = FeedbackHost(self.users.take_question, reactor)
        self.inlets: Final = Inlets(
            table, config.node.host, database, datasets.publish, state, reactor, now_ms, self.users.wake
        )

    def _contact_of(self, host: str) -> Address | None:
        line = self._node.registry.table.line(host)
        return None if line is None else line.digest.contact

    def _may_act(self, home: str) -> bool:
        links = self._node.links
        linked = {session.peer for session in links.sessions.open()}
        return sees_most(self._picture.view(), home, links.neighbours, linked)

    def notice(self, notice: Notice) -> None:
        """Hear a notice of the core: who is linked can be brought what waits for it."""
        if isinstance(notice, PeerJoined):
            if len({session.peer for session in self._node.links.sessions.open()}) <= 1:
                # Cut off itself it could not see who was away.
                self.users.homeward.rejoined()
            self.users.homeward.heard_of(notice.peer)

    def start(self) -> None:
        """
        Begin.

        Raises:
            CannotListenError: the port of the writers is taken.
        """
        table = self._config.tracking
        if table.listen is not None:
            pages = {**self.inlets.pages, **mail_pages(self.users.desk)}
            site = make_tracking_site(pages, self._names(), self._reactor)
            factory = with_certificate(site, self._certificate)
            self._port = self._reactor.listenTCP(table.listen[1], factory, interface=table.listen[0])
        self._work_out_homes()
        self._forget_view = self._picture.on_view_changed(self._view_changed)
        if self.users.is_mailing:
            self._driver.on_feedback = self._host.receive
        self._datasets.on_changes = self.users.wake
        self._datasets.on_own_events = self.inlets.recall
        self.users.start()
        self.inlets.start()
        self._mail_when_ready()
        self._reload_call = self._reactor.callLater(CERTIFICATE_S, self._reload_again)

    def _names(self) -> list[str]:
        """Return the host names under which the port of the writers is asked for."""
        table = self._config.tracking
        names = [*self._config.http.hosts]
        if table.listen is not None:
            names.append(table.listen[0])
        if table.public_url is not None:
            names.append(urlsplit(table.public_url).hostname or "")
        return [name for name in dict.fromkeys(names) if name]

    def _mail_when_ready(self) -> None:
        if self._picture.is_ready() and self._datasets.has_read:
            pause_s = LOGS_S if self._has_past else FIRST_S
            self._mail_call = self._reactor.callLater(pause_s, self.users.start_mailing)
        else:
            self._mail_call = self._reactor.callLater(1.0, self._mail_when_ready)

    def reload(self) -> str:
        """Read the certificate of the port again; return what is wrong with it, empty where all is well."""
        if self._certificate is None:
            return ""
        try:
            self._certificate.reload()
        except (TrustError, OSError) as error:
            self._certificate_fault = f"{error}; the certificate in force stays"
        else:
            self._certificate_fault = ""
        return self._certificate_fault

    def _reload_again(self) -> None:
        self.reload()
        self._reload_call = self._reactor.callLater(CERTIFICATE_S, self._reload_again)

    def stop(self) -> Deferred[Any]:
        """End; fires when nothing is under way."""
        self._forget_view()
        for call in (self._homes_call, self._mail_call, self._reload_call):
            if call is not None and call.active():
                call.cancel()
        self._driver.on_feedback = lambda *_: None
        port, self._port = self._port, None
        waits = [maybeDeferred(port.stopListening)] if port is not None else []
        for part in (self.inlets, self.users):
            try:
                waits += [one for one in part.stop() if isinstance(one, Deferred)]
            except Exception:  # noqa: BLE001 - the others must end all the same
                self.log.failure("A part of tracking does not stop")
        return DeferredList(waits, consumeErrors=True)

    def _view_changed(self) -> None:
        if self._homes_call is None or not self._homes_call.active():
            self._homes_call = self._reactor.callLater(HOMES_S, self._work_out_homes)

    def _work_out_homes(self) -> None:
        table = self._node.registry.table
        view = self._picture.view()
        certified = {
            one.host: line.hosts for one in view.members if (line := table.line(one.host)) is not None
        }
        before, self._homes = self._homes, homes_of(view, certified, self._config.tracking.homes)
        if self._homes != before:
            self.users.homeward.homes_changed()
        away = frozenset(one.host for one in view.members if one.status is not NodeStatus.UP)
        for host in self._away - away:
            self.users.homeward.heard_of(host)
        self._away = away

    def state(self) -> TrackingState:
        """Return figures and faults by part."""
        figures = {**self.inlets.figures(), **self.users.figures()}
        faults = {**self.inlets.faults(), **self.users.faults()}
        if self._certificate_fault:
            faults["certificate"] = self._certificate_fault
        return TrackingState(faults, figures)
