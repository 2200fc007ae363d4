"""
The daemon: every room joined, started and stopped in order, reloaded without a stop.

Only assembly lives here. ``foreground`` and the Twisted plugin both run this one
service. No reactor is imported at module level (docs/adr/0002).
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from random import SystemRandom
from typing import Any, Final

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.logger import Logger

from esgf_gossip import __version__
from esgf_gossip.addresses import format_address
from esgf_gossip.config import Config
from esgf_gossip.core.effects import Notice
from esgf_gossip.core.node import Node
from esgf_gossip.core.publication import PublicationError
from esgf_gossip.document_keeper import DocumentKeeper
from esgf_gossip.esgf.maintenance import Maintenance
from esgf_gossip.esgf.site_data import SiteError
from esgf_gossip.log_output import LogOutput
from esgf_gossip.net.clock import wall_clock_ms
from esgf_gossip.net.connections import Connections
from esgf_gossip.net.driver import Driver
from esgf_gossip.net.figures import Figures
from esgf_gossip.net.trust_keeper import TrustKeeper
from esgf_gossip.own_site import Neighbourhood, OwnSite, read_own_site
from esgf_gossip.preparing import make_folder, spare_the_collector, trust_place
from esgf_gossip.reloading import Reloading
from esgf_gossip.service_manager import HTTP, ServiceManager, ServiceManagerError
from esgf_gossip.sources.observing import Subjects
from esgf_gossip.state_copy import StateCopy
from esgf_gossip.storage.database import FILE_NAME, Database, StorageError
from esgf_gossip.storage.history_reader import FILE_NAME as HISTORY
from esgf_gossip.storage.list_files import ListFiles
from esgf_gossip.storage.outputs import RegistrationFile
from esgf_gossip.tasks.site_tasks import SiteTasks
from esgf_gossip.tracking_room import TrackingRoom
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.statement import ENTRY as TRUST_ENTRY
from esgf_gossip.views.federation import OwnState
from esgf_gossip.views.judgement import Judge
from esgf_gossip.web.archive import Archive
from esgf_gossip.web.control import ControlSocket, ControlSocketError
from esgf_gossip.web.control_answers import CommandError
from esgf_gossip.web.picture import Picture
from esgf_gossip.web.site import make_site
from esgf_gossip.window import Window

# A goodbye has that long to leave the host before the process ends.
STOP_S: Final = 2.0
CANNOT_RUN: Final = 11
DAY_MS: Final = 24 * 60 * 60 * 1000


class StartError(Exception):
    """Report why the daemon cannot run: what, where, what to do, in one line."""


class GossipService(Service):
    """
    One running node.

    ``config`` is the configuration in force; ``reload`` replaces it. ``exit_code``
    is what the process should end with.
    """

    log = Logger()
    name = "esgf-gossip"

    def __init__(self, config: Config, config_path: Path, reactor: Any) -> None:
        self.config = config
        self._config_path: Final = config_path
        self._reactor = reactor
        self.now_ms: Final = wall_clock_ms
        self._started_at_ms = 0
        self._http_ports: list[Any] = []
        self._is_open = False
        self.exit_code = os.EX_OK
        # Where the process is ours alone; Twisted's own runners write the log themselves.
        self.log_output: LogOutput | None = None

    # ----------------------------------------------------------------- start

    def startService(self) -> None:
        """
        Start the node.

        Raises:
            StartError: something is missing, wrong or taken; nothing keeps running.
        """
        self._started_at_ms = self.now_ms()
        # Here, not earlier: only now is this surely the process that was asked for (twistd forks before).
        self._manager = ServiceManager(os.environ, self._reactor)
        try:
            self._open()
        except (
            *(TrustError, SiteError, StorageError, PublicationError),
            *(ControlSocketError, ServiceManagerError),
        ) as error:
            self._close_all()
            raise StartError(str(error)) from None
        except CannotListenError as error:
            self._close_all()
            address = f"{error.interface or '*'}:{error.port}"
            reason = getattr(error.socketError, "strerror", None) or error.socketError
            raise StartError(
                f"cannot listen on {address}: {reason}; stop what uses it, or correct listen in node.toml"
            ) from None
        except OSError as error:
            self._close_all()
            raise StartError(
                f"{error.filename or self.config.node.state}: {error.strerror}; check the folder"
            ) from None
        super().startService()
        signal.signal(signal.SIGHUP, self._on_hangup)
        self._reactor.callWhenRunning(self._manager.ready, self._state_line)
        self.log.info(
            "{host} of federation {federation} runs: epoch {epoch}, {nodes} nodes known, gossip on {gossip}",
            host=self.config.node.host,
            federation=self.config.node.federation,
            epoch=self._node.origin.publication.epoch,
            nodes=len(self._node.registry.table),
            gossip=format_address(self.config.gossip.listen),
        )

    def _open(self) -> None:
        config = self.config
        # Before anybody can dial: a start of a whole federation has no time to lose then.
        spare_the_collector()
        # Cheapest faults first: nothing is written before keys and site data are known to be good.
        self.trust = TrustKeeper(trust_place(config), self.now_ms, self._reactor)
        site = read_own_site(config)
        for finding in site.findings:
            self.log.warn("site data: {finding}", finding=str(finding))
        make_folder(config.node.state, "[node] state")
        make_folder(config.outputs.directory, "[outputs] directory")
        self._database = Database(config.node.state / FILE_NAME)
        self._is_open = True
        self._state_copy = StateCopy(config.node.state, self._database, self._reactor)
        self._node = Node(
            self.trust.material.signer,
            self.trust.verifier,
            config.gossip.advertise,
            config.gossip.seeds,
            SystemRandom(),
            self.trust.objects,
        )
        document = (
            None
            if "registration.xml" not in config.outputs.files
            else config.outputs.directory / "registration.xml"
        )
        outputs = config.outputs
        self._lists = ListFiles(outputs.directory, outputs.files, outputs.shard_form, outputs.drop_down)
        self.tasks = SiteTasks(config, self, self._reactor, self.now_ms)
        self._judge = Judge(self._node.registry, self._node.standing, lambda: self._site.policy)
        self.archive = Archive(
            config.node.state / HISTORY,
            config.node.history_days * DAY_MS,
            config.node.history_bytes,
            self._node.registry,
            self._own_state,
            lambda: self._site.policy,
            self._reactor,
            self.now_ms,
        )
        self.picture = Picture(
            self._judge,
            self._own_state,
            lambda: self._node.peers_compared,
            lambda: self._node.links.expiry_ms(self._driver.at()),
            RegistrationFile(document, self._database),
            self._lists,
            self._reactor,
            self.now_ms,
        )
        self._driver = Driver(self._node, self._database, self._reactor, self._notice, self.now_ms)
        self._connections = Connections(self._driver, self.trust.creator, self._reactor)
        self._figures = Figures(self._node, self._driver)
        self.metadata = DocumentKeeper(
            self._node, self._database.leaves, self._driver.append, self.picture, self._reactor, self.now_ms
        )
        self._tracking = TrackingRoom(
            config,
            self._node,
            self._database.leaves,
            self._driver.append,
            self.picture,
            self._reactor,
            self.now_ms,
        )
        self._tracking.join(self._driver, self._connections, lambda: self.trust.material)
        self.datasets = self._tracking.datasets
        self.window = Window(
            self.picture,
            self.archive,
            self._figures,
            self.trust,
            self.metadata.desk,
            self._tracking,
            self._node.registry,
            self,
            self.now_ms,
        )
        self.window.log_tail.start()
        self._control = ControlSocket(config.control_socket, self.window, self._reactor)
        # Bound before the first packet is sent: a second daemon ends here.
        self._control.start()
        self._connections.listen(config.gossip.listen)
        if config.http.listen is not None:
            host, port = config.http.listen
            web_site = make_site(self.window, config.http.hosts, self._reactor)
            self._http_ports = self._manager.listen(HTTP, web_site)
            if not self._http_ports:
                self._http_ports = [self._reactor.listenTCP(port, web_site, interface=host)]
        self._manager.close_unused()
        stored = self._database.load()
        at = self._driver.at()
        self._driver.perform(
            self._node.restore(
                stored.epoch, stored.lines, stored.bodies, at, stored.forks, stored.logs, stored.trust
            )
        )
        # What the last run said of this node stands until it is found otherwise.
        federation = Neighbourhood(lambda: len(self._node.registry.table), self._subjects)
        self._site = OwnSite(config, site, self._say, federation, self._reactor, self.now_ms)
        self._reloading = Reloading(
            self._config_path,
            self.trust,
            self._site,
            self._node.origin,
            self.log_output,
            self._say,
            self.metadata.replace,
        )
        self._site.start(self.picture.view().node(config.node.host))
        self.archive.start(self.picture)
        self.picture.start()
        self._driver.perform(self._node.start(self._entries(), at))
        self.trust.visit = self._connections.visit
        self.trust.on_statement = self._say
        self.trust.start(self._node, self._driver, self._database)
        self.metadata.start(config.documents)
        self._tracking.start()
        self._driver.on_fatal = self._end
        self.tasks.start()

    def _subjects(self) -> Subjects:
        """Return the services of those members that this node is to look at."""
        is_to_look_at = self._judge.observed_by(self.config.node.host)
        return {
            node.host: node.registration.services
            for node in self.picture.view().nodes
            if node.is_listed and node.registration is not None and is_to_look_at(node.host)
        }

    def _notice(self, notice: Notice) -> None:
        self.trust.notice(notice)
        self._figures.notice(notice)
        self.archive.notice(notice)
        self.metadata.notice(notice)
        self._tracking.notice(notice)
        self.picture.notice(notice)

    def _own_state(self) -> OwnState:
        publication = self._node.origin.publication
        now_ms = self.now_ms()
        return OwnState(
            host=self.config.node.host,
            federation=self.config.node.federation,
            version=__version__,
            epoch=publication.epoch,
            sequence=publication.sequence,
            links=len(self._node.links.sessions.open()),
            started_at_ms=self._started_at_ms,
            certificate_not_after_ms=self.trust.material.not_after_ms,
            crl_age_s=self.trust.material.crl_age_s(now_ms),
            storage_error=self._driver.storage_error,
            publishing_stopped=publication.stopped,
            trust_error=self.trust.failure or self.trust.hook.failure,
            trust_alarms=tuple(self.trust.alarms),
            list_alarms=self._lists.alarms,
            history_error=self.archive.failure,
            tasks=self.tasks.counts(),
            documents_error=self.metadata.fault,
            documents=self.metadata.counts(),
            datasets_error=self.datasets.fault,
            datasets=self.datasets.counts(),
            tracking=self._tracking.state(),
        )

    def _state_line(self) -> str:
        """Return what a service manager shows of this daemon."""
        nodes, links = len(self._node.registry.table), len(self._node.links.sessions.open())
        return f"{nodes} nodes known, {links} linked"

    # ----------------------------------------------------------------- stop

    def stopService(self) -> Deferred[Any]:
        """Say goodbye, let it leave the host, close everything."""
        super().stopService()
        if not self._is_open:
            return succeed(None)
        self._manager.stopping()
        connections = self._driver.connections
        self.tasks.stop()
        self._site.stop()
        self.trust.stop()
        self._driver.stop()
        waits = [maybeDeferred(self._connections.stop), maybeDeferred(self._control.stop)]
        waits.extend(self._close_http())
        stop_s = self._tracking.stop_s
        waits.append(self._tracking.stop())
        waits.extend(connection.closed() for connection in connections)
        stopped: Deferred[Any] = DeferredList(waits, consumeErrors=True)
        stopped.addTimeout(
            max(STOP_S, stop_s), self._reactor, onTimeoutCancel=lambda result, _after_s: result
        )
        stopped.addBoth(lambda _: self._close_all())
        return stopped

    def _close_all(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._state_copy.stop()
        # A start that failed half way has not made all of them.
        for name in ("tasks", "picture", "archive", "metadata"):
            if hasattr(self, name):
                getattr(self, name).stop()
        if hasattr(self, "_tracking"):
            self._tracking.close()
        if hasattr(self, "window"):
            self.window.log_tail.stop()
        if hasattr(self, "_site"):
            self._site.stop()
        self.trust.stop()
        if hasattr(self, "_driver"):
            self._driver.stop()
        if hasattr(self, "_connections"):
            maybeDeferred(self._connections.stop)
        if hasattr(self, "_control"):
            maybeDeferred(self._control.stop)
        self._close_http()
        self._database.close()

    def _close_http(self) -> list[Deferred[Any]]:
        ports, self._http_ports = self._http_ports, []
        return [maybeDeferred(port.stopListening) for port in ports]

    # ----------------------------------------------------------------- commands

    def reload(self) -> Deferred[dict[str, Any]]:
        """
        Read configuration, trust and site data again; what is wrong leaves the old in force.

        Fires with ``changed`` (parts now in force), ``refused`` (what was wrong) and
        ``findings`` (what to look at), one line each.
        """
        with self._manager.reload():
            self.config, outcome = self._reloading.read(self.config)
            outcome.refused.extend(filter(None, [self._tracking.reload()]))
        self.picture.moved()
        return succeed(attrs.asdict(outcome))

    def _entries(self) -> dict[str, bytes]:
        entries = self._site.entries()
        try:
            entries[TRUST_ENTRY] = self.trust.statement()
        except TrustError as error:
            self.log.warn("nothing is published of this node's trust: {reason}", reason=str(error))
        return entries

    def _say(self) -> None:
        if self._is_open:
            self._driver.perform(self._node.publish(self._entries(), self._driver.at()))

    def _on_hangup(self, _number: int, _frame: object) -> None:
        # Not in the signal handler: the reactor may be in the middle of anything.
        self._reactor.callFromThread(self._reload_if_open)

    def _reload_if_open(self) -> None:
        if self._is_open and self.running:
            self.reload()

    def _end(self, reason: str) -> None:
        self.log.critical("cannot go on: {reason}", reason=reason)
        self.exit_code = CANNOT_RUN
        self.stop()

    def stop(self) -> None:
        """Stop the process in good order."""
        self._reactor.callLater(0, self._stop_reactor)

    def _stop_reactor(self) -> None:
        # Two clients may ask at once, or one and a signal.
        with contextlib.suppress(ReactorNotRunning):
            self._reactor.stop()

    def rebuild_lists(self) -> list[str]:
        """Write all output files anew; return which could not be written, and why."""
        return self.picture.write_anew()

    @property
    def maintenance(self) -> Maintenance | None:
        """The window of planned downtime that this node announces."""
        return self._site.maintenance

    def announce(self, window: Maintenance | None) -> None:
        """Announce a window of planned downtime, or that there is none."""
        self._site.announce(window)
        self._say()

    def backup(self) -> Deferred[dict[str, Any]]:
        """Copy the databases; see ``StateCopy.make``."""
        return self._state_copy.make()

    def leave(self) -> Deferred[None]:
        """
        Leave the federation and stop; fires when the peers linked have been told.

        Raises:
            CommandError: nobody would hear it: no peer is linked, or this node publishes no more.
        """
        stopped = self._node.origin.publication.stopped
        if stopped:
            raise CommandError(f"this node publishes no more ({stopped}), so it cannot say that it leaves")
        if len(self._node.registry.table) > 1 and not self._node.links.sessions.open():
            raise CommandError(
                "no peer is linked, so nobody would hear it; try again when status shows a link"
            )
        self._driver.perform(self._node.leave(self._driver.at()))
        self.log.info("left the federation")
        self.stop()
        return succeed(None)
