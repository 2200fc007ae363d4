"""
The room of tracking in the daemon: its database, the log of datasets, and what ``[tracking]`` switches on.

The log is followed by every node. A database that cannot be opened is a fault that is shown, and all else goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from esgf_gossip.config import Config
from esgf_gossip.config_tracking import is_on
from esgf_gossip.core.effects import Notice
from esgf_gossip.core.node import Node
from esgf_gossip.dataset_keeper import DatasetKeeper
from esgf_gossip.document_reader import Read
from esgf_gossip.net.connections import Connections
from esgf_gossip.net.driver import Driver
from esgf_gossip.storage.journal_thread import JournalThread
from esgf_gossip.storage.state_files import TRACKING
from esgf_gossip.tracking import changes, ledger
from esgf_gossip.tracking.database import TrackingDatabase, TrackingError
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.material import TrustMaterial
from esgf_gossip.views.federation import TrackingState
from esgf_gossip.web.picture import Picture

STOP_S: Final = 10.0
# The tables of the log, which every node has.
LOG_SCRIPTS: Final[Mapping[str, str]] = {"changes": changes.SCRIPT, "ledger": ledger.SCRIPT}


class TrackingRoom:
    """
    Everything of datasets and tracking in one daemon.

    ``notifications`` is the desk of mailing, None where tracking is off.

    Args:
        config: of the node.
        node: whose logs are read.
        read: reads leaves of a log from the disk.
        append: adds leaves to a log of this node.
        picture: where events are told.
        reactor: of everything.
        now_ms: Unix milliseconds.
    """

    log = Logger()

    def __init__(
        self,
        config: Config,
        node: Node,
        read: Read,
        append: Callable[[str, Sequence[bytes]], None],
        picture: Picture,
        reactor: Any,
        now_ms: Callable[[], int],
    ) -> None:
        self._config: Final = config
        self._node: Final = node
        self._picture: Final = picture
        self._reactor: Final = reactor
        self._now_ms: Final = now_ms
        self._service: Any = None
        # Why nothing of [tracking] is on, though it should be.
        self._fault = ""
        self._database: Final = self._open()
        self.datasets: Final = DatasetKeeper(
            node,
            read,
            append,
            self._database,
            picture,
            reactor,
            now_ms,
            JournalThread(reactor, "questions"),
            next(iter(config.tracking.data_nodes), ""),
        )

    def _open(self) -> TrackingDatabase | str:
        scripts = dict(LOG_SCRIPTS)
        if is_on(self._config.tracking):
            from esgf_gossip import tracking_inlets, tracking_users  # noqa: PLC0415 - bring mail and templates

            scripts |= {**tracking_inlets.SCRIPTS, **tracking_users.SCRIPTS}
        thread = JournalThread(self._reactor, "tracking")
        try:
            return TrackingDatabase(self._config.node.state / TRACKING, scripts, thread)
        except TrackingError as error:
            self.log.critical("tracking: {reason}; going on without it", reason=str(error))
            return str(error)

    @property
    def notifications(self) -> Any:
        """The desk of mailing."""
        return None if self._service is None else self._service.users.desk

    def join(self, driver: Driver, connections: Connections, material: Callable[[], TrustMaterial]) -> None:
        """Make what ``[tracking]`` switches on; what cannot be made is a fault that is shown, and no more."""
        if isinstance(self._database, str) or not is_on(self._config.tracking):
            return
        from esgf_gossip.tracking.mail_signing import SigningError  # noqa: PLC0415 - as in _open
        from esgf_gossip.tracking_service import TrackingService  # noqa: PLC0415

        try:
            self._service = TrackingService(
                self._config,
                self._database,
                self.datasets,
                self._node,
                driver,
                connections,
                material,
                self._picture,
                self._reactor,
                self._now_ms,
            )
        except (TrustError, SigningError, TrackingError, ValueError, OSError) as error:
            self._leave_out(str(error))

    def _leave_out(self, reason: str) -> None:
        """Go on without tracking: the federation needs none of it."""
        self._fault = reason
        self._service = None
        self.log.critical("tracking is off: {reason}; correct it and restart the daemon", reason=reason)

    def start(self) -> None:
        """Follow the log, and begin what is switched on."""
        if self._service is not None:
            try:
                self._service.start()
            except CannotListenError as error:
                self.stop()
                address = f"{error.interface or '*'}:{error.port}"
                self._leave_out(
                    f"cannot listen on {address}: {error.socketError}; stop what uses it, or correct it"
                )
        self.datasets.start()

    def reload(self) -> str:
        """Read again what may change without a stop: the certificate of the port; return what is wrong, or empty."""
        return "" if self._service is None else str(self._service.reload())

    @property
    def stop_s(self) -> float:
        """How long a stop may take: a mail under way is a second or two from its end."""
        return 0.0 if self._service is None else STOP_S

    def notice(self, notice: Notice) -> None:
        """Hear a notice of the core."""
        self.datasets.notice(notice)
        if self._service is not None:
            self._service.notice(notice)

    def state(self) -> TrackingState | None:
        """Return what tracking does; None where it is off."""
        if self._fault:
            return TrackingState({"tracking": self._fault}, {})
        return None if self._service is None else self._service.state()

    def stop(self) -> Deferred[Any]:
        """End what is switched on; fires when nothing is under way."""
        service, self._service = self._service, None
        return succeed(None) if service is None else service.stop()

    def close(self) -> None:
        """Close everything; twice does no harm."""
        self.stop()
        self.datasets.stop()
        if isinstance(self._database, TrackingDatabase):
            self._database.close()
